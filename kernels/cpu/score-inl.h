// The Q-Score of rows and its gradient. Each row is read from memory once.
#pragma once

#include "row-inl.h"
#include "writer-inl.h"

namespace {

using namespace qscore;

// Writes the gradient of the rows [begin, end); gradient(i) is a RowGradient.
template <Sides kSides, bool kSign, class T, class F>
inline void write_gradients(const Matrix& h, const Gradient& to, const void* mask, const void* weight,
                            int64_t begin, int64_t end, F gradient) {
  const Rows<T> rows(h);
  const Layout<T> layout(h.features);
  const int64_t row_bytes = h.features * static_cast<int64_t>(sizeof(T));
  with_writer(static_cast<char*>(to.data) + begin * row_bytes, row_bytes, to.stream, [&](auto& writer) {
    for (int64_t i = begin; i < end; ++i)
      write_gradient<kSides, kSign>(rows[i], layout, gradient(i), static_cast<const Mask<T>*>(mask),
                                    static_cast<const Acc<T>*>(weight), rows.ahead(i), writer);
  });
}

// Scores the rows [begin, end); with kColumns their |h| / n is added to `columns`, arranged.
template <bool kTwoSided, bool kMask, bool kColumns, class T>
inline void score_groups(const QScoreForward& a, const Layout<T>& layout, int64_t begin, int64_t end,
                         Acc<T>* columns) {
  using A = Acc<T>;
  const Mask<T>* mask = static_cast<const Mask<T>*>(a.mask);
  A* q = static_cast<A*>(a.q);
  A* saved = static_cast<A*>(a.saved);
  Hits<Vec<T>> lanes = {};
  Hits<double> hits = {};
  const auto score = [&](int64_t i, int64_t n, const Rows<T>& rows, const Group<T>& group) {
    Thresholds<A> thresholds[kGroupRows];
    for (int64_t g = 0; g < n; ++g) thresholds[g] = thresholds_of(group[g], a.activation.eps);
    if (layout.full <= kBlockPacks<T>) {
      for (int64_t g = 0; g < n; ++g)
        find_hits<kTwoSided, kMask, kColumns>(rows[i + g], layout, 0, layout.full, group[g], thresholds[g],
                                              mask, columns, rows.ahead(i + g), lanes, static_cast<int>(g));
      sum_rows(lanes.total, n, hits.total);
      sum_rows(lanes.count, n, hits.count);
      if (kTwoSided) sum_rows(lanes.below, n, hits.below);
    } else {
      hits.total[0] = hits.count[0] = hits.below[0] = 0;
      for (int64_t s = 0; s < layout.full; s += kBlockPacks<T>) {
        const int64_t last = block_end(layout, s);
        find_hits<kTwoSided, kMask, kColumns>(rows[i], layout, s, last, group[0], thresholds[0], mask,
                                              columns, rows.ahead(i), lanes, 0);
        hits.total[0] += sum_lanes(lanes.total[0]);
        hits.count[0] += sum_lanes(lanes.count[0]);
        if (kTwoSided) hits.below[0] += sum_lanes(lanes.below[0]);
      }
    }
    for (int64_t g = 0; g < n; ++g) q[i + g] = score_of(hits.total[g], hits.count[g], group[g]);
    if (!saved) return;
    for (int64_t g = 0; g < n; ++g) {
      saved[i + g] = thresholds[g].high;
      saved[a.h.rows + i + g] = static_cast<A>(hits.count[g]);
      saved[2 * a.h.rows + i + g] = group.l2[g];
      if (!kTwoSided) continue;
      saved[3 * a.h.rows + i + g] = thresholds[g].low;
      saved[4 * a.h.rows + i + g] = static_cast<A>(hits.count[g] - 2 * hits.below[g]);
    }
  };
  for_groups<false, Ahead::kEven>(a.h, layout, begin, end, score);
}

template <bool kColumns, class T>
inline void score_all(const QScoreForward& a, const Layout<T>& layout, int64_t begin, int64_t end,
                      Acc<T>* columns) {
  if (a.activation.two_sided)
    a.mask ? score_groups<true, true, kColumns>(a, layout, begin, end, columns)
           : score_groups<true, false, kColumns>(a, layout, begin, end, columns);
  else
    a.mask ? score_groups<false, true, kColumns>(a, layout, begin, end, columns)
           : score_groups<false, false, kColumns>(a, layout, begin, end, columns);
}

template <class T>
void q_score_forward(const QScoreForward& a, int64_t begin, int64_t end) {
  score_all<false>(a, Layout<T>(a.h.features), begin, end, static_cast<Acc<T>*>(nullptr));
}

// The gradient of weight * Q_i: exactly 0 for an empty L & D, NaN where Q is NaN.
template <bool kTwoSided, class A>
inline RowGradient<A> score_gradient(const QScoreBackward& a, int64_t i, A weight) {
  const int64_t n = a.h.rows;
  const A q = static_cast<const A*>(a.q)[i];
  const A* saved = static_cast<const A*>(a.saved) + i;
  const A count = saved[n], norm = saved[2 * n];
  RowGradient<A> g = {0, 0, 0, 0, {saved[0], kTwoSided ? saved[3 * n] : A(0)}};
  if (isnan(q)) {
    g.constant = q;
  } else if (count > 0) {
    const A inverse = A(1) / norm, per_norm = weight * inverse;
    g.constant = -per_norm / static_cast<A>(a.h.features);
    if (kTwoSided) g.constant *= saved[4 * n] / count;
    g.linear = -per_norm * q * inverse;
    g.active = per_norm / count;
  }
  return g;
}

template <bool kTwoSided, class T>
inline void write_score_gradients(const QScoreBackward& a, int64_t begin, int64_t end) {
  constexpr Sides kSides = kTwoSided ? Sides::kBoth : Sides::kAbove;
  write_gradients<kSides, false, T>(a.h, a.dh, a.mask, nullptr, begin, end, [&](int64_t i) {
    return score_gradient<kTwoSided>(a, i, static_cast<const Acc<T>*>(a.dq)[i]);
  });
}

template <class T>
void q_score_backward(const QScoreBackward& a, int64_t begin, int64_t end) {
  a.two_sided ? write_score_gradients<true, T>(a, begin, end)
              : write_score_gradients<false, T>(a, begin, end);
}

}  // namespace
