// How the rows of a call are split over threads.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels.h"
#include "thread_pool.h"

namespace qscore {

// Below this many elements a thread costs more than it saves.
constexpr int64_t kElementsPerThread = 1 << 16;
constexpr int64_t kElementsPerChunk = 1 << 16;

inline int workers_for(const Matrix& h, int threads) {
  const int64_t useful = h.rows * h.features / kElementsPerThread;
  const int64_t workers = useful < threads ? useful : threads;
  return workers < 1 ? 1 : static_cast<int>(workers);
}

template <class F>
void run_workers(int workers, F& f) {
  run_tasks(workers, [](void* context, int index) { (*static_cast<F*>(context))(index); }, &f);
}

// Rows in chunks, to whoever is free: for kernels whose rows share nothing.
template <class F>
void for_chunks(const Matrix& h, int threads, F f) {
  const int workers = workers_for(h, threads);
  if (workers == 1) return f(int64_t{0}, h.rows);
  const int64_t fit = kElementsPerChunk / h.features;
  const int64_t chunk = fit < 1 ? 1 : fit;
  std::atomic<int64_t> next{0};
  auto work = [&](int) {
    for (;;) {
      const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= h.rows) return;
      f(begin, begin + chunk < h.rows ? begin + chunk : h.rows);
    }
  };
  run_workers(workers, work);
}

// One run of consecutive rows a worker: for kernels that leave partial sums or entries, in a fixed order.
template <class F>
void for_spans(const Matrix& h, int workers, F f) {
  auto work = [&](int w) { f(w, h.rows * w / workers, h.rows * (w + 1) / workers); };
  run_workers(workers, work);
}

}  // namespace qscore
