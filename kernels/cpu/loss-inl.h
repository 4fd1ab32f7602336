// The loss of a batch: its scores with the sums of its columns, and their gradient.
#pragma once

#include "score-inl.h"

namespace {

using namespace qscore;

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
    score_all<true>(a, layout, first, last, block);
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

template <bool kTwoSided, class T>
inline void write_loss_gradients(const LossBackward& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  constexpr Sides kSides = kTwoSided ? Sides::kBoth : Sides::kAbove;
  const QScoreBackward& s = a.score;
  const int64_t n = s.h.rows;
  const A* weight = static_cast<const A*>(a.col_weight);
  const A dloss = static_cast<A>(a.dloss);
  const Rows<T> rows(s.h);
  const Layout<T> layout(s.h.features);
  write_gradients<kSides, true, T>(s.h, s.dh, s.mask, weight, begin, end, [&](int64_t i) {
    const A norm = static_cast<const A*>(s.saved)[2 * n + i];
    auto g = score_gradient<kTwoSided, A>(s, i, dloss * static_cast<const A*>(s.dq)[i]);
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
void loss_backward(const LossBackward& a, int64_t begin, int64_t end) {
  a.score.two_sided ? write_loss_gradients<true, T>(a, begin, end)
                    : write_loss_gradients<false, T>(a, begin, end);
}

}  // namespace
