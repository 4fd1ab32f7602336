#include "kernels.h"

#include <atomic>

namespace qscore {

#if defined(QSCORE_X86)
extern const Target avx512;
extern const Target avx2;
#endif
extern const Target baseline;

const Target* const* supported_targets() {
  static const Target* targets[4] = {};
  if (!targets[0]) {
    int n = 0;
#if defined(QSCORE_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      targets[n++] = &avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
      targets[n++] = &avx2;
#endif
    targets[n++] = &baseline;
  }
  return targets;
}

namespace {
std::atomic<const Target*> chosen{nullptr};
}  // namespace

const Target& target_in_use() {
  const Target* target = chosen.load(std::memory_order_relaxed);
  if (!target) {
    target = supported_targets()[0];
    chosen.store(target, std::memory_order_relaxed);
  }
  return *target;
}

void set_target_in_use(const Target& target) { chosen.store(&target, std::memory_order_relaxed); }

}  // namespace qscore
