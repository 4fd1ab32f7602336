// What is done with a row that is in the cache: its score, its highly active entries, its gradient.
#pragma once

#include "moments-inl.h"

namespace {

using namespace qscore;

// ---- the score ------------------------------------------------------------------------------------

// The highly active entries: the sum of their distances from the mean, how many there are, and two-sided how
// many of them lie below the mean.
template <class S>
struct Hits {
  S total[kGroupRows], count[kGroupRows], below[kGroupRows];
};

// Counts and sums lane by lane over the packs [begin, end), without a branch on the data. `mask` is D,
// arranged. With kColumns the row's |h| / n is added to `columns`, arranged.
template <bool kTwoSided, bool kMask, bool kColumns, class T>
inline void find_hits(const T* row, const Layout<T>& layout, int64_t begin, int64_t end,
                      const Moments<Acc<T>>& m, const Thresholds<Acc<T>>& thresholds, const Mask<T>* mask,
                      Acc<T>* columns, const char* ahead, Hits<Vec<T>>& hits, int g) {
  const Thresholds<Vec<T>> t = in_all_lanes(thresholds);
  const Vec<T> mean = broadcast(m.mean);
  const Acc<T> inverse_norm = m.l2 == 0 ? Acc<T>(0) : Acc<T>(1) / m.l2;
  Vec<T> sums[kAccumulators] = {};
  Count<T> counts[kAccumulators] = {}, below[kAccumulators] = {};
  for_packs<Ahead::kOdd>(row, layout, begin, end, ahead,
                         [&](Pack<T> x, int64_t index, int u, auto lanes) QSCORE_INLINE {
#pragma GCC unroll 2
                           for (int p = 0; p < kParts<T>; ++p) {
                             const int a = u * kParts<T> + p;
                             const int64_t place = index * kParts<T> + p;
                             auto active = lanes.both(p, active_lanes<kTwoSided>(x.part[p], t));
                             if (kMask) active &= load_vector<Mask<T>>(mask + place);
                             const Vec<T> d = x.part[p] - mean;
                             sums[a] = add_where(active, sums[a], kTwoSided ? absolute(d) : d);
                             counts[a] = count_where(active, counts[a]);
                             if (kTwoSided) {
                               active &= greater(t.low, x.part[p]);
                               below[a] = count_where(active, below[a]);
                             }
                             if (kColumns) {
                               Acc<T>* c = columns + place * kLanes<T>;
                               store(c, load(c) + lanes.keep(p, absolute(x.part[p])) * inverse_norm);
                             }
                           }
                         });
  hits.total[g] = sum_of(sums);
  hits.count[g] = __builtin_convertvector(sum_of(counts), Vec<T>);
  if (kTwoSided) hits.below[g] = __builtin_convertvector(sum_of(below), Vec<T>);
}

template <class A>
inline A score_of(double total, double count, const Moments<A>& m) {
  if (!m.finite()) return static_cast<A>(NAN);
  return count > 0 && m.l2 > 0 ? static_cast<A>(total) / (static_cast<A>(count) * m.l2) : A(0);
}

// ---- highly active entries, in ascending order ----------------------------------------------------

// Calls visit(begin, vector, bits) for every vector of the row, with one bit a lane that is highly active.
// There is no branch on the data: skipping what has no entry costs more in mispredictions than it
// saves. Asks for the odd lines of the memory ahead, as the second of two passes.
template <bool kTwoSided, class T, class F>
inline void for_active_vectors(const T* row, int64_t r, const Thresholds<Acc<T>>& thresholds,
                               const char* ahead, F visit) {
  constexpr int64_t L = kLanes<T>, kStepBytes = 4 * L * static_cast<int64_t>(sizeof(T));
  const Thresholds<Vec<T>> t = in_all_lanes(thresholds);
  int64_t j = 0;
  for (; j + 4 * L <= r; j += 4 * L) {
#pragma GCC unroll 2
    for (int64_t byte = kLineBytes; byte < kStepBytes; byte += 2 * kLineBytes)
      prefetch(ahead + j * static_cast<int64_t>(sizeof(T)) + byte);
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const Vec<T> v = load(row + j + u * L);
      visit(j + u * L, v, bits_of(active_lanes<kTwoSided>(v, t)));
    }
  }
  for (; j + L <= r; j += L) visit(j, load(row + j), bits_of(active_lanes<kTwoSided>(load(row + j), t)));
  if (j == r) return;
  if (r >= L) {
    const int seen = static_cast<int>(L - (r - j));
    const Vec<T> v = load(row + r - L);
    visit(r - L, v, bits_of(active_lanes<kTwoSided>(v, t)) >> seen << seen);
    return;
  }
  T buffer[L] = {};
  memcpy(buffer, row + j, static_cast<size_t>(r - j) * sizeof(T));
  const Vec<T> v = load(buffer);
  visit(j, v, bits_of(active_lanes<kTwoSided>(v, t)) & ((uint64_t{1} << (r - j)) - 1));
}

