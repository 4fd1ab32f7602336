// The kernels, for one instruction set. Each row is read from memory once: the passes after the first
// find it in the cache. Statistics are two-pass (mean, then centred squares), and the few highly active
// entries of a row are visited one by one through the bits of a vector comparison.
#pragma once

#include <stdlib.h>

#include "kernels.h"
#include "simd-inl.h"

namespace {

using namespace qscore;

template <class T>
inline const T* row_of(const Matrix& h, int64_t i) {
  return static_cast<const T*>(h.data) + i * h.row_stride;
}

// Calls add(vector, sums) on every vector of the row, with four independent sets of sums in flight.
// Lanes beyond the row hold `fill`, which must add nothing. Blocks are added up in double, so that the
// error does not grow with r.
template <int kSums, class T, class F>
inline void reduce(const T* row, int64_t r, Acc<T> fill, F add, double (&total)[kSums]) {
  constexpr int kUnroll = 4;
  constexpr int64_t L = kLanes<T>;
  constexpr int64_t kBlock = 512 * L;
  for (int k = 0; k < kSums; ++k) total[k] = 0;
  for (int64_t begin = 0; begin < r; begin += kBlock) {
    const int64_t end = begin + kBlock < r ? begin + kBlock : r;
    Vec<T> sums[kUnroll][kSums] = {};
    int64_t j = begin;
    for (; j + kUnroll * L <= end; j += kUnroll * L)
      for (int u = 0; u < kUnroll; ++u) add(load(row + j + u * L), sums[u]);
    for (; j + L <= end; j += L) add(load(row + j), sums[0]);
    if (j < end) add(load_partial(row + j, end - j, fill), sums[1]);
    for (int k = 0; k < kSums; ++k)
      total[k] += sum_lanes((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]));
  }
}

template <class A>
struct Moments {
  A mean, std, l1, l2;
  // NaN or Inf in the row, or an overflow of its sums, shows in the norm.
  bool finite() const { return isfinite(l2) && isfinite(mean); }
};

template <class T>
inline Moments<Acc<T>> moments(const T* row, int64_t r) {
  using A = Acc<T>;
  double first[3];
  reduce<3>(
      row, r, A(0),
      [](Vec<T> v, Vec<T>* s) {
        s[0] += v;
        s[1] += absolute(v);
        s[2] += v * v;
      },
      first);
  const A mean = static_cast<A>(first[0] / static_cast<double>(r));
  double second[1];
  reduce<1>(
      row, r, mean,
      [mean](Vec<T> v, Vec<T>* s) {
        const Vec<T> d = v - mean;
        s[0] += d * d;
      },
      second);
  // 0 / 0 = NaN for r = 1, as torch.std.
  const double variance = second[0] / static_cast<double>(r - 1);
  return {mean, static_cast<A>(sqrt(variance)), static_cast<A>(first[1]), static_cast<A>(sqrt(first[2]))};
}

template <class A>
inline void store_moments(void* stats, int64_t rows, int64_t i, const Moments<A>& m) {
  A* out = static_cast<A*>(stats) + i;
  out[0] = m.mean;
  out[rows] = m.std;
  out[2 * rows] = m.l1;
  out[3 * rows] = m.l2;
}

template <class A>
inline Moments<A> load_moments(const void* stats, int64_t rows, int64_t i) {
  const A* in = static_cast<const A*>(stats) + i;
  return {in[0], in[rows], in[2 * rows], in[3 * rows]};
}

// NaN, which nothing exceeds, where the row is not finite.
template <class A>
inline A threshold_of(const Moments<A>& m, double eps) {
  return m.finite() ? m.mean + static_cast<A>(eps) * m.std : static_cast<A>(NAN);
}

// Calls visit(j, h_ij) for every entry above the threshold, in ascending order.
template <class T, class F>
inline void for_each_active(const T* row, int64_t r, Acc<T> threshold, F visit) {
  constexpr int kUnroll = 4;
  constexpr int64_t L = kLanes<T>;
  const Vec<T> t = broadcast(threshold);
  int64_t j = 0;
  for (; j + kUnroll * L <= r; j += kUnroll * L) {
    uint64_t bits = 0;
    for (int u = 0; u < kUnroll; ++u) bits |= greater_bits(load(row + j + u * L), t) << (u * L);
    for (; bits; bits &= bits - 1) {
      const int64_t k = j + __builtin_ctzll(bits);
      visit(k, to_acc(row[k]));
    }
  }
  for (; j < r; j += L) {
    const int64_t n = r - j < L ? r - j : L;
    uint64_t bits = greater_bits(load_partial(row + j, n, -static_cast<Acc<T>>(INFINITY)), t);
    for (; bits; bits &= bits - 1) {
      const int64_t k = j + __builtin_ctzll(bits);
      visit(k, to_acc(row[k]));
    }
  }
}

