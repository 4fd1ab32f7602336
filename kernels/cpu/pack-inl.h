// A row as packs: one vector register of T from memory at a time, widened to its accumulator.
//
// A pack has one part, or two for 16-bit types. The parts of a bfloat16 pack are its even and its odd
// elements, which takes one operation each; so what is aligned with columns (masks, weights, sums) is
// arranged in that order once a call. The elements beyond the last whole pack of a row are read by a pack
// that ends with the row, with the lanes masked that were seen already.
#pragma once

#include "mask-inl.h"

namespace {

template <class T>
constexpr int kParts = static_cast<int>(sizeof(Acc<T>) / sizeof(T));
template <class T>
constexpr int kPack = kParts<T> * kLanes<T>;
// Four vectors in flight hide the latency of their sums.
template <class T>
constexpr int kUnroll = 4 / kParts<T>;

template <class T>
struct Pack {
  Vec<T> part[kParts<T>];
};

// The place in a pack of lane `lane` of part `part`.
template <class T>
inline int element_of(int part, int lane) {
  return part * kLanes<T> + lane;
}
template <>
inline int element_of<BFloat16>(int part, int lane) {
  return 2 * lane + part;
}

inline Pack<float> load_pack(const float* p) { return {{load(p)}}; }
inline Pack<double> load_pack(const double* p) { return {{load(p)}}; }
inline Pack<Half> load_pack(const Half* p) { return {{load(p), load(p + kLanes<Half>)}}; }
inline Pack<BFloat16> load_pack(const BFloat16* p) {
  const U32 bits = load_vector<U32>(p);
  return {{reinterpret_cast<VFloat>(bits << 16), reinterpret_cast<VFloat>(bits & 0xffff0000u)}};
}

// A pack as T, in the order of memory.
inline Bytes bytes_of(const Pack<float>& x) { return reinterpret_cast<Bytes>(x.part[0]); }
inline Bytes bytes_of(const Pack<double>& x) { return reinterpret_cast<Bytes>(x.part[0]); }
inline Bytes bytes_of(const Pack<Half>& x) {
  const U16 low = to_half(x.part[0]), high = to_half(x.part[1]);
#if defined(__AVX512F__)
  return reinterpret_cast<Bytes>(_mm512_inserti64x4(_mm512_castsi256_si512(reinterpret_cast<__m256i>(low)),
                                                    reinterpret_cast<__m256i>(high), 1));
#elif defined(__AVX2__)
  return reinterpret_cast<Bytes>(
      _mm256_set_m128i(reinterpret_cast<__m128i>(high), reinterpret_cast<__m128i>(low)));
#else
  Bytes bytes;
  memcpy(&bytes, &low, sizeof(low));
  memcpy(reinterpret_cast<char*>(&bytes) + sizeof(low), &high, sizeof(high));
  return bytes;
#endif
}
// Rounded to nearest even, in the upper 16 bits of each lane. A NaN must be a quiet one.
inline U32 to_bfloat16(VFloat v) {
  const U32 bits = reinterpret_cast<U32>(v);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}
inline Bytes bytes_of(const Pack<BFloat16>& x) {
  return reinterpret_cast<Bytes>(to_bfloat16(x.part[0]) >> 16 | (to_bfloat16(x.part[1]) & 0xffff0000u));
}

// How rows of r elements are cut into packs.
template <class T>
struct Layout {
  int64_t r, full;                  // whole packs
  int tail;                         // elements beyond them
  int power;                        // the largest power of two up to their number
  double inverse, inverse_freedom;  // 1 / r and 1 / (r - 1)
  Mask<T> tail_mask[kParts<T>];

  explicit Layout(int64_t r)
      : r(r),
        full(r / kPack<T>),
        tail(static_cast<int>(r % kPack<T>)),
        inverse(1 / static_cast<double>(r)),
        inverse_freedom(1 / static_cast<double>(r - 1)) {
    for (power = 1; 2 * power <= tail;) power *= 2;
    const int first = full ? kPack<T> - tail : 0, last = full ? kPack<T> : tail;
    for (int k = 0; k < kParts<T>; ++k) {
      tail_mask[k] = Mask<T>{};
      for (int lane = 0; lane < kLanes<T>; ++lane) {
        const int e = element_of<T>(k, lane);
        if (e >= first && e < last) set_lane(tail_mask[k], lane);
      }
    }
  }
  int64_t packs() const { return full + (tail != 0); }
  int64_t tail_begin() const { return full ? r - kPack<T> : 0; }

