// The Python module: takes addresses and sizes, splits the rows over threads, calls the kernels.
// It checks nothing about the memory behind an address; qscore_fast.kernels.cpu is its only caller.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"

namespace nb = nanobind;

namespace qscore {
namespace {

using Address = uintptr_t;

std::atomic<const Target*> current_target{nullptr};

const KernelTable& kernels(int dtype) {
  const Target* target = current_target.load(std::memory_order_relaxed);
  if (!target) {
    target = supported_targets()[0];
    current_target.store(target, std::memory_order_relaxed);
  }
  return target->kernels[dtype];
}

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Below this many elements a thread costs more than it saves.
constexpr int64_t kElementsPerThread = 1 << 16;
constexpr int64_t kElementsPerChunk = 1 << 16;

int workers_for(const Matrix& h, int threads) {
  const int64_t useful = h.rows * h.features / kElementsPerThread;
  const int64_t workers = useful < threads ? useful : threads;
  return workers < 1 ? 1 : static_cast<int>(workers);
}

template <class F>
void run(int workers, F& f) {
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
  run(workers, work);
}

// One run of consecutive rows a worker: for kernels that leave partial sums or entries, in a fixed order.
template <class F>
void for_spans(const Matrix& h, int workers, F f) {
  auto work = [&](int w) { f(w, h.rows * w / workers, h.rows * (w + 1) / workers); };
  run(workers, work);
}

void row_stats_forward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                       int64_t row_stride, Address stats) {
  const RowStatsForward a{{at<void>(h), rows, features, row_stride}, at<void>(stats)};
  const auto kernel = kernels(dtype).row_stats_forward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void row_stats_backward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                        int64_t row_stride, Address dstats, Address stats, Address dh) {
  const RowStatsBackward a{{at<void>(h), rows, features, row_stride},
                           at<void>(dstats),
                           at<void>(stats),
                           at<void>(dh)};
  const auto kernel = kernels(dtype).row_stats_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void q_score_forward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                     int64_t row_stride, Address mask, double eps, Address q, Address saved) {
  const QScoreForward a{{at<void>(h), rows, features, row_stride},
                        at<uint8_t>(mask),
                        eps,
                        at<void>(q),
                        at<void>(saved)};
  const auto kernel = kernels(dtype).q_score_forward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void q_score_backward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                      int64_t row_stride, Address mask, Address dq, Address q, Address saved,
                      Address dh) {
  const QScoreBackward a{{at<void>(h), rows, features, row_stride},
                         at<void>(mask),
                         at<void>(dq),
                         at<void>(q),
                         at<void>(saved),
                         at<void>(dh)};
  const auto kernel = kernels(dtype).q_score_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void highly_active(int dtype, int threads, Address h, int64_t rows, int64_t features,
                   int64_t row_stride, double eps, Address active) {
  const HighlyActive a{{at<void>(h), rows, features, row_stride}, eps, at<uint8_t>(active)};
  const auto kernel = kernels(dtype).highly_active;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void activation_counts(int dtype, int threads, Address h, int64_t rows, int64_t features,
                       int64_t row_stride, double eps, Address counts) {
  const ActivationCounts a{{at<void>(h), rows, features, row_stride}, eps};
  const auto kernel = kernels(dtype).activation_counts;
  const int workers = workers_for(a.h, threads);
  const std::unique_ptr<int64_t[]> partial(new int64_t[workers * features]());
  for_spans(a.h, workers, [&](int w, int64_t begin, int64_t end) {
    kernel(a, begin, end, partial.get() + w * features);
  });
  int64_t* total = at<int64_t>(counts);
  std::memset(total, 0, static_cast<size_t>(features) * sizeof(int64_t));
  for (int w = 0; w < workers; ++w)
    for (int64_t j = 0; j < features; ++j) total[j] += partial[w * features + j];
}

// The entries that sparse_forward found, until they are copied into tensors of the right size.
class SparseEntries {
 public:
  SparseEntries(int workers, size_t value_size) : parts_(workers), value_size_(value_size) {}
  ~SparseEntries() {
    for (auto& part : parts_) {
      std::free(part.feature);
      std::free(part.value);
    }
  }
  SparseEntries(const SparseEntries&) = delete;
  SparseEntries& operator=(const SparseEntries&) = delete;

  Entries* part(int worker) { return &parts_[worker]; }
  bool failed() const {
    for (const auto& part : parts_)
      if (part.failed) return true;
    return false;
  }
  int64_t size() const {
    int64_t total = 0;
    for (const auto& part : parts_) total += part.size;
    return total;
  }
  void copy(Address feature, Address value) const {
    int32_t* features = at<int32_t>(feature);
    char* values = at<char>(value);
    for (const auto& part : parts_) {
      if (!part.size) continue;
      const size_t n = static_cast<size_t>(part.size);
      std::memcpy(features, part.feature, n * sizeof(int32_t));
      std::memcpy(values, part.value, n * value_size_);
      features += n;
      values += n * value_size_;
    }
  }

 private:
  std::vector<Entries> parts_;
  size_t value_size_;
};

SparseEntries* sparse_forward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                              int64_t row_stride, double eps, Address offsets, Address stats) {
  int64_t* offset = at<int64_t>(offsets);
  const SparseForward a{
      {at<void>(h), rows, features, row_stride}, eps, offset + 1, at<void>(stats)};
  const auto kernel = kernels(dtype).sparse_forward;
  const int workers = workers_for(a.h, threads);
  auto entries = std::make_unique<SparseEntries>(
      workers, dtype == kFloat64 ? sizeof(double) : sizeof(float));
  for_spans(a.h, workers, [&](int w, int64_t begin, int64_t end) {
    kernel(a, begin, end, entries->part(w));
  });
  if (entries->failed()) throw std::bad_alloc();
  offset[0] = 0;
  for (int64_t i = 0; i < rows; ++i) offset[i + 1] += offset[i];
  return entries.release();
}

void sparse_backward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                     int64_t row_stride, Address dvalue, Address dstats, Address offsets,
                     Address feature, Address value, Address stats, Address dh) {
  const SparseBackward a{{at<void>(h), rows, features, row_stride},
                         at<void>(dvalue),
                         at<void>(dstats),
                         at<int64_t>(offsets),
                         at<int32_t>(feature),
                         at<void>(value),
                         at<void>(stats),
                         at<void>(dh)};
  const auto kernel = kernels(dtype).sparse_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

// alpha, beta, the weights and the loss, from the scores and the column norms.
template <class A>
void finish_loss(const QScoreForward& f, const double* columns, double lambda1, double lambda2,
                 bool mean, A* loss, A* row_weight, A* col_weight) {
  const int64_t n = f.h.rows, r = f.h.features;
  const A* q = static_cast<const A*>(f.q);
  double alpha = 0, beta = 0;
  for (int64_t i = 0; i < n; ++i) alpha += q[i];
  for (int64_t k = 0; k < r; ++k) beta += columns[k];
  alpha /= static_cast<double>(n);
  beta /= static_cast<double>(r);
  const double per_row = -lambda1 / static_cast<double>(n);
  const double per_column = mean ? lambda2 / static_cast<double>(n) : lambda2;
  // Products, not selections: a NaN reaches the loss.
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double weight = q[i] < alpha ? per_row : 0.0;
    row_weight[i] = static_cast<A>(weight);
    total += weight * q[i];
  }
  for (int64_t k = 0; k < r; ++k) {
    const double weight = columns[k] > beta ? per_column : 0.0;
    col_weight[k] = static_cast<A>(weight);
    total += weight * columns[k];
  }
  *loss = static_cast<A>(n ? total : 0.0);
}

void loss_forward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                  int64_t row_stride, Address mask, double eps, double lambda1, double lambda2,
                  bool mean, Address loss, Address q, Address saved, Address row_weight,
                  Address col_weight) {
  const QScoreForward a{{at<void>(h), rows, features, row_stride},
                        at<uint8_t>(mask),
                        eps,
                        at<void>(q),
                        at<void>(saved)};
  const auto kernel = kernels(dtype).loss_forward;
  const int workers = workers_for(a.h, threads);
  const size_t partial = static_cast<size_t>(workers) * features;
  const std::unique_ptr<double[]> columns(new double[partial]());
  const std::unique_ptr<double[]> scratch(new double[partial]);
  for_spans(a.h, workers, [&](int w, int64_t begin, int64_t end) {
    kernel(a, begin, end, columns.get() + w * features, scratch.get() + w * features);
  });
  for (int w = 1; w < workers; ++w)
    for (int64_t k = 0; k < features; ++k) columns[k] += columns[w * features + k];
  if (dtype == kFloat64)
    finish_loss(a, columns.get(), lambda1, lambda2, mean, at<double>(loss), at<double>(row_weight),
                at<double>(col_weight));
  else
    finish_loss(a, columns.get(), lambda1, lambda2, mean, at<float>(loss), at<float>(row_weight),
                at<float>(col_weight));
}