// dh_k = constant + linear h_k + active mask_k 1[h_k > threshold] + sign weight_k sign(h_k)
template <class A>
struct RowGradient {
  A constant, linear, active, threshold, sign;
};

// A null mask or weight stands for all ones.
template <bool kActive, bool kSign, class T>
inline void write_gradient(const T* row, int64_t r, const RowGradient<Acc<T>>& g, const Acc<T>* mask,
                           const Acc<T>* weight, T* dh) {
  using A = Acc<T>;
  using V = Vec<T>;
  constexpr int64_t L = kLanes<T>;
  const V zero = {};
  const V one = broadcast(A(1));
  const auto gradient = [&](V v, V m, V w) {
    V d = g.constant + g.linear * v;
    if (kActive) d += m * (v > g.threshold ? zero + g.active : zero);
    if (kSign) d += g.sign * w * sign_of(v);
    return d;
  };
  int64_t j = 0;
  for (; j + L <= r; j += L) {
    const V m = kActive && mask ? load(mask + j) : one;
    const V w = kSign && weight ? load(weight + j) : one;
    store(dh + j, gradient(load(row + j), m, w));
  }
  if (j < r) {
    const int64_t n = r - j;
    const V m = kActive && mask ? load_partial(mask + j, n, A(0)) : one;
    const V w = kSign && weight ? load_partial(weight + j, n, A(0)) : one;
    store_partial(dh + j, n, gradient(load_partial(row + j, n, A(0)), m, w));
  }
}

template <class T>
inline T* gradient_row(void* dh, const Matrix& h, int64_t i) {
  return static_cast<T*>(dh) + i * h.features;
}

// ---- row statistics -------------------------------------------------------------------------------

template <class T>
void row_stats_forward(const RowStatsForward& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    store_moments(a.stats, a.h.rows, i, moments(row_of<T>(a.h, i), a.h.features));
}

// Where a statistic has no derivative (std of a constant row, norm of a zero row) it is 0, as in PyTorch.
template <class A>
RowGradient<A> stats_gradient(const Moments<A>& m, const Moments<A>& d, int64_t r) {
  RowGradient<A> g = {d.mean / static_cast<A>(r), 0, 0, 0, d.l1};
  if (r > 1 && m.std != 0) {
    const A scale = d.std / (static_cast<A>(r - 1) * m.std);
    g.constant -= scale * m.mean;
    g.linear += scale;
  }
  if (m.l2 != 0) g.linear += d.l2 / m.l2;
  return g;
}

template <class T>
void row_stats_backward(const RowStatsBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t n = a.h.rows, r = a.h.features;
  for (int64_t i = begin; i < end; ++i) {
    const auto g = stats_gradient(load_moments<A>(a.stats, n, i), load_moments<A>(a.dstats, n, i), r);
    write_gradient<false, true>(row_of<T>(a.h, i), r, g, static_cast<const A*>(nullptr),
                                static_cast<const A*>(nullptr), gradient_row<T>(a.dh, a.h, i));
  }
}

// ---- Q-Score --------------------------------------------------------------------------------------

template <class T>
inline Moments<Acc<T>> score_row(const QScoreForward& a, int64_t i) {
  using A = Acc<T>;
  const int64_t n = a.h.rows, r = a.h.features;
  const T* row = row_of<T>(a.h, i);
  const auto m = moments(row, r);
  const A threshold = threshold_of(m, a.eps);
  // One entry after the other, so in double: at a small eps there are thousands.
  double total = 0;
  int64_t count = 0;
  const uint8_t* mask = a.mask;
  if (mask) {
    for_each_active(row, r, threshold, [&](int64_t j, A x) {
      total += mask[j] ? x - m.mean : A(0);
      count += mask[j] != 0;
    });
  } else {
    for_each_active(row, r, threshold, [&](int64_t, A x) {
      total += x - m.mean;
      ++count;
    });
  }
  A q = count && m.l2 > 0 ? static_cast<A>(total / (static_cast<double>(count) * m.l2)) : A(0);
  if (!m.finite()) q = static_cast<A>(NAN);
  static_cast<A*>(a.q)[i] = q;
  A* saved = static_cast<A*>(a.saved) + i;
  saved[0] = threshold;
  saved[n] = static_cast<A>(count);
  saved[2 * n] = m.l2;
  return m;
}