  // Calls f(column, place) for every column and its place in an array that is arranged like the packs.
  template <class F>
  void for_columns(F f) const {
    for (int64_t s = 0; s < packs(); ++s) {
      const int64_t begin = s < full ? s * kPack<T> : tail_begin();
      for (int k = 0; k < kParts<T>; ++k)
        for (int lane = 0; lane < kLanes<T>; ++lane) {
          const int64_t j = begin + element_of<T>(k, lane);
          if (j >= s * kPack<T> && j < r) f(j, (s * kParts<T> + k) * kLanes<T> + lane);
        }
    }
  }
};

// Which lanes of a pack count: all, or those of the tail.
template <class T>
struct AllLanes {
  Vec<T> keep(int, Vec<T> v) const { return v; }
  Mask<T> both(int, Mask<T> m) const { return m; }
};
template <class T>
struct TailLanes {
  const Layout<T>& layout;
  Vec<T> keep(int part, Vec<T> v) const { return ::keep(layout.tail_mask[part], v); }
  Mask<T> both(int part, Mask<T> m) const { return m & layout.tail_mask[part]; }
};

// Where to load the tail from. A row shorter than a pack is copied first: nothing beyond it is read.
template <class T>
inline const T* tail_of(const T* row, const Layout<T>& layout, T (&buffer)[kPack<T>]) {
  if (__builtin_expect(layout.full != 0, 1)) return row + layout.tail_begin();
  memset(buffer, 0, sizeof(buffer));
  for (int j = 0; j < layout.tail; ++j) buffer[j] = row[j];
  return buffer;
}

template <class T>
inline Pack<T> load_tail(const T* row, const Layout<T>& layout) {
  T buffer[kPack<T>];
  return load_pack(tail_of(row, layout, buffer));
}

// Which cache lines of the memory that will be wanted next a pass asks for. Two passes share them: the
// memory is then busy during both.
enum class Ahead { kNone, kAll, kEven, kOdd };

// Asks for the line where pack s + u begins, u of the kStep packs that are taken at a time.
template <Ahead kAhead, int kStep>
inline void prefetch_line(const char* ahead, int64_t s, int u) {
  if (kAhead == Ahead::kNone || u * kVectorBytes % kLineBytes != 0) return;
  const bool whole = kStep * kVectorBytes % (2 * kLineBytes) == 0;  // then the line's number is known from u
  const bool odd = ((whole ? 0 : s * kVectorBytes / kLineBytes) + u * kVectorBytes / kLineBytes) % 2;
  if (kAhead == Ahead::kAll || odd == (kAhead == Ahead::kOdd)) prefetch(ahead + (s + u) * kVectorBytes);
}

// Calls body(pack, index, accumulator, lanes) for the packs [begin, end) and, after the last whole one,
// for the tail. `ahead` is the memory that will be wanted next, relative to the row.
template <Ahead kAhead, class T, class F>
inline QSCORE_INLINE void for_packs(const T* row, const Layout<T>& layout, int64_t begin, int64_t end,
                                    const char* ahead, F body) {
  constexpr int U = kUnroll<T>;
  int64_t s = begin;
  for (; s + U <= end; s += U) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      prefetch_line<kAhead, U>(ahead, s, u);
      body(load_pack(row + (s + u) * kPack<T>), s + u, u, AllLanes<T>());
    }
  }
#pragma GCC unroll 4
  for (int u = 0; u < U - 1; ++u) {
    if (s + u >= end) break;
    prefetch_line<kAhead, U>(ahead, s, u);
    body(load_pack(row + (s + u) * kPack<T>), s + u, u, AllLanes<T>());
  }
  if (layout.tail && end == layout.full) {
    if (kAhead == Ahead::kAll || kAhead == Ahead::kEven) prefetch(ahead + end * kVectorBytes);
    body(load_tail(row, layout), layout.full, U - 1, TailLanes<T>{layout});
  }
}

constexpr int kAccumulators = 4;

template <class V>
inline V sum_of(const V (&v)[kAccumulators]) {
  return (v[0] + v[1]) + (v[2] + v[3]);
}

}  // namespace
