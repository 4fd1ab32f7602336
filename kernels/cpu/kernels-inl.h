// The kernels, for one instruction set. Each row is read from memory once.
#pragma once

#include <stdlib.h>

#include "row-inl.h"
#include "stream-inl.h"
#include "writer-inl.h"

namespace {

using namespace qscore;

// Writes the gradient of the rows [begin, end); gradient(i) is a RowGradient.
template <bool kActive, bool kSign, class T, class F>
inline void write_gradients(const Matrix& h, const Gradient& to, const void* mask, const void* weight,
                            int64_t begin, int64_t end, F gradient) {
  const Rows<T> rows(h);
  const Layout<T> layout(h.features);
  const int64_t row_bytes = h.features * static_cast<int64_t>(sizeof(T));
  with_writer(static_cast<char*>(to.data) + begin * row_bytes, row_bytes, to.stream, [&](auto& writer) {
    for (int64_t i = begin; i < end; ++i)
      write_gradient<kActive, kSign>(rows[i], layout, gradient(i), static_cast<const Mask<T>*>(mask),
                                     static_cast<const Acc<T>*>(weight), rows.ahead(i), writer);
  });
}

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
  write_gradients<false, true, T>(a.h, a.dh, nullptr, nullptr, begin, end, [&](int64_t i) {
    return stats_gradient(load_moments<A>(a.stats, n, i), load_moments<A>(a.dstats, n, i), r);
  });
}

// ---- Q-Score --------------------------------------------------------------------------------------

// Scores the rows [begin, end); with kColumns their |h| / n is added to `columns`, arranged.
template <bool kMask, bool kColumns, class T>
inline void score_groups(const QScoreForward& a, const Layout<T>& layout, int64_t begin, int64_t end,
                         Acc<T>* columns) {
  using A = Acc<T>;
  const Mask<T>* mask = static_cast<const Mask<T>*>(a.mask);
  A* q = static_cast<A*>(a.q);
  A* saved = static_cast<A*>(a.saved);
  Hits<Vec<T>> lanes = {};
  Hits<double> hits = {};
  const auto score = [&](int64_t i, int64_t n, const Rows<T>& rows, const Group<T>& group) {
    A threshold[kGroupRows];
    for (int64_t g = 0; g < n; ++g) threshold[g] = threshold_of(group[g], a.eps);
    if (layout.full <= kBlockPacks<T>) {
      for (int64_t g = 0; g < n; ++g)
        find_hits<kMask, kColumns>(rows[i + g], layout, 0, layout.full, group[g], threshold[g], mask, columns,
                                   rows.ahead(i + g), lanes, static_cast<int>(g));
      sum_rows(lanes.total, n, hits.total);
      sum_rows(lanes.count, n, hits.count);
    } else {
      hits.total[0] = hits.count[0] = 0;
      for (int64_t s = 0; s < layout.full; s += kBlockPacks<T>) {
        const int64_t last = block_end(layout, s);
        find_hits<kMask, kColumns>(rows[i], layout, s, last, group[0], threshold[0], mask, columns,
                                   rows.ahead(i), lanes, 0);
        hits.total[0] += sum_lanes(lanes.total[0]);
        hits.count[0] += sum_lanes(lanes.count[0]);
      }
    }
    for (int64_t g = 0; g < n; ++g) q[i + g] = score_of(hits.total[g], hits.count[g], group[g]);
    if (!saved) return;
    for (int64_t g = 0; g < n; ++g) {
      saved[i + g] = threshold[g];
      saved[a.h.rows + i + g] = static_cast<A>(hits.count[g]);
      saved[2 * a.h.rows + i + g] = group.l2[g];
    }
  };
  for_groups<false, Ahead::kEven>(a.h, layout, begin, end, score);
}