template <class T>
void q_score_forward(const QScoreForward& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) score_row<T>(a, i);
}

// The gradient of weight * Q_i: exactly 0 for an empty L & D, NaN where Q is NaN.
template <class A>
inline RowGradient<A> score_gradient(const QScoreBackward& a, int64_t i, A weight) {
  const int64_t n = a.h.rows;
  const A q = static_cast<const A*>(a.q)[i];
  const A* saved = static_cast<const A*>(a.saved) + i;
  const A count = saved[n], norm = saved[2 * n];
  RowGradient<A> g = {0, 0, 0, saved[0], 0};
  if (isnan(q)) {
    g.constant = q;
  } else if (count > 0) {
    const A per_norm = weight / norm;
    g.constant = -per_norm / static_cast<A>(a.h.features);
    g.linear = -per_norm * q / norm;
    g.active = per_norm / count;
  }
  return g;
}

template <class T>
void q_score_backward(const QScoreBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t i = begin; i < end; ++i) {
    const auto g = score_gradient<A>(a, i, static_cast<const A*>(a.dq)[i]);
    write_gradient<true, false>(row_of<T>(a.h, i), a.h.features, g, static_cast<const A*>(a.mask),
                                static_cast<const A*>(nullptr), gradient_row<T>(a.dh, a.h, i));
  }
}

// ---- highly active entries ------------------------------------------------------------------------

template <class T>
void highly_active(const HighlyActive& a, int64_t begin, int64_t end) {
  const int64_t r = a.h.features;
  for (int64_t i = begin; i < end; ++i) {
    const T* row = row_of<T>(a.h, i);
    const Acc<T> threshold = threshold_of(moments(row, r), a.eps);
    uint8_t* active = a.active + i * r;
    memset(active, 0, static_cast<size_t>(r));
    for_each_active(row, r, threshold, [&](int64_t j, Acc<T>) { active[j] = 1; });
  }
}

template <class T>
void activation_counts(const ActivationCounts& a, int64_t begin, int64_t end, int64_t* counts) {
  const int64_t r = a.h.features;
  for (int64_t i = begin; i < end; ++i) {
    const T* row = row_of<T>(a.h, i);
    const Acc<T> threshold = threshold_of(moments(row, r), a.eps);
    for_each_active(row, r, threshold, [&](int64_t j, Acc<T>) { ++counts[j]; });
  }
}

template <class A>
bool reserve(Entries* e, int64_t more) {
  if (e->size + more <= e->capacity) return true;
  const int64_t capacity = 2 * (e->size + more);
  void* feature = realloc(e->feature, static_cast<size_t>(capacity) * sizeof(int32_t));
  if (feature) e->feature = static_cast<int32_t*>(feature);
  void* value = feature ? realloc(e->value, static_cast<size_t>(capacity) * sizeof(A)) : nullptr;
  if (value) e->value = value;
  e->failed = !value;
  if (value) e->capacity = capacity;
  return !e->failed;
}

template <class T>
void sparse_forward(const SparseForward& a, int64_t begin, int64_t end, Entries* e) {
  using A = Acc<T>;
  const int64_t r = a.h.features;
  for (int64_t i = begin; i < end; ++i) {
    if (!reserve<A>(e, r)) return;
    const T* row = row_of<T>(a.h, i);
    const auto m = moments(row, r);
    store_moments(a.stats, a.h.rows, i, m);
    const int64_t before = e->size;
    A* value = static_cast<A*>(e->value);
    for_each_active(row, r, threshold_of(m, a.eps), [&](int64_t j, A x) {
      e->feature[e->size] = static_cast<int32_t>(j);
      value[e->size++] = (x - m.mean) / m.l2;
    });
    a.row_counts[i] = e->size - before;
  }
}

