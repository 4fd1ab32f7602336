// The Python module: takes addresses and sizes, splits the rows over threads, calls the kernels.
// It checks nothing about the memory behind an address; qscore_fast.kernels.cpu is its only caller.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
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

#include "bindings.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "sparse_entries.h"

namespace nb = nanobind;

namespace qscore {
namespace {

const KernelTable& kernels(int dtype) { return target_in_use().kernels[dtype]; }

// D or the columns' weights in the order in which the kernels load them.
class Arranged {
 public:
  Arranged(int dtype, Address mask, int64_t features) {
    if (!mask) return;
    memory_.reset(new char[arranged_bytes(features)]);
    kernels(dtype).arrange_mask(at<uint8_t>(mask), features, memory_.get());
  }
  static Arranged columns(int dtype, Address columns, int64_t features) {
    Arranged arranged(dtype, 0, features);
    arranged.memory_.reset(new char[arranged_bytes(features)]);
    kernels(dtype).arrange_columns(at<void>(columns), features, arranged.memory_.get());
    return arranged;
  }
  const void* get() const { return memory_.get(); }

 private:
  std::unique_ptr<char[]> memory_;
};

constexpr int64_t kItemSize[kDataTypes] = {4, 2, 2, 8};
// A gradient of this size leaves the caches before anybody can read it there.
constexpr int64_t kStreamBytes = 16 << 20;

Gradient gradient(int dtype, Address dh, int64_t rows, int64_t features) {
  const int64_t bytes = rows * features * kItemSize[dtype];
  prefer_huge_pages(at<void>(dh), bytes);
  return {at<void>(dh), bytes >= kStreamBytes};
}

void row_stats_forward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                       Address stats) {
  const RowStatsForward a{{at<void>(h), rows, features, row_stride}, at<void>(stats)};
  const auto kernel = kernels(dtype).row_stats_forward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void row_stats_backward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                        Address dstats, Address stats, Address dh) {
  const RowStatsBackward a{{at<void>(h), rows, features, row_stride},
                           at<void>(dstats),
                           at<void>(stats),
                           gradient(dtype, dh, rows, features)};
  const auto kernel = kernels(dtype).row_stats_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void q_score_forward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                     Address mask, double eps, bool two_sided, Address q, Address saved) {
  const Arranged arranged(dtype, mask, features);
  const QScoreForward a{{at<void>(h), rows, features, row_stride},
                        arranged.get(),
                        {eps, two_sided},
                        at<void>(q),
                        at<void>(saved)};
  const auto kernel = kernels(dtype).q_score_forward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void q_score_backward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                      Address mask, Address dq, Address q, Address saved, bool two_sided, Address dh) {
  const Arranged arranged(dtype, mask, features);
  const QScoreBackward a{{at<void>(h), rows, features, row_stride},
                         arranged.get(),
                         at<void>(dq),
                         at<void>(q),
                         at<void>(saved),
                         two_sided,
                         gradient(dtype, dh, rows, features)};
  const auto kernel = kernels(dtype).q_score_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void highly_active(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                   double eps, bool two_sided, Address active) {
  const HighlyActive a{{at<void>(h), rows, features, row_stride}, {eps, two_sided}, at<uint8_t>(active)};
  const auto kernel = kernels(dtype).highly_active;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void add_up(const int64_t* partial, int workers, int64_t features, int64_t* total) {
  std::memset(total, 0, static_cast<size_t>(features) * sizeof(int64_t));
  for (int w = 0; w < workers; ++w)
    for (int64_t j = 0; j < features; ++j) total[j] += partial[w * features + j];
}

void activation_counts(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                       double eps, bool two_sided, Address counts) {
  const ActivationCounts a{{at<void>(h), rows, features, row_stride}, {eps, two_sided}};
  const auto kernel = kernels(dtype).activation_counts;
  const int workers = workers_for(a.h, threads);
  const std::unique_ptr<int64_t[]> partial(new int64_t[workers * features]());
  const std::unique_ptr<char[]> scratch(new char[workers * arranged_bytes(features)]);
  for_spans(a.h, workers, [&](int w, int64_t begin, int64_t end) {
    kernel(a, begin, end, partial.get() + w * features, scratch.get() + w * arranged_bytes(features));
  });
  add_up(partial.get(), workers, features, at<int64_t>(counts));
}

// Runs f(worker, begin, end, entries) and turns the rows' counts, at offsets + 1, into offsets.
template <class F>
SparseEntries* find_entries(int dtype, int workers, const SparseForward& a, int64_t* offsets, F f) {
  auto entries = std::make_unique<SparseEntries>(dtype);
  entries->collect(a.h, workers, f);
  offsets[0] = 0;
  for (int64_t i = 0; i < a.h.rows; ++i) offsets[i + 1] += offsets[i];
  return entries.release();
}

template <class V>
nb::object as_tensor(V* data, int64_t size) {
  const size_t shape[] = {static_cast<size_t>(size)};
  const nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
  return nb::cast(nb::ndarray<nb::pytorch, V>(data, 1, shape, owner));
}

// The features and values as tensors, which then own the memory.
nb::tuple take(SparseEntries& e) {
  const nb::object feature = as_tensor(e.release_feature(), e.size());
  if (e.doubles())
    return nb::make_tuple(feature, as_tensor(static_cast<double*>(e.release_value()), e.size()));
  return nb::make_tuple(feature, as_tensor(static_cast<float*>(e.release_value()), e.size()));
}

SparseEntries* sparse_forward(int dtype, int threads, Address h, int64_t rows, int64_t features,
                              int64_t row_stride, double eps, bool two_sided, Address offsets,
                              Address stats) {
  int64_t* offset = at<int64_t>(offsets);
  const SparseForward a{
      {at<void>(h), rows, features, row_stride}, {eps, two_sided}, offset + 1, at<void>(stats)};
  const auto kernel = kernels(dtype).sparse_forward;
  return find_entries(dtype, workers_for(a.h, threads), a, offset,
                      [&](int, int64_t begin, int64_t end, Entries* e) { kernel(a, begin, end, e); });
}

SparseEntries* score_rows(int dtype, int threads, Address h, int64_t rows, int64_t features,
                          int64_t row_stride, Address mask, double eps, double keep_eps, bool two_sided,
                          Address offsets, Address stats, Address q, Address num_active, Address counts) {
  int64_t* offset = at<int64_t>(offsets);
  const SparseForward sparse{
      {at<void>(h), rows, features, row_stride}, {keep_eps, two_sided}, offset + 1, at<void>(stats)};
  const ScoreRows a{sparse, at<uint8_t>(mask), eps, at<void>(q), at<int32_t>(num_active)};
  const auto kernel = kernels(dtype).score_rows;
  const int workers = workers_for(a.sparse.h, threads);
  const std::unique_ptr<int64_t[]> partial(new int64_t[workers * features]());
  SparseEntries* entries =
      find_entries(dtype, workers, a.sparse, offset, [&](int w, int64_t begin, int64_t end, Entries* e) {
        kernel(a, begin, end, e, partial.get() + w * features);
      });
  add_up(partial.get(), workers, features, at<int64_t>(counts));
  return entries;
}

void sparse_backward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                     Address dvalue, Address dstats, Address offsets, Address feature, Address value,
                     Address stats, Address dh) {
  const SparseBackward a{{at<void>(h), rows, features, row_stride},
                         at<void>(dvalue),
                         at<void>(dstats),
                         at<int64_t>(offsets),
                         at<int32_t>(feature),
                         at<void>(value),
                         at<void>(stats),
                         gradient(dtype, dh, rows, features)};
  const auto kernel = kernels(dtype).sparse_backward;
  for_chunks(a.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

// Scores the rows; the column norms of the batch are in the first r numbers of the result.
std::unique_ptr<double[]> score_with_columns(int dtype, int threads, const QScoreForward& a) {
  const int64_t features = a.h.features;
  const auto kernel = kernels(dtype).loss_forward;
  const int workers = workers_for(a.h, threads);
  const size_t partial = static_cast<size_t>(workers) * features;
  std::unique_ptr<double[]> columns(new double[partial]());
  const std::unique_ptr<char[]> scratch(new char[workers * arranged_bytes(features)]);
  for_spans(a.h, workers, [&](int w, int64_t begin, int64_t end) {
    kernel(a, begin, end, columns.get() + w * features, scratch.get() + w * arranged_bytes(features));
  });
  for (int w = 1; w < workers; ++w)
    for (int64_t k = 0; k < features; ++k) columns[k] += columns[w * features + k];
  return columns;
}

template <class A>
double sum_of_scores(const QScoreForward& f) {
  const A* q = static_cast<const A*>(f.q);
  double sum = 0;
  for (int64_t i = 0; i < f.h.rows; ++i) sum += q[i];
  return sum;
}

// alpha, beta, the weights and the loss, from the scores and the column norms.
template <class A>
void finish_loss(const QScoreForward& f, const double* columns, double lambda1, double lambda2, bool mean,
                 A* loss, A* row_weight, A* col_weight) {
  const int64_t n = f.h.rows, r = f.h.features;
  const A* q = static_cast<const A*>(f.q);
  const double alpha = sum_of_scores<A>(f) / static_cast<double>(n);
  double beta = 0;
  for (int64_t k = 0; k < r; ++k) beta += columns[k];
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

void loss_forward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                  Address mask, double eps, bool two_sided, double lambda1, double lambda2, bool mean,
                  Address loss, Address q, Address saved, Address row_weight, Address col_weight) {
  const Arranged arranged(dtype, mask, features);
  const QScoreForward a{{at<void>(h), rows, features, row_stride},
                        arranged.get(),
                        {eps, two_sided},
                        at<void>(q),
                        at<void>(saved)};
  const auto columns = score_with_columns(dtype, threads, a);
  if (dtype == kFloat64)
    finish_loss(a, columns.get(), lambda1, lambda2, mean, at<double>(loss), at<double>(row_weight),
                at<double>(col_weight));
  else
    finish_loss(a, columns.get(), lambda1, lambda2, mean, at<float>(loss), at<float>(row_weight),
                at<float>(col_weight));
}

// What the loss of a batch over several processes needs of this one: sums is double (r + 2,), the column
// norms, the sum of the scores, the number of rows.
void loss_partial(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                  Address mask, double eps, bool two_sided, Address q, Address saved, Address sums) {
  const Arranged arranged(dtype, mask, features);
  const QScoreForward a{{at<void>(h), rows, features, row_stride},
                        arranged.get(),
                        {eps, two_sided},
                        at<void>(q),
                        at<void>(saved)};
  const auto columns = score_with_columns(dtype, threads, a);
  double* sum = at<double>(sums);
  std::memcpy(sum, columns.get(), static_cast<size_t>(features) * sizeof(double));
  sum[features] = dtype == kFloat64 ? sum_of_scores<double>(a) : sum_of_scores<float>(a);
  sum[features + 1] = static_cast<double>(rows);
}

void loss_backward(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                   Address mask, Address dloss, Address q, Address saved, bool two_sided, Address row_weight,
                   Address col_weight, Address dh) {
  const Arranged arranged(dtype, mask, features);
  const Arranged weights = Arranged::columns(dtype, col_weight, features);
  const LossBackward a{{{at<void>(h), rows, features, row_stride},
                        arranged.get(),
                        at<void>(row_weight),
                        at<void>(q),
                        at<void>(saved),
                        two_sided,
                        gradient(dtype, dh, rows, features)},
                       weights.get(),
                       dtype == kFloat64 ? *at<double>(dloss) : *at<float>(dloss)};
  const auto kernel = kernels(dtype).loss_backward;
  for_chunks(a.score.h, threads, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void score_maps(int dtype, int threads, Address maps, int64_t samples, int64_t channels, int64_t positions,
                int64_t sample_stride, int64_t channel_stride, int64_t position_stride, Address mask,
                double eps, bool two_sided, int combination, bool rectify, Address h, Address q,
                Address saved, Address num_active, Address heat) {
  const Arranged arranged(dtype == kFloat64 ? kFloat64 : kFloat32, mask, channels);
  const ScoreMaps a{at<void>(maps), samples,          channels,        positions,
                    sample_stride,  channel_stride,   position_stride, at<uint8_t>(mask),
                    arranged.get(), {eps, two_sided}, combination,     rectify,
                    at<void>(h),    at<void>(q),      at<void>(saved), at<int32_t>(num_active),
                    at<void>(heat)};
  const auto kernel = kernels(dtype).score_maps;
  const Matrix work{at<void>(maps), samples, channels * positions, sample_stride};
  const int workers = workers_for(work, threads);
  const int64_t bytes = map_scratch_bytes(channels);
  const std::unique_ptr<char[]> scratch(new char[workers * bytes]);
  for_spans(work, workers,
            [&](int w, int64_t begin, int64_t end) { kernel(a, begin, end, scratch.get() + w * bytes); });
}

uint64_t stream_read(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride) {
  const Matrix m{at<void>(h), rows, features, row_stride};
  const auto kernel = kernels(dtype).stream_read;
  std::atomic<uint64_t> combined{0};
  for_chunks(m, threads, [&](int64_t begin, int64_t end) {
    uint64_t bits = 0;
    kernel(m, begin, end, &bits);
    combined ^= bits;
  });
  return combined;
}

void stream_copy(int dtype, int threads, Address h, int64_t rows, int64_t features, int64_t row_stride,
                 Address out) {
  const Matrix m{at<void>(h), rows, features, row_stride};
  const auto kernel = kernels(dtype).stream_copy;
  for_chunks(m, threads, [&](int64_t begin, int64_t end) { kernel(m, at<void>(out), begin, end); });
}

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (auto target = supported_targets(); *target; ++target) names.push_back((*target)->name);
  return names;
}

std::string current() { return target_in_use().name; }

void use_target(const std::string& name) {
  std::string known;
  for (auto target = supported_targets(); *target; ++target) {
    if (name == (*target)->name) return set_target_in_use(**target);
    known += std::string(known.empty() ? "" : ", ") + (*target)->name;
  }
  throw std::invalid_argument("instruction set '" + name +
                              "' is not among those of this processor: " + known);
}

}  // namespace
}  // namespace qscore

NB_MODULE(_native, m) {
  using namespace qscore;
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.doc() = "Native CPU kernels; private, use qscore_fast.functional.";
  nb::class_<SparseEntries>(m, "SparseEntries").def("take", &take);
  m.def("row_stats_forward", &row_stats_forward, Unlocked());
  m.def("row_stats_backward", &row_stats_backward, Unlocked());
  m.def("q_score_forward", &q_score_forward, Unlocked());
  m.def("q_score_backward", &q_score_backward, Unlocked());
  m.def("highly_active", &highly_active, Unlocked());
  m.def("activation_counts", &activation_counts, Unlocked());
  m.def("sparse_forward", &sparse_forward, Unlocked(), nb::rv_policy::take_ownership);
  m.def("sparse_backward", &sparse_backward, Unlocked());
  m.def("score_rows", &score_rows, Unlocked(), nb::rv_policy::take_ownership);
  m.def("score_maps", &score_maps, Unlocked());
  m.def("stream_read", &stream_read, Unlocked());
  m.def("stream_copy", &stream_copy, Unlocked());
  m.def("loss_forward", &loss_forward, Unlocked());
  m.def("loss_partial", &loss_partial, Unlocked());
  m.def("loss_backward", &loss_backward, Unlocked());
  bind_evaluation(m);
  bind_stored_entries(m);
  m.def("targets", &targets, "Instruction sets that can run here, best first.");
  m.def("current_target", &current, "The instruction set in use.");
  m.def("use_target", &use_target, "Choose the instruction set; the best is the default.");
}
