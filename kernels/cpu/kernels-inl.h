// The kernels, for one instruction set. Each row is read from memory once.
#pragma once

#include <stdlib.h>

#include "failure-inl.h"
#include "loss-inl.h"
#include "maps-inl.h"
#include "softmax-inl.h"
#include "stream-inl.h"

namespace {

using namespace qscore;

// ---- what is aligned with columns -----------------------------------------------------------------

template <class T>
void arrange_mask(const uint8_t* mask, int64_t r, void* arranged) {
  Mask<T>* out = static_cast<Mask<T>*>(arranged);
  const Layout<T> layout(r);
  for (int64_t i = 0; i < layout.packs() * kParts<T>; ++i) store_vector(out + i, Mask<T>{});
  layout.for_columns([&](int64_t j, int64_t place) {
    if (!mask[j]) return;
    Mask<T> m = load_vector<Mask<T>>(out + place / kLanes<T>);
    set_lane(m, static_cast<int>(place % kLanes<T>));
    store_vector(out + place / kLanes<T>, m);
  });
}

template <class T>
void arrange_columns(const void* columns, int64_t r, void* arranged) {
  const Acc<T>* in = static_cast<const Acc<T>*>(columns);
  Acc<T>* out = static_cast<Acc<T>*>(arranged);
  const Layout<T> layout(r);
  memset(out, 0, static_cast<size_t>(layout.packs()) * kPack<T> * sizeof(Acc<T>));
  layout.for_columns([&](int64_t j, int64_t place) { out[place] = in[j]; });
}

// ---- row statistics -------------------------------------------------------------------------------

template <class T>
void row_stats_forward(const RowStatsForward& a, int64_t begin, int64_t end) {
  for_rows<true, Ahead::kAll>(
      a.h, Layout<T>(a.h.features), begin, end,
      [&](int64_t i, const T*, const auto& m) { store_moments(a.stats, a.h.rows, i, m); });
}

// Where a statistic has no derivative (std of a constant row, norm of a zero row) it is 0, as in PyTorch.
template <class A>
inline RowGradient<A> stats_gradient(const Moments<A>& m, const Moments<A>& d, int64_t r) {
  RowGradient<A> g = {d.mean / static_cast<A>(r), 0, 0, d.l1, {}};
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
  write_gradients<Sides::kNone, true, T>(a.h, a.dh, nullptr, nullptr, begin, end, [&](int64_t i) {
    return stats_gradient(load_moments<A>(a.stats, n, i), load_moments<A>(a.dstats, n, i), r);
  });
}

// ---- highly active entries ------------------------------------------------------------------------

template <bool kTwoSided, class T>
inline void mark_active(const HighlyActive& a, int64_t begin, int64_t end) {
  const int64_t r = a.h.features;
  const Rows<T> rows(a.h);
  for_rows<false, Ahead::kEven>(a.h, Layout<T>(r), begin, end, [&](int64_t i, const T* row, const auto& m) {
    uint8_t* active = a.active + i * r;
    memset(active, 0, static_cast<size_t>(r));
    for_active_vectors<kTwoSided>(row, r, thresholds_of(m, a.activation.eps), rows.ahead(i),
                                  [&](int64_t first, Vec<T>, uint64_t bits) QSCORE_INLINE {
                                    for (; bits; bits &= bits - 1) active[first + __builtin_ctzll(bits)] = 1;
                                  });
  });
}

template <class T>
void highly_active(const HighlyActive& a, int64_t begin, int64_t end) {
  a.activation.two_sided ? mark_active<true, T>(a, begin, end) : mark_active<false, T>(a, begin, end);
}

template <bool kTwoSided, class T>
inline void count_active(const ActivationCounts& a, int64_t begin, int64_t end, int64_t* counts,
                         void* scratch) {
  const Layout<T> layout(a.h.features);
  constexpr int64_t kMaxRows = int64_t{1} << 30;  // the lanes' counters are 32-bit
  auto* lanes = static_cast<Count<T>*>(scratch);
  const Rows<T> rows(a.h);
  for (int64_t first = begin; first < end; first += kMaxRows) {
    const int64_t last = first + kMaxRows < end ? first + kMaxRows : end;
    memset(scratch, 0, static_cast<size_t>(layout.packs()) * kParts<T> * sizeof(Count<T>));
    for_rows<false, Ahead::kEven>(a.h, layout, first, last, [&](int64_t i, const T* row, const auto& m) {
      const char* ahead = rows.ahead(i);
      const Thresholds<Vec<T>> t = in_all_lanes(thresholds_of(m, a.activation.eps));
      for_packs<Ahead::kOdd>(row, layout, 0, layout.full, ahead,
                             [&](Pack<T> x, int64_t index, int, auto in) QSCORE_INLINE {
#pragma GCC unroll 2
                               for (int p = 0; p < kParts<T>; ++p) {
                                 Count<T>* c = lanes + index * kParts<T> + p;
                                 const auto active = in.both(p, active_lanes<kTwoSided>(x.part[p], t));
                                 store_vector(c, count_where(active, load_vector<Count<T>>(c)));
                               }
                             });
    });
    layout.for_columns([&](int64_t j, int64_t place) {
      counts[j] += load_vector<Count<T>>(lanes + place / kLanes<T>)[place % kLanes<T>];
    });
  }
}

template <class T>
void activation_counts(const ActivationCounts& a, int64_t begin, int64_t end, int64_t* counts,
                       void* scratch) {
  a.activation.two_sided ? count_active<true, T>(a, begin, end, counts, scratch)
                         : count_active<false, T>(a, begin, end, counts, scratch);
}

// ---- sparse activations, and everything at once ---------------------------------------------------

// Room for one more row at the end of the entries, and a vector; false when there is no memory.
template <class T>
inline bool reserve(Entries* e, int64_t r) {
  const int64_t needed = e->size + r + kLanes<T>;
  if (needed <= e->capacity) return true;
  const int64_t capacity = 2 * needed;
  void* feature = realloc(e->feature, static_cast<size_t>(capacity) * sizeof(int32_t));
  if (feature) e->feature = static_cast<int32_t*>(feature);
  void* value = feature ? realloc(e->value, static_cast<size_t>(capacity) * sizeof(Acc<T>)) : nullptr;
  if (value) e->value = value;
  e->failed = !value;
  if (value) e->capacity = capacity;
  return !e->failed;
}

// Calls f(i, moments, feature, value, n) for the n entries of each row while they still hold h.
template <bool kTwoSided, class T, class F>
inline void append_rows(const SparseForward& a, int64_t begin, int64_t end, Entries* e, F f) {
  using A = Acc<T>;
  const int64_t r = a.h.features;
  const Rows<T> rows(a.h);
  const auto append = [&](int64_t i, const T* row, const Moments<A>& m) {
    store_moments(a.stats, a.h.rows, i, m);
    if (!reserve<T>(e, r)) return;
    int32_t* feature = e->feature + e->size;
    A* value = static_cast<A*>(e->value) + e->size;
    const int64_t n =
        collect_active<kTwoSided>(row, r, thresholds_of(m, a.activation.eps), rows.ahead(i), feature, value);
    f(i, m, feature, value, n);
    normalise(value, n, m.mean, A(1) / m.l2);
    a.row_counts[i] = n;
    e->size += n;
  };
  for_rows<true, Ahead::kEven>(a.h, Layout<T>(r), begin, end, append);
}

template <class T>
void sparse_forward(const SparseForward& a, int64_t begin, int64_t end, Entries* e) {
  const auto nothing = [](auto&&...) {};
  a.activation.two_sided ? append_rows<true, T>(a, begin, end, e, nothing)
                         : append_rows<false, T>(a, begin, end, e, nothing);
}

// Score and census come from the entries: eps is not below the eps that these are kept at.
template <bool kTwoSided, class T>
inline void append_scored_rows(const ScoreRows& a, int64_t begin, int64_t end, Entries* e, int64_t* counts) {
  using A = Acc<T>;
  ColumnCounter counter(counts);
  const auto score = [&](int64_t i, const Moments<A>& m, const int32_t* feature, A* value, int64_t n) {
    const EntryHits hits =
        find_entry_hits<kTwoSided>(feature, value, n, m.mean, thresholds_of(m, a.eps), a.mask, counter);
    static_cast<A*>(a.q)[i] = score_of(hits.total, static_cast<double>(hits.count), m);
    a.num_active[i] = static_cast<int32_t>(hits.count);
  };
  append_rows<kTwoSided, T>(a.sparse, begin, end, e, score);
}

template <class T>
void score_rows(const ScoreRows& a, int64_t begin, int64_t end, Entries* e, int64_t* counts) {
  a.sparse.activation.two_sided ? append_scored_rows<true, T>(a, begin, end, e, counts)
                                : append_scored_rows<false, T>(a, begin, end, e, counts);
}

template <class T>
void sparse_backward(const SparseBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t n = a.h.rows, r = a.h.features;
  const A* dvalue = static_cast<const A*>(a.dvalue);
  const A* value = static_cast<const A*>(a.value);
  const auto gradient = [&](int64_t i) {
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
    return g;
  };
  const Rows<T> rows(a.h);
  const Layout<T> layout(r);
  CachedWriter writer{reinterpret_cast<char*>(static_cast<T*>(a.dh.data) + begin * r)};
  for (int64_t i = begin; i < end; ++i) {
    const auto g = gradient(i);
    write_gradient<Sides::kNone, true>(rows[i], layout, g, static_cast<const Mask<T>*>(nullptr),
                                       static_cast<const A*>(nullptr), rows.ahead(i), writer);
    // The entries once more, now with their own term.
    T* dh = static_cast<T*>(a.dh.data) + i * r;
    const A norm = load_moments<A>(a.stats, n, i).l2;
    for (int64_t k = a.offsets[i]; k < a.offsets[i + 1]; ++k) {
      const int64_t j = a.feature[k];
      const A x = to_acc(rows[i][j]);
      const A sign = static_cast<A>((x > 0) - (x < 0));
      Pack<T> d = {};
      d.part[0][0] = quiet(g.constant + g.linear * x + g.sign * sign + dvalue[k] / norm);
      const Bytes bytes = bytes_of(d);
      memcpy(dh + j, &bytes, sizeof(T));
    }
  }
}

// ---- all of them ----------------------------------------------------------------------------------

template <class T>
constexpr KernelTable table_for() {
  return {arrange_mask<T>,    arrange_columns<T>,  row_stats_forward<T>, row_stats_backward<T>,
          q_score_forward<T>, q_score_backward<T>, highly_active<T>,     activation_counts<T>,
          sparse_forward<T>,  sparse_backward<T>,  score_rows<T>,        loss_forward<T>,
          loss_backward<T>,   score_maps<T>,       stream_read<T>,       stream_copy<T>};
}

}  // namespace

namespace qscore {

extern const Target QSCORE_TARGET;
const Target QSCORE_TARGET = {
    QSCORE_TARGET_NAME,
    {table_for<float>(), table_for<Half>(), table_for<BFloat16>(), table_for<double>()},
    resampled_metrics,
    pack_probes,
    softmax_regression};

}  // namespace qscore
