// The interface between the kernels, compiled once per instruction set, and the code that splits a call
// over threads. Shapes: N rows (samples), r features. `A` is the accumulator: float, or double for double.
#pragma once

#include <stdint.h>

namespace qscore {

enum DataType : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kFloat64 = 3, kDataTypes = 4 };

struct Matrix {
  const void* data;    // unit stride inside a row
  int64_t rows;        // N
  int64_t features;    // r
  int64_t row_stride;  // elements
};

// Where the gradient of h goes: like h, contiguous. `stream` writes past the caches.
struct Gradient {
  void* data;
  bool stream;
};

struct RowStatsForward {
  Matrix h;
  void* stats;  // A (4, N): mean, std, l1, l2
};

struct RowStatsBackward {
  Matrix h;
  const void* dstats;  // A (4, N)
  const void* stats;   // A (4, N)
  Gradient dh;
};

// The set L: the entries more than eps standard deviations above the mean; `two_sided`: or below it.
struct Activation {
  double eps;
  bool two_sided;
};

struct QScoreForward {
  Matrix h;
  const void* mask;  // D, arranged, or null for all features
  Activation activation;
  void* q;  // A (N,)
  // A (3, N): upper threshold, |L & D|, l2; two-sided A (5, N): and the lower threshold, and how many more
  // entries of L & D lie above the mean than below it. Or null.
  void* saved;
};

struct QScoreBackward {
  Matrix h;
  const void* mask;   // D, arranged, or null
  const void* dq;     // A (N,)
  const void* q;      // A (N,)
  const void* saved;  // A (3, N), two-sided (5, N)
  bool two_sided;
  Gradient dh;
};

struct HighlyActive {
  Matrix h;
  Activation activation;
  uint8_t* active;  // (N, r)
};

struct ActivationCounts {
  Matrix h;
  Activation activation;
};

// Entries of consecutive rows, grown as they are found. `failed` is set when memory ran out.
struct Entries {
  int32_t* feature = nullptr;
  void* value = nullptr;  // A
  int64_t size = 0;
  int64_t capacity = 0;
  bool failed = false;
};

struct SparseForward {
  Matrix h;
  Activation activation;
  int64_t* row_counts;  // (N,)
  void* stats;          // A (4, N)
};

struct ScoreRows {
  SparseForward sparse;  // its eps is that of the entries
  const uint8_t* mask;   // D: (r,), or null for all features
  double eps;            // that of the score and the counts, not below; on the same sides
  void* q;               // A (N,)
  int32_t* num_active;   // (N,): |L & D|
};

// How the channels of L & D become one heat map.
enum Combination : int { kSumOfChannels = 0, kMeanOfChannels = 1, kMaxOfChannels = 2 };

// Feature maps (N, r, P), P positions, with unit stride along channels or positions.
struct ScoreMaps {
  const void* maps;
  int64_t samples, channels, positions;                    // N, r, P
  int64_t sample_stride, channel_stride, position_stride;  // elements
  const uint8_t* mask;                                     // D: (r,), or null for all features
  const void* arranged_mask;                               // the same, arranged for rows of A
  Activation activation;
  int combination;
  bool rectify;         // what is below 0 counts as 0
  void* h;              // A (N, r): the means
  void* q;              // A (N,)
  void* saved;          // A (3, N), two-sided (5, N): as QScoreForward
  int32_t* num_active;  // (N,): |L & D|
  void* heat;           // A (N, P)
};

struct SparseBackward {
  Matrix h;
  const void* dvalue;      // A (nnz,)
  const void* dstats;      // A (4, N)
  const int64_t* offsets;  // (N + 1,)
  const int32_t* feature;  // (nnz,)
  const void* value;       // A (nnz,)
  const void* stats;       // A (4, N)
  Gradient dh;
};

struct LossBackward {
  QScoreBackward score;    // dq is the row weight
  const void* col_weight;  // A (r,), arranged
  double dloss;
};

// The metrics of failure prediction that are computed here, by their numbers in kernels/cpu/__init__.py.
enum FailureMetric : int {
  kAuroc = 0,
  kAuprcSuccess = 1,
  kAuprcError = 2,
  kFprAtTpr = 3,
  kAurc = 4,
  kExcessAurc = 5,
  kAugrc = 6,
  kSelectiveAccuracy = 7,
  kCoverageAtRisk = 8
};

// Of n samples, ranked by descending score, in blocks of equal scores.
struct ResampledMetrics {
  const int64_t* weights;  // (resamples, n): how often each sample occurs; n in all
  int64_t samples;         // n
  const int64_t* order;    // (n,): the samples as they are ranked
  const uint8_t* wrong;    // (n,): 1 or 0, in that order
  const int64_t* starts;   // (blocks,): where each block starts in that order
  int64_t blocks;
  const double* harmonic;  // (n + 1,): 1 + 1/2 + ... + 1/k
  const int32_t* metrics;  // (num_metrics,) of FailureMetric
  const double* parameters;
  int64_t num_metrics;
  double* values;  // (resamples, num_metrics); NaN where a metric has no value
};