void loss_backward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                   int64_t row_stride, Address mask, Address dloss, Address q, Address saved,
                   Address row_weight, Address col_weight, Address dh) {
  const LossBackward a{{{at<void>(h), rows, features, row_stride},
                        at<void>(mask),
                        at<void>(row_weight),
                        at<void>(q),
                        at<void>(saved),
                        at<void>(dh)},
                       at<void>(col_weight),
                       dtype == kFloat64 ? *at<double>(dloss) : *at<float>(dloss)};
  const auto kernel = kernels(dtype).loss_backward;
  for_chunks(a.score.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (auto target = supported_targets(); *target; ++target) names.push_back((*target)->name);
  return names;
}

std::string current() {
  const Target* target = current_target.load();
  return (target ? target : supported_targets()[0])->name;
}

void use_target(const std::string& name) {
  std::string known;
  for (auto target = supported_targets(); *target; ++target) {
    if (name == (*target)->name) return current_target.store(*target);
    known += std::string(known.empty() ? "" : ", ") + (*target)->name;
  }
  throw std::invalid_argument("instruction set '" + name + "' is not among those of this processor: " +
                              known);
}

}  // namespace
}  // namespace qscore

NB_MODULE(_native, m) {
  using namespace qscore;
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.doc() = "Native CPU kernels; private, use qscore_fast.functional.";
  nb::class_<SparseEntries>(m, "SparseEntries")
      .def("__len__", &SparseEntries::size)
      .def("copy", &SparseEntries::copy, Unlocked());
  m.def("row_stats_forward", &row_stats_forward, Unlocked());
  m.def("row_stats_backward", &row_stats_backward, Unlocked());
  m.def("q_score_forward", &q_score_forward, Unlocked());
  m.def("q_score_backward", &q_score_backward, Unlocked());
  m.def("highly_active", &highly_active, Unlocked());
  m.def("activation_counts", &activation_counts, Unlocked());
  m.def("sparse_forward", &sparse_forward, Unlocked(), nb::rv_policy::take_ownership);
  m.def("sparse_backward", &sparse_backward, Unlocked());
  m.def("loss_forward", &loss_forward, Unlocked());
  m.def("loss_backward", &loss_backward, Unlocked());
  m.def("targets", &targets, "Instruction sets that can run here, best first.");
  m.def("current_target", &current, "The instruction set in use.");
  m.def("use_target", &use_target, "Choose the instruction set; the best is the default.");
}