template <class T>
void q_score_forward(const QScoreForward& a, int64_t begin, int64_t end) {
  const Layout<T> layout(a.h.features);
  a.mask ? score_groups<true, false>(a, layout, begin, end, static_cast<Acc<T>*>(nullptr))
         : score_groups<false, false>(a, layout, begin, end, static_cast<Acc<T>*>(nullptr));
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
    const A inverse = A(1) / norm, per_norm = weight * inverse;
    g.constant = -per_norm / static_cast<A>(a.h.features);
    g.linear = -per_norm * q * inverse;
    g.active = per_norm / count;
  }
  return g;
}

template <class T>
void q_score_backward(const QScoreBackward& a, int64_t begin, int64_t end) {
  write_gradients<true, false, T>(a.h, a.dh, a.mask, nullptr, begin, end, [&](int64_t i) {
    return score_gradient(a, i, static_cast<const Acc<T>*>(a.dq)[i]);
  });
}

// ---- highly active entries ------------------------------------------------------------------------

template <class T>
void highly_active(const HighlyActive& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t r = a.h.features;
  const Rows<T> rows(a.h);
  for_rows<false, Ahead::kEven>(a.h, Layout<T>(r), begin, end, [&](int64_t i, const T* row, const auto& m) {
    uint8_t* active = a.active + i * r;
    memset(active, 0, static_cast<size_t>(r));
    const A threshold = threshold_of(m, a.eps);
    for_vectors_above(row, r, threshold, rows.ahead(i), [&](int64_t first, Vec<T>, uint64_t bits) {
      for (; bits; bits &= bits - 1) active[first + __builtin_ctzll(bits)] = 1;
    });
  });
}

template <class T>
void activation_counts(const ActivationCounts& a, int64_t begin, int64_t end, int64_t* counts,
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
      const Vec<T> t = broadcast(threshold_of(m, a.eps));
      for_packs<Ahead::kOdd>(row, layout, 0, layout.full, ahead,
                             [&](Pack<T> x, int64_t index, int, auto in) QSCORE_INLINE {
#pragma GCC unroll 2
                               for (int p = 0; p < kParts<T>; ++p) {
                                 Count<T>* c = lanes + index * kParts<T> + p;
                                 const auto active = in.both(p, greater(x.part[p], t));
                                 store_vector(c, count_where(active, load_vector<Count<T>>(c)));
                               }
                             });
    });
    layout.for_columns([&](int64_t j, int64_t place) {
      counts[j] += load_vector<Count<T>>(lanes + place / kLanes<T>)[place % kLanes<T>];
    });
  }
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
template <class T, class F>
inline void append_rows(const SparseForward& a, int64_t begin, int64_t end, Entries* e, F f) {
  using A = Acc<T>;
  const int64_t r = a.h.features;
  const Rows<T> rows(a.h);
  const auto append = [&](int64_t i, const T* row, const Moments<A>& m) {
    store_moments(a.stats, a.h.rows, i, m);
    if (!reserve<T>(e, r)) return;
    int32_t* feature = e->feature + e->size;
    A* value = static_cast<A*>(e->value) + e->size;
    const int64_t n = collect_active(row, r, threshold_of(m, a.eps), rows.ahead(i), feature, value);
    f(i, m, feature, value, n);
    normalise(value, n, m.mean, A(1) / m.l2);
    a.row_counts[i] = n;
    e->size += n;
  };
  for_rows<true, Ahead::kEven>(a.h, Layout<T>(r), begin, end, append);
}

template <class T>
void sparse_forward(const SparseForward& a, int64_t begin, int64_t end, Entries* e) {
  append_rows<T>(a, begin, end, e, [](auto&&...) {});
}