// Writes the active entries to `feature` and `value` (h itself) and returns how many there are. Whole
// vectors are written: both have room for r entries and one vector.
template <bool kTwoSided, class T>
inline int64_t collect_active(const T* row, int64_t r, const Thresholds<Acc<T>>& thresholds,
                              const char* ahead, int32_t* feature, Acc<T>* value) {
  const Count<T> lanes = lane_numbers<Count<T>>();
  int64_t n = 0;
  for_active_vectors<kTwoSided>(row, r, thresholds, ahead,
                                [&](int64_t begin, Vec<T> v, uint64_t bits) QSCORE_INLINE {
                                  compress(feature + n, lanes + static_cast<int32_t>(begin), bits);
                                  n += compress(value + n, v, bits);
                                });
  return n;
}

// Replaces n values h by (h - mean) * inverse; a vector behind them may be written.
template <class A>
inline void normalise(A* value, int64_t n, A mean, A inverse) {
  const auto m = broadcast(mean), scale = broadcast(inverse);
  for (int64_t k = 0; k < n; k += kLanes<A>) store(value + k, (load(value + k) - m) * scale);
}

// Counts columns, many at a time: a loop over the few of one row would end with a misprediction.
class ColumnCounter {
 public:
  explicit ColumnCounter(int64_t* counts) : counts_(counts) {}
  ~ColumnCounter() { flush(); }
  ColumnCounter(const ColumnCounter&) = delete;
  ColumnCounter& operator=(const ColumnCounter&) = delete;

  // The columns of the lanes in `bits`, of which there are n.
  template <class I>
  QSCORE_INLINE void add(I columns, uint64_t bits, int n) {
    compress(pending_ + size_, columns, bits);
    size_ += n;
    if (size_ > kCapacity) flush();
  }

 private:
  static constexpr int kCapacity = 1024;

  void flush() {
    for (int k = 0; k < size_; ++k) ++counts_[pending_[k]];
    size_ = 0;
  }

  int64_t* counts_;
  int size_ = 0;
  int32_t pending_[kCapacity + 2 * kVectorBytes];
};

// The sum of the distances from the mean, and the number, of those of n entries that are highly active and in
// D: a row of `mask`, or all where that is null. Their columns are counted, in D or not. A vector behind the
// values is written.
struct EntryHits {
  double total = 0;
  int64_t count = 0;
};

