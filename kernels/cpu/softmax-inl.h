// Cross-entropy of linear probes and its gradient, in one read of the rows: a block of them stays in the
// caches while its logits, their softmax, and its products with the rows are made.
#pragma once

#include "kernels.h"
#include "simd-inl.h"

namespace {

using namespace qscore;

constexpr int kFloats = kLanes<float>;
constexpr int64_t kProbeBlockBytes = 768 << 10;
constexpr int64_t kProbeFeatures = 256;  // of a panel of weights that stays in the first cache

// Sums that stay in registers: vectors of logits for so many rows, or of features for so many outputs. Three
// by four need fewer loads than two by six.
template <int kVectors>
constexpr int kTileRows = kVectorBytes == 64 ? 8
                          : kVectors == 3    ? 4
                                             : 6;
constexpr int kTileOutputs = kTileRows<3>;
constexpr int64_t kColumns = 3 * kFloats;

// The classes of a probe fill whole vectors, so that its softmax has no tail. Weights are packed in panels of
// three vectors, or two, feature by feature; one stays alone only where there is no other.
struct ProbeLayout {
  int64_t features, classes, probes;
  int64_t vectors_of_one, vectors;
  int64_t stride;  // of the logits of a row: tiles of outputs may reach beyond the last

  explicit ProbeLayout(const SoftmaxRegression& a)
      : features(a.x.features),
        classes(a.classes),
        probes(a.probes),
        vectors_of_one((a.classes + kFloats - 1) / kFloats),
        vectors(a.probes * vectors_of_one),
        stride(vectors * kFloats + kProbePadding) {}
  int64_t place(int64_t probe) const { return probe * vectors_of_one * kFloats; }
  int64_t biases() const { return vectors * kFloats * features; }
  // Calls f(first vector, number of vectors) for each panel.
  template <class F>
  void for_panels(F f) const {
    for (int64_t v = 0, width; v < vectors; v += width) {
      const int64_t left = vectors - v;
      width = left == 4 ? 2 : left < 3 ? left : 3;
      f(v, static_cast<int>(width));
    }
  }
};

void pack_probes(const SoftmaxRegression& a, float* packed) {
  constexpr float kNoClass = -1e30f;  // its probability is 0
  const ProbeLayout layout(a);
  const int64_t r = layout.features;
  memset(packed, 0, static_cast<size_t>(layout.biases()) * sizeof(float));
  float* biases = packed + layout.biases();
  for (int64_t i = 0; i < layout.vectors * kFloats; ++i) biases[i] = kNoClass;
  layout.for_panels([&](int64_t v, int width) {
    for (int64_t place = v * kFloats; place < (v + width) * kFloats; ++place) {
      const int64_t probe = place / layout.place(1), c = place - layout.place(probe);
      if (c >= a.classes) continue;
      const int64_t output = probe * a.classes + c;
      biases[place] = a.biases[output];
      float* to = packed + v * kFloats * r + place - v * kFloats;
      for (int64_t l = 0; l < r; ++l) to[l * width * kFloats] = a.weights[output * r + l];
    }
  });
}

// Adds the products of n features to the logits of a tile of rows.
template <int kVectors>
inline void logits_tile(const float* const* rows, int64_t n, const float* panel, float* logits,
                        int64_t stride) {
  constexpr int kRows = kTileRows<kVectors>;
  VFloat sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) sums[i][v] = load(logits + i * stride + v * kFloats);
  for (int64_t l = 0; l < n; ++l) {
    VFloat weight[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) weight[v] = load(panel + (l * kVectors + v) * kFloats);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const VFloat x = broadcast(rows[i][l]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sums[i][v] += x * weight[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) store(logits + i * stride + v * kFloats, sums[i][v]);
}

// The same for n rows. Those beyond the last are the last once more; their logits are not looked at.
template <int kVectors>
inline void panel_logits(const float* x, int64_t x_stride, int64_t n, int64_t features, const float* panel,
                         float* logits, int64_t stride) {
  constexpr int kRows = kTileRows<kVectors>;
  for (int64_t first = 0; first < n; first += kRows) {
    const float* rows[kRows];
    for (int i = 0; i < kRows; ++i) rows[i] = x + (first + i < n ? first + i : n - 1) * x_stride;
    logits_tile<kVectors>(rows, features, panel, logits + first * stride, stride);
  }
}

inline void block_logits(const SoftmaxRegression& a, const ProbeLayout& layout, int64_t begin, int64_t n,
                         const float* packed, float* logits) {
  const int64_t r = layout.features;
  const size_t width = static_cast<size_t>(layout.vectors * kFloats) * sizeof(float);
  for (int64_t i = 0; i < n; ++i) memcpy(logits + i * layout.stride, packed + layout.biases(), width);
  for (int64_t l = 0; l < r; l += kProbeFeatures) {
    const int64_t features = r - l < kProbeFeatures ? r - l : kProbeFeatures;
    const float* x = static_cast<const float*>(a.x.data) + begin * a.x.row_stride + l;
    layout.for_panels([&](int64_t v, int vectors) {
      const float* panel = packed + v * kFloats * r + l * vectors * kFloats;
      const auto add = vectors == 3 ? panel_logits<3> : vectors == 2 ? panel_logits<2> : panel_logits<1>;
      add(x, a.x.row_stride, n, features, panel, logits + v * kFloats, layout.stride);
    });
  }
}

// e^x to two units in the last place for x in [-87, 0], 0 below: Cody and Waite's reduction, and Cephes'
// polynomial.
inline VFloat exp_of_negative(VFloat x) {
  constexpr float kLowest = -87.0f, kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const VFloat bounded = x < kLowest ? broadcast(kLowest) : x;
  const VFloat shifted = bounded * 1.44269504f + kRounder;
  const VFloat n = shifted - kRounder;
  const VFloat t = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  VFloat y = t * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * t + 8.3334519073e-3f;
  y = y * t + 4.1665795894e-2f;
  y = y * t + 1.6666665459e-1f;
  y = y * t + 5.0000001201e-1f;
  y = y * t * t + t + 1.0f;
  const U32 exponent = reinterpret_cast<U32>(shifted) << 23;
  return x < kLowest ? VFloat{} : reinterpret_cast<VFloat>(reinterpret_cast<U32>(y) + exponent);
}

// Logits become probabilities less 1 at the target: the gradient. The cross-entropy.
inline double softmax_row(float* z, int64_t vectors, int64_t target) {
  VFloat high = load(z);
  for (int64_t v = 1; v < vectors; ++v) {
    const VFloat x = load(z + v * kFloats);
    high = x > high ? x : high;
  }
  float top = high[0];
  for (int i = 1; i < kFloats; ++i) top = high[i] > top ? high[i] : top;
  const double hit = static_cast<double>(z[target]) - static_cast<double>(top);
  VFloat total = {};
  for (int64_t v = 0; v < vectors; ++v) {
    const VFloat e = exp_of_negative(load(z + v * kFloats) - top);
    store(z + v * kFloats, e);
    total += e;
  }
  const double sum = sum_lanes(total);
  // Not p - 1, which has no digits left where p is nearly 1.
  const double others = static_cast<double>(z[target]) - sum;
  const float scale = static_cast<float>(1 / sum);
  for (int64_t v = 0; v < vectors; ++v) store(z + v * kFloats, load(z + v * kFloats) * scale);
  z[target] = static_cast<float>(others / sum);
  return log(sum) - hit;
}

typedef float Narrow __attribute__((vector_size(kVectorBytes / 2)));

inline void add_to(double* to, const float* from, int64_t n) {
  constexpr int kDoubles = kLanes<double>;
  int64_t i = 0;
  for (; i + kDoubles <= n; i += kDoubles)
    store(to + i, load(to + i) + __builtin_convertvector(load_vector<Narrow>(from + i), VDouble));
  for (; i < n; ++i) to[i] += static_cast<double>(from[i]);
}

// to (outputs, columns) = p^T x over n rows.
inline void gradient_tile(const float* x, const float* p, int64_t n, float* to) {
  VFloat sums[kTileOutputs][3] = {};
  for (int64_t i = 0; i < n; ++i, x += kColumns, p += kTileOutputs) {
    const VFloat row[3] = {load(x), load(x + kFloats), load(x + 2 * kFloats)};
#pragma GCC unroll 8
    for (int o = 0; o < kTileOutputs; ++o) {
      const VFloat weight = broadcast(p[o]);
#pragma GCC unroll 3
      for (int v = 0; v < 3; ++v) sums[o][v] += weight * row[v];
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kTileOutputs; ++o)
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v) store(to + o * kColumns + v * kFloats, sums[o][v]);
}

// The outputs of n rows, tile by tile.
inline void pack_tiles(const ProbeLayout& layout, int64_t n, const float* p, float* tiles) {
  for (int64_t k = 0; k < layout.probes; ++k)
    for (int64_t c = 0; c < layout.classes; c += kTileOutputs)
      for (int64_t i = 0; i < n; ++i, tiles += kTileOutputs)
        memcpy(tiles, p + i * layout.stride + layout.place(k) + c, kTileOutputs * sizeof(float));
}

// Columns are copied first: rows that lie a power of two apart would share a few lines of the cache.
inline void add_gradient(const SoftmaxRegression& a, int64_t begin, int64_t n, const float* tiles,
                         double* gradient) {
  const int64_t r = a.x.features;
  float x[kMostProbeRows * kColumns], tile[kTileOutputs * kColumns];
  for (int64_t first = 0; first < r; first += kColumns) {
    const float* from = static_cast<const float*>(a.x.data) + begin * a.x.row_stride + first;
    const int64_t columns = r - first < kColumns ? r - first : kColumns;
    for (int64_t i = 0; i < n; ++i, from += a.x.row_stride) {
      float* to = x + i * kColumns;
      if (columns == kColumns) {
        memcpy(to, from, kColumns * sizeof(float));
      } else {
        for (int64_t j = 0; j < kColumns; ++j) to[j] = j < columns ? from[j] : 0;
      }
    }
    const float* p = tiles;
    for (int64_t k = 0; k < a.probes; ++k) {
      for (int64_t c = 0; c < a.classes; c += kTileOutputs, p += n * kTileOutputs) {
        double* to = gradient + (k * a.classes + c) * r + first;
        const int64_t outputs = a.classes - c < kTileOutputs ? a.classes - c : kTileOutputs;
        for (int64_t o = 0; o < outputs; ++o)
          for (int64_t j = 0; j < columns; j += kLineBytes / static_cast<int64_t>(sizeof(double)))
            prefetch(reinterpret_cast<const char*>(to + o * r + j));
        gradient_tile(x, p, n, tile);
        for (int64_t o = 0; o < outputs; ++o) add_to(to + o * r, tile + o * kColumns, columns);
      }
    }
  }
}

void softmax_regression(const SoftmaxRegression& a, int64_t begin, int64_t end, const float* packed,
                        float* scratch, double* sums) {
  const ProbeLayout layout(a);
  const int64_t outputs = a.probes * a.classes;
  // Tiles of rows reach beyond the block's last.
  float *logits = scratch, *tiles = logits + (kMostProbeRows + kProbePadding) * layout.stride;
  double *losses = sums, *biases = losses + a.probes, *gradient = biases + outputs;
  constexpr int64_t kFewest = 24;  // whole tiles of every shape
  const int64_t fit = kProbeBlockBytes / (layout.features * static_cast<int64_t>(sizeof(float)));
  const int64_t rows = fit < kFewest          ? kFewest
                       : fit < kMostProbeRows ? fit / kFewest * kFewest
                                              : kMostProbeRows;
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t n = end - first < rows ? end - first : rows;
    block_logits(a, layout, first, n, packed, logits);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < a.probes; ++k) {
        float* p = logits + i * layout.stride + layout.place(k);
        losses[k] += softmax_row(p, layout.vectors_of_one, a.targets[first + i]);
        for (int64_t c = 0; c < a.classes; ++c) biases[k * a.classes + c] += static_cast<double>(p[c]);
      }
    pack_tiles(layout, n, logits, tiles);
    add_gradient(a, first, n, tiles, gradient);
  }
}

}  // namespace