// Score and census come from the entries: eps is not below the eps that these are kept at.
template <class T>
void score_rows(const ScoreRows& a, int64_t begin, int64_t end, Entries* e, int64_t* counts) {
  using A = Acc<T>;
  ColumnCounter counter(counts);
  const auto score = [&](int64_t i, const Moments<A>& m, const int32_t* feature, A* value, int64_t n) {
    const EntryHits hits =
        find_entry_hits(feature, value, n, m.mean, threshold_of(m, a.eps), a.mask, counter);
    static_cast<A*>(a.q)[i] = score_of(hits.total, static_cast<double>(hits.count), m);
    a.num_active[i] = static_cast<int32_t>(hits.count);
  };
  append_rows<T>(a.sparse, begin, end, e, score);
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
    write_gradient<false, true>(rows[i], layout, g, static_cast<const Mask<T>*>(nullptr),
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

// ---- the loss -------------------------------------------------------------------------------------

// Columns are summed in the accumulator over a block of rows, and the blocks in double, so that the
// error does not grow with the number of rows.
template <class T>
void loss_forward(const QScoreForward& a, int64_t begin, int64_t end, double* columns, void* scratch) {
  constexpr int64_t kBlock = 128;
  const Layout<T> layout(a.h.features);
  Acc<T>* block = static_cast<Acc<T>*>(scratch);
  const size_t block_bytes = static_cast<size_t>(layout.packs()) * kPack<T> * sizeof(Acc<T>);
  for (int64_t first = begin; first < end; first += kBlock) {
    memset(block, 0, block_bytes);
    const int64_t last = first + kBlock < end ? first + kBlock : end;
    a.mask ? score_groups<true, true>(a, layout, first, last, block)
           : score_groups<false, true>(a, layout, first, last, block);
    layout.for_columns([&](int64_t j, int64_t place) { columns[j] += static_cast<double>(block[place]); });
  }
}

// sum_l w_l |h_l|, w arranged.
template <class T>
inline double weighted_norm(const T* row, const Layout<T>& layout, const Acc<T>* weight, const char* ahead) {
  double total = 0;
  int64_t s = 0;
  do {
    const int64_t end = block_end(layout, s);
    Vec<T> sums[kAccumulators] = {};
    for_packs<Ahead::kAll>(
        row, layout, s, end, ahead, [&](Pack<T> x, int64_t index, int u, auto lanes) QSCORE_INLINE {
#pragma GCC unroll 2
          for (int p = 0; p < kParts<T>; ++p)
            sums[u * kParts<T> + p] +=
                lanes.keep(p, absolute(x.part[p])) * load(weight + (index * kParts<T> + p) * kLanes<T>);
        });
    total += sum_lanes(sum_of(sums));
    s = end;
  } while (s < layout.full);
  return total;
}

template <class T>
void loss_backward(const LossBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const QScoreBackward& s = a.score;
  const int64_t n = s.h.rows;
  const A* weight = static_cast<const A*>(a.col_weight);
  const A dloss = static_cast<A>(a.dloss);
  const Rows<T> rows(s.h);
  const Layout<T> layout(s.h.features);
  write_gradients<true, true, T>(s.h, s.dh, s.mask, weight, begin, end, [&](int64_t i) {
    const A norm = static_cast<const A*>(s.saved)[2 * n + i];
    auto g = score_gradient<A>(s, i, dloss * static_cast<const A*>(s.dq)[i]);
    if (norm > 0) {
      const double sum = weighted_norm(rows[i], layout, weight, rows.ahead(i));
      const A inverse = A(1) / norm;
      g.sign = dloss * inverse;
      g.linear -= dloss * (static_cast<A>(sum) * inverse) * inverse * inverse;
    }
    return g;
  });
}

template <class T>
constexpr KernelTable table_for() {
  return {arrange_mask<T>,    arrange_columns<T>,  row_stats_forward<T>, row_stats_backward<T>,
          q_score_forward<T>, q_score_backward<T>, highly_active<T>,     activation_counts<T>,
          sparse_forward<T>,  sparse_backward<T>,  score_rows<T>,        loss_forward<T>,
          loss_backward<T>,   stream_read<T>,      stream_copy<T>};
}

}  // namespace

namespace qscore {

extern const Target QSCORE_TARGET;
const Target QSCORE_TARGET = {
    QSCORE_TARGET_NAME, {table_for<float>(), table_for<Half>(), table_for<BFloat16>(), table_for<double>()}};

}  // namespace qscore