template <class T>
void sparse_backward(const SparseBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t n = a.h.rows, r = a.h.features;
  const A* dvalue = static_cast<const A*>(a.dvalue);
  const A* value = static_cast<const A*>(a.value);
  for (int64_t i = begin; i < end; ++i) {
    const T* row = row_of<T>(a.h, i);
    const auto m = load_moments<A>(a.stats, n, i);
    auto g = stats_gradient(m, load_moments<A>(a.dstats, n, i), r);
    double sum = 0, dot = 0;
    for (int64_t k = a.offsets[i]; k < a.offsets[i + 1]; ++k) {
      sum += dvalue[k];
      dot += static_cast<double>(dvalue[k]) * value[k];
    }
    if (a.offsets[i] < a.offsets[i + 1]) {
      g.constant -= static_cast<A>(sum / (static_cast<double>(r) * m.l2));
      g.linear -= static_cast<A>(dot / m.l2 / m.l2);
    }
    T* dh = gradient_row<T>(a.dh, a.h, i);
    write_gradient<false, true>(row, r, g, static_cast<const A*>(nullptr),
                                static_cast<const A*>(nullptr), dh);
    for (int64_t k = a.offsets[i]; k < a.offsets[i + 1]; ++k) {
      const int64_t j = a.feature[k];
      const A x = to_acc(row[j]);
      const A sign = static_cast<A>((x > 0) - (x < 0));
      const A d = g.constant + g.linear * x + g.sign * sign + dvalue[k] / m.l2;
      store_partial(dh + j, 1, broadcast(d));
    }
  }
}

// ---- the loss -------------------------------------------------------------------------------------

// Columns are summed in the accumulator over a block of rows, and the blocks in double, so that the
// error does not grow with the number of rows.
template <class T>
void loss_forward(const QScoreForward& a, int64_t begin, int64_t end, double* columns, void* scratch) {
  using A = Acc<T>;
  constexpr int64_t kBlock = 128;
  constexpr int64_t L = kLanes<T>;
  const int64_t r = a.h.features;
  A* block = static_cast<A*>(scratch);
  memset(block, 0, static_cast<size_t>(r) * sizeof(A));
  for (int64_t i = begin; i < end; ++i) {
    const auto m = score_row<T>(a, i);
    if (!(m.l2 == 0)) {
      const T* row = row_of<T>(a.h, i);
      const A inverse = A(1) / m.l2;
      int64_t j = 0;
      for (; j + L <= r; j += L) store(block + j, load(block + j) + absolute(load(row + j)) * inverse);
      for (; j < r; ++j) block[j] += (to_acc(row[j]) < 0 ? -to_acc(row[j]) : to_acc(row[j])) * inverse;
    }
    if ((i - begin) % kBlock == kBlock - 1 || i + 1 == end) {
      for (int64_t j = 0; j < r; ++j) columns[j] += static_cast<double>(block[j]);
      memset(block, 0, static_cast<size_t>(r) * sizeof(A));
    }
  }
}

template <class T>
void loss_backward(const LossBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  using V = Vec<T>;
  constexpr int64_t L = kLanes<T>;
  const QScoreBackward& s = a.score;
  const int64_t n = s.h.rows, r = s.h.features;
  const A* row_weight = static_cast<const A*>(s.dq);
  const A* col_weight = static_cast<const A*>(a.col_weight);
  const A dloss = static_cast<A>(a.dloss);
  for (int64_t i = begin; i < end; ++i) {
    const T* row = row_of<T>(s.h, i);
    const A norm = static_cast<const A*>(s.saved)[2 * n + i];
    auto g = score_gradient<A>(s, i, dloss * row_weight[i]);
    if (norm > 0) {
      V sums[2] = {};
      int64_t j = 0;
      for (; j + 2 * L <= r; j += 2 * L)
        for (int u = 0; u < 2; ++u)
          sums[u] += load(col_weight + j + u * L) * absolute(load(row + j + u * L));
      for (; j < r; j += L) {
        const int64_t k = r - j < L ? r - j : L;
        sums[0] += load_partial(col_weight + j, k, A(0)) * absolute(load_partial(row + j, k, A(0)));
      }
      g.sign = dloss / norm;
      g.linear -= dloss * static_cast<A>(sum_lanes(sums[0] + sums[1])) / norm / norm / norm;
    }
    write_gradient<true, true>(row, r, g, static_cast<const A*>(s.mask), col_weight,
                               gradient_row<T>(s.dh, s.h, i));
  }
}

template <class T>
constexpr KernelTable table_for() {
  return {row_stats_forward<T>, row_stats_backward<T>, q_score_forward<T>, q_score_backward<T>,
          highly_active<T>,     activation_counts<T>,  sparse_forward<T>,  sparse_backward<T>,
          loss_forward<T>,      loss_backward<T>};
}

}  // namespace

namespace qscore {

extern const Target QSCORE_TARGET;
const Target QSCORE_TARGET = {
    QSCORE_TARGET_NAME,
    {table_for<float>(), table_for<Half>(), table_for<BFloat16>(), table_for<double>()}};

}  // namespace qscore