template <bool kTwoSided, class A>
inline EntryHits find_entry_hits(const int32_t* feature, A* value, int64_t n, A mean,
                                 const Thresholds<A>& thresholds, const uint8_t* mask,
                                 ColumnCounter& counter) {
  constexpr int64_t L = kLanes<A>, kBlock = 64 * L;
  const auto t = in_all_lanes(thresholds);
  const auto m = broadcast(mean);
  store(value + n, m);  // which is never active
  EntryHits hits;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    auto sum = m - m;
    for (int64_t k = begin; k < end; k += L) {
      const auto v = load(value + k);
      auto active = active_lanes<kTwoSided>(v, t);
      const uint64_t bits = bits_of(active);
      const int found = __builtin_popcountll(bits);
      counter.add(load_features<Count<A>>(feature + k), bits, found);
      hits.count += found;
      if (mask) {
        for (uint64_t rest = bits; rest; rest &= rest - 1) {
          const int lane = __builtin_ctzll(rest);
          if (mask[feature[k + lane]]) continue;
          clear_lane(active, lane);
          --hits.count;
        }
      }
      sum = add_where(active, sum, kTwoSided ? absolute(v - m) : v - m);
    }
    hits.total += sum_lanes(sum);
  }
  return hits;
}

// ---- gradients ------------------------------------------------------------------------------------

// dh_k = constant + linear h_k + active mask_k 1[h_k > high] + sign weight_k sign(h_k)
// and two-sided - active mask_k 1[h_k < low].
template <class A>
struct RowGradient {
  A constant, linear, active, sign;
  Thresholds<A> thresholds;
};

// The sides of the mean on which an entry can be active; none where the gradient has no such term.
enum class Sides { kNone, kAbove, kBoth };

// A NaN from outside may have any payload, and rounding could carry it into another number.
template <class A>
inline A quiet(A x) {
  return isnan(x) ? static_cast<A>(NAN) : x;
}

// Mask and weight are arranged; null stands for all ones.
template <Sides kSides, bool kSign, class T, class Writer>
inline void write_gradient(const T* row, const Layout<T>& layout, const RowGradient<Acc<T>>& g,
                           const Mask<T>* mask, const Acc<T>* weight, const char* ahead, Writer& out) {
  using V = Vec<T>;
  const V constant = broadcast(quiet(g.constant)), linear = broadcast(quiet(g.linear));
  const V active = broadcast(quiet(g.active)), sign = broadcast(quiet(g.sign));
  const Thresholds<V> t = in_all_lanes(g.thresholds);
  const auto gradient = [&](const Pack<T>& x, int64_t index) QSCORE_INLINE {
    Pack<T> d;
#pragma GCC unroll 2
    for (int p = 0; p < kParts<T>; ++p) {
      const V v = x.part[p];
      const int64_t place = index * kParts<T> + p;
      d.part[p] = constant + linear * v;
      if (kSides != Sides::kNone) {
        auto above = greater(v, t.high);
        if (mask) above &= load_vector<Mask<T>>(mask + place);
        d.part[p] = add_where(above, d.part[p], active);
      }
      if (kSides == Sides::kBoth) {
        auto below = greater(t.low, v);
        if (mask) below &= load_vector<Mask<T>>(mask + place);
        d.part[p] = add_where(below, d.part[p], -active);
      }
      if (kSign) {
        const V w = weight ? sign * load(weight + place * kLanes<T>) : sign;
        d.part[p] = add_where(nonzero(v), d.part[p], times_sign(w, v));
      }
    }
    return bytes_of(d);
  };
  int64_t s = 0;
  for (; s + kUnroll<T> <= layout.full; s += kUnroll<T>) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll<T>; ++u) {
      if (u * kVectorBytes % kLineBytes == 0) prefetch(ahead + (s + u) * kVectorBytes);
      out.put(gradient(load_pack(row + (s + u) * kPack<T>), s + u));
    }
  }
  for (; s < layout.full; ++s) out.put(gradient(load_pack(row + s * kPack<T>), s));
  if (layout.tail) {
    const Bytes bytes = gradient(load_tail(row, layout), layout.full);
    const int n = layout.tail * static_cast<int>(sizeof(T));
    out.put_bytes(reinterpret_cast<const char*>(&bytes) + (layout.full ? kVectorBytes - n : 0), n);
  }
}

}  // namespace