// Linear probes with as many classes each, on the same rows x: float32.
struct SoftmaxRegression {
  Matrix x;
  const int64_t* targets;  // (N,)
  const float* weights;    // (probes * classes, r)
  const float* biases;     // (probes * classes,)
  int64_t probes, classes;
};

// Bytes that hold r columns as `arrange_mask`, `arrange_columns` or a kernel's scratch arrange them.
inline int64_t arranged_bytes(int64_t r) { return (r + 64) * static_cast<int64_t>(sizeof(double)); }

// Bytes that hold the members of L & D of one sample, of r channels.
inline int64_t map_scratch_bytes(int64_t r) {
  return (r + 64) * static_cast<int64_t>(sizeof(double) + sizeof(int32_t));
}

constexpr int64_t kThresholdBytes = 2 * sizeof(double);

// Bytes that hold the blocks of one resample, and what its metrics look for.
inline int64_t failure_scratch_bytes(int64_t blocks, int64_t num_metrics) {
  return num_metrics * kThresholdBytes + blocks * 2 * static_cast<int64_t>(sizeof(int32_t));
}

constexpr int64_t kProbePadding = 16;    // floats: the widest vector; no tile of rows or outputs is longer
constexpr int64_t kMostProbeRows = 192;  // of a block

// Floats that hold the outputs of a row, the classes of each probe padded; and packed weights and biases.
inline int64_t padded_outputs(int64_t probes, int64_t classes) {
  return probes * ((classes + kProbePadding - 1) / kProbePadding) * kProbePadding;
}
inline int64_t packed_probe_floats(int64_t probes, int64_t classes, int64_t r) {
  return padded_outputs(probes, classes) * (r + 1);
}
// A block's logits, in rows and in tiles.
inline int64_t probe_scratch_floats(int64_t probes, int64_t classes) {
  return 2 * (kMostProbeRows + kProbePadding) * (padded_outputs(probes, classes) + kProbePadding);
}

// Every function with a range handles the rows [begin, end) and may run beside others on other rows.
struct KernelTable {
  // What is aligned with columns, in the order in which the kernels load them.
  void (*arrange_mask)(const uint8_t* mask, int64_t r, void* arranged);
  void (*arrange_columns)(const void* columns, int64_t r, void* arranged);
  void (*row_stats_forward)(const RowStatsForward&, int64_t begin, int64_t end);
  void (*row_stats_backward)(const RowStatsBackward&, int64_t begin, int64_t end);
  void (*q_score_forward)(const QScoreForward&, int64_t begin, int64_t end);
  void (*q_score_backward)(const QScoreBackward&, int64_t begin, int64_t end);
  void (*highly_active)(const HighlyActive&, int64_t begin, int64_t end);
  // Adds to counts (r,); scratch holds r columns.
  void (*activation_counts)(const ActivationCounts&, int64_t begin, int64_t end, int64_t* counts,
                            void* scratch);
  void (*sparse_forward)(const SparseForward&, int64_t begin, int64_t end, Entries* entries);
  void (*sparse_backward)(const SparseBackward&, int64_t begin, int64_t end);
  // Adds to counts (r,).
  void (*score_rows)(const ScoreRows&, int64_t begin, int64_t end, Entries* entries, int64_t* counts);
  // Adds the column norms to columns (r,); scratch holds r columns.
  void (*loss_forward)(const QScoreForward&, int64_t begin, int64_t end, double* columns, void* scratch);
  void (*loss_backward)(const LossBackward&, int64_t begin, int64_t end);
  // scratch holds `map_scratch_bytes`.
  void (*score_maps)(const ScoreMaps&, int64_t begin, int64_t end, void* scratch);
  // The limits of the memory, to measure against.
  void (*stream_read)(const Matrix&, int64_t begin, int64_t end, uint64_t* combined);
  void (*stream_copy)(const Matrix&, void* to, int64_t begin, int64_t end);
};

struct Target {
  const char* name;
  KernelTable kernels[kDataTypes];
  // Resamples [begin, end); scratch holds `failure_scratch_bytes`.
  void (*resampled_metrics)(const ResampledMetrics&, int64_t begin, int64_t end, void* scratch);
  // Weights and biases in the order in which the kernel loads them: `packed_probe_floats`.
  void (*pack_probes)(const SoftmaxRegression&, float* packed);
  // Adds to sums: losses (probes,), gradients of the biases and of the weights. `scratch`, zeroed before the
  // first call, holds `probe_scratch_floats`.
  void (*softmax_regression)(const SoftmaxRegression&, int64_t begin, int64_t end, const float* packed,
                             float* scratch, double* sums);
};

// The targets that were compiled in and that this processor can run, best first; ends with null.
const Target* const* supported_targets();

// One for the whole process; the best, unless another was chosen.
const Target& target_in_use();
void set_target_in_use(const Target& target);

}  // namespace qscore
