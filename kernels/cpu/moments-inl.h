// The rows of a matrix, in groups that fit the cache, and their moments: the first pass over a row, which
// brings it from memory.
#pragma once

#include "kernels.h"
#include "pack-inl.h"

namespace {

using namespace qscore;

// Sums run in the accumulator over so many packs, and from there in double: the error does not grow with r.
template <class T>
constexpr int64_t kBlockPacks = 512 / kParts<T>;
template <class T>
inline int64_t block_end(const Layout<T>& layout, int64_t begin) {
  return begin + kBlockPacks<T> < layout.full ? begin + kBlockPacks<T> : layout.full;
}

// Short rows are taken in groups: what ends one row's sums (a chain of shuffles, divisions and roots) then
// runs beside the sums of the next, and does not hold up its own second pass.
constexpr int kGroupRows = 16;
constexpr int64_t kGroupBytes = 8192;

// The first pass asks for the memory of the next group, since the processor's own prefetching pauses while
// the second pass runs. Of longer rows only the next page is asked for: a row ahead would not stay in L1.
constexpr int64_t kFarBytes = 32768;
constexpr int64_t kNearBytes = 4096;

template <class T>
struct Rows {
  const T* data;
  int64_t stride;
  int64_t group;  // rows
  bool far;

  explicit Rows(const Matrix& h) : data(static_cast<const T*>(h.data)), stride(h.row_stride) {
    const int64_t row_bytes = h.features * static_cast<int64_t>(sizeof(T));
    const int64_t fit = kGroupBytes / row_bytes;
    group = fit < 1 ? 1 : fit < kGroupRows ? fit : kGroupRows;
    far = group * row_bytes <= kFarBytes;
  }
  const T* operator[](int64_t i) const { return data + i * stride; }
  const char* ahead(int64_t i) const {
    return far ? reinterpret_cast<const char*>((*this)[i + group])
               : reinterpret_cast<const char*>((*this)[i]) + kNearBytes;
  }
};

// ---- moments --------------------------------------------------------------------------------------

template <class A>
struct Moments {
  A mean, std, l1, l2;
  // NaN or Inf in the row, or an overflow of its sum of squares, shows in the norm.
  bool finite() const { return isfinite(l2) && isfinite(mean); }
};

// What lies above `high`, or two-sided below `low`, is highly active.
template <class A>
struct Thresholds {
  A high, low;
};

// NaN, which nothing exceeds, where the row is not finite.
template <class A>
inline Thresholds<A> thresholds_of(const Moments<A>& m, double eps) {
  if (!m.finite()) return {static_cast<A>(NAN), static_cast<A>(NAN)};
  return {m.mean + static_cast<A>(eps) * m.std, m.mean - static_cast<A>(eps) * m.std};
}

template <class A>
inline Thresholds<typename VectorOf<A>::type> in_all_lanes(const Thresholds<A>& t) {
  return {broadcast(t.high), broadcast(t.low)};
}

// The lanes of `v` that are highly active.
template <bool kTwoSided, class V>
inline auto active_lanes(V v, const Thresholds<V>& t) {
  auto active = greater(v, t.high);
  if (kTwoSided) active |= greater(t.low, v);
  return active;
}

// Sums of (x - shift), of its square, and of |x|, for each row of a group.
template <class S>
struct Sums {
  S first[kGroupRows], second[kGroupRows], absolute[kGroupRows];
};

// Lane by lane, over the packs [begin, end).
template <bool kL1, Ahead kAhead, class T>
inline void sum_packs(const T* row, const Layout<T>& layout, int64_t begin, int64_t end, Acc<T> shift,
                      const char* ahead, Sums<Vec<T>>& sums, int g) {
  const Vec<T> k = broadcast(shift);
  Vec<T> first[kAccumulators] = {}, second[kAccumulators] = {}, absolutes[kAccumulators] = {};
  for_packs<kAhead>(row, layout, begin, end, ahead, [&](Pack<T> x, int64_t, int u, auto lanes) QSCORE_INLINE {
#pragma GCC unroll 2
    for (int p = 0; p < kParts<T>; ++p) {
      const int a = u * kParts<T> + p;
      const Vec<T> d = lanes.keep(p, x.part[p] - k);
      first[a] += d;
      second[a] += d * d;
      if (kL1) absolutes[a] += lanes.keep(p, absolute(x.part[p]));
    }
  });
  sums.first[g] = sum_of(first);
  sums.second[g] = sum_of(second);
  if (kL1) sums.absolute[g] = sum_of(absolutes);
}

// The sums of one row of any length.
template <bool kL1, Ahead kAhead, class T>
inline void sum_blocks(const T* row, const Layout<T>& layout, Acc<T> shift, const char* ahead,
                       Sums<double>& total) {
  Sums<Vec<T>> block;
  total.first[0] = total.second[0] = total.absolute[0] = 0;
  int64_t s = 0;
  do {
    const int64_t end = block_end(layout, s);
    sum_packs<kL1, kAhead>(row, layout, s, end, shift, ahead, block, 0);
    total.first[0] += sum_lanes(block.first[0]);
    total.second[0] += sum_lanes(block.second[0]);
    if (kL1) total.absolute[0] += sum_lanes(block.absolute[0]);
    s = end;
  } while (s < layout.full);
}

// The guess at a row's mean is that of its first elements, a power of two of them, added in pairs: so it is
// the mean itself where all elements are the same.
template <class T>
inline int64_t guess_packs(const Layout<T>& layout) {
  return layout.full < 2 ? layout.full : layout.full < kUnroll<T> ? 2 : kUnroll<T>;
}
template <class T>
inline int64_t guess_elements(const Layout<T>& layout) {
  return layout.full ? guess_packs(layout) * kPack<T> : layout.power;
}
template <class T>
inline Vec<T> guess_sum(const T* row, const Layout<T>& layout) {
  Vec<T> sums[kAccumulators] = {};
  const int64_t packs = guess_packs(layout);
#pragma GCC unroll 4
  for (int s = 0; s < kUnroll<T>; ++s) {
    if (s >= packs) break;
    const Pack<T> x = load_pack(row + s * kPack<T>);
#pragma GCC unroll 2
    for (int p = 0; p < kParts<T>; ++p) sums[s * kParts<T> + p] = x.part[p];
  }
  if (!packs) {
    T buffer[kPack<T>] = {};
    for (int j = 0; j < layout.power; ++j) buffer[j] = row[j];
    const Pack<T> x = load_pack(buffer);
    for (int p = 0; p < kParts<T>; ++p) sums[p] = x.part[p];
  }
  return sum_of(sums);
}

// Mean first, then centred squares.
template <class T>
__attribute__((noinline)) Moments<Acc<T>> two_pass_moments(const T* row, const Layout<T>& layout) {
  using A = Acc<T>;
  Sums<double> plain, centred;
  sum_blocks<true, Ahead::kNone>(row, layout, A(0), nullptr, plain);
  const A mean = static_cast<A>(plain.first[0] * layout.inverse);
  sum_blocks<false, Ahead::kNone>(row, layout, mean, nullptr, centred);
  return {mean, root(static_cast<A>(centred.second[0] * layout.inverse_freedom)),
          static_cast<A>(plain.absolute[0]), root(static_cast<A>(plain.second[0]))};
}

// The moments of the n rows of a group, a field a row.
template <class T>
struct Group {
  using A = Acc<T>;
  A mean[kGroupRows], std[kGroupRows], l1[kGroupRows], l2[kGroupRows];

  Moments<A> operator[](int64_t g) const { return {mean[g], std[g], l1[g], l2[g]}; }

  // From one pass with sums around a guess of the mean. They are as exact as centred ones while the guess is
  // within a standard deviation of the mean; where it is not, or is not finite, two passes are made. A
  // standard deviation is 0 / 0 = NaN for r = 1, as torch.std; squares that overflow give an infinite norm.
  void finish(const Rows<T>& rows, const Layout<T>& layout, int64_t i, int64_t n, const A* guess,
              const Sums<double>& sums) {
    bool exact[kGroupRows];
    for (int64_t g = 0; g < n; ++g) {
      const double offset = sums.first[g] * layout.inverse;
      const double squares = sums.second[g] - sums.first[g] * offset;
      const double centre = static_cast<double>(guess[g]) + offset;
      mean[g] = static_cast<A>(centre);
      std[g] = root(static_cast<A>(squares * layout.inverse_freedom));
      l1[g] = static_cast<A>(sums.absolute[g]);
      l2[g] = root(static_cast<A>(squares + static_cast<double>(layout.r) * centre * centre));
      exact[g] = sums.first[g] * offset <= squares && squares < static_cast<double>(INFINITY);
    }
    for (int64_t g = 0; g < n; ++g) {
      if (__builtin_expect(exact[g], 1)) continue;
      const Moments<A> m = two_pass_moments(rows[i + g], layout);
      mean[g] = m.mean, std[g] = m.std, l1[g] = m.l1, l2[g] = m.l2;
    }
  }
};

// Calls f(i, n, rows, group) for groups of n rows from i on that cover [begin, end), each in the cache.
template <bool kL1, Ahead kAhead, class T, class F>
inline void for_groups(const Matrix& h, const Layout<T>& layout, int64_t begin, int64_t end, F f) {
  using A = Acc<T>;
  const Rows<T> rows(h);
  const A guess_scale = static_cast<A>(1.0 / static_cast<double>(guess_elements(layout)));
  Vec<T> first[kGroupRows] = {};
  Sums<Vec<T>> lanes = {};
  Sums<double> sums = {};
  A guess[kGroupRows];
  Group<T> group;
  for (int64_t i = begin; i < end; i += rows.group) {
    const int64_t n = end - i < rows.group ? end - i : rows.group;
    for (int64_t g = 0; g < n; ++g) first[g] = guess_sum(rows[i + g], layout);
    sum_rows(first, n, guess);
    for (int64_t g = 0; g < n; ++g) guess[g] *= guess_scale;
    if (layout.full <= kBlockPacks<T>) {
      for (int64_t g = 0; g < n; ++g)
        sum_packs<kL1, kAhead>(rows[i + g], layout, 0, layout.full, guess[g], rows.ahead(i + g), lanes,
                               static_cast<int>(g));
      sum_rows(lanes.first, n, sums.first);
      sum_rows(lanes.second, n, sums.second);
      if (kL1) sum_rows(lanes.absolute, n, sums.absolute);
    } else {
      sum_blocks<kL1, kAhead>(rows[i], layout, guess[0], rows.ahead(i), sums);
    }
    group.finish(rows, layout, i, n, guess, sums);
    f(i, n, rows, group);
  }
}

// Calls f(i, row, moments) for the rows [begin, end), each in the cache.
template <bool kL1, Ahead kAhead, class T, class F>
inline void for_rows(const Matrix& h, const Layout<T>& layout, int64_t begin, int64_t end, F f) {
  for_groups<kL1, kAhead>(h, layout, begin, end,
                          [&](int64_t i, int64_t n, const Rows<T>& rows, const Group<T>& group) {
                            for (int64_t g = 0; g < n; ++g) f(i + g, rows[i + g], group[g]);
                          });
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

}  // namespace
