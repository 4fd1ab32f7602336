// Which lanes of a vector: comparison, selection, counting, compression.
#pragma once

#include "simd-inl.h"

namespace {

// ---- lane masks -----------------------------------------------------------------------------------

// Mask<A>: which lanes of a vector of A. A bit a lane with AVX-512, all bits of a lane elsewhere.
#if defined(__AVX512F__)
template <class A>
struct MaskOf {
  using type = __mmask16;
};
template <>
struct MaskOf<double> {
  using type = __mmask8;
};
inline __mmask16 greater(VFloat a, VFloat b) {
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GT_OQ);
}
inline __mmask8 greater(VDouble a, VDouble b) {
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), _CMP_GT_OQ);
}
inline __mmask16 nonzero(VFloat v) {
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(v), _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
inline __mmask8 nonzero(VDouble v) {
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(v), _mm512_setzero_pd(), _CMP_NEQ_UQ);
}
inline VFloat keep(__mmask16 m, VFloat v) {
  return reinterpret_cast<VFloat>(_mm512_maskz_mov_ps(m, reinterpret_cast<__m512>(v)));
}
inline VDouble keep(__mmask8 m, VDouble v) {
  return reinterpret_cast<VDouble>(_mm512_maskz_mov_pd(m, reinterpret_cast<__m512d>(v)));
}
inline VFloat add_where(__mmask16 m, VFloat sum, VFloat v) {
  const __m512 s = reinterpret_cast<__m512>(sum);
  return reinterpret_cast<VFloat>(_mm512_mask_add_ps(s, m, s, reinterpret_cast<__m512>(v)));
}
inline VDouble add_where(__mmask8 m, VDouble sum, VDouble v) {
  const __m512d s = reinterpret_cast<__m512d>(sum);
  return reinterpret_cast<VDouble>(_mm512_mask_add_pd(s, m, s, reinterpret_cast<__m512d>(v)));
}
inline I32 count_where(__mmask16 m, I32 count) {
  const __m512i c = reinterpret_cast<__m512i>(count);
  return reinterpret_cast<I32>(_mm512_mask_add_epi32(c, m, c, _mm512_set1_epi32(1)));
}
inline I64 count_where(__mmask8 m, I64 count) {
  const __m512i c = reinterpret_cast<__m512i>(count);
  return reinterpret_cast<I64>(_mm512_mask_add_epi64(c, m, c, _mm512_set1_epi64(1)));
}
inline uint64_t bits_of(__mmask16 m) { return m; }
inline uint64_t bits_of(__mmask8 m) { return m; }
inline void clear_lane(__mmask16& m, int lane) { m = static_cast<__mmask16>(m & ~(1u << lane)); }
inline void clear_lane(__mmask8& m, int lane) { m = static_cast<__mmask8>(m & ~(1u << lane)); }
inline void set_lane(__mmask16& m, int lane) { m = static_cast<__mmask16>(m | 1u << lane); }
inline void set_lane(__mmask8& m, int lane) { m = static_cast<__mmask8>(m | 1u << lane); }
#else
template <class A>
struct MaskOf {
  using type = typename CountOf<A>::type;
};
inline I32 greater(VFloat a, VFloat b) { return a > b; }
inline I64 greater(VDouble a, VDouble b) { return a > b; }
inline I32 nonzero(VFloat v) { return v != 0; }
inline I64 nonzero(VDouble v) { return v != 0; }
template <class M, class V>
inline V keep(M m, V v) {
  return reinterpret_cast<V>(m & reinterpret_cast<M>(v));
}
template <class M, class V>
inline V add_where(M m, V sum, V v) {
  return sum + keep(m, v);
}
template <class M>
inline M count_where(M m, M count) {
  return count - m;
}
inline uint64_t bits_of(I32 m) {
#if defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(m)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(m)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<float>; ++i) bits |= static_cast<uint64_t>(m[i] & 1) << i;
  return bits;
#endif
}
inline uint64_t bits_of(I64 m) {
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<double>; ++i) bits |= static_cast<uint64_t>(m[i] & 1) << i;
  return bits;
}
template <class M>
inline void set_lane(M& m, int lane) {
  m[lane] = -1;
}
template <class M>
inline void clear_lane(M& m, int lane) {
  m[lane] = 0;
}
#endif
template <class T>
using Mask = typename MaskOf<Acc<T>>::type;

// ---- compression ----------------------------------------------------------------------------------

template <class I>
inline I lane_numbers() {
  I v = {};
  for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); ++i) v[i] = static_cast<int>(i);
  return v;
}

// Writes the lanes in `bits` without gaps and returns how many there are; a whole vector may be written.
template <class S, class V>
inline int compress(S* to, V v, uint64_t bits) {
  int n = 0;
  for (; bits; bits &= bits - 1) to[n++] = static_cast<S>(v[__builtin_ctzll(bits)]);
  return n;
}
#if defined(__AVX512F__)
inline int compress(int32_t* to, I32 v, uint64_t bits) {
  _mm512_storeu_si512(
      to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), reinterpret_cast<__m512i>(v)));
  return __builtin_popcountll(bits);
}
inline int compress(float* to, VFloat v, uint64_t bits) {
  return compress(reinterpret_cast<int32_t*>(to), reinterpret_cast<I32>(v), bits);
}
#elif defined(__AVX2__)
// The lanes of each set of eight, one a byte.
struct LaneTable {
  uint64_t lanes[256];
  constexpr LaneTable() : lanes() {
    for (int set = 0; set < 256; ++set) {
      int n = 0;
      for (int lane = 0; lane < 8; ++lane)
        if (set >> lane & 1) lanes[set] |= static_cast<uint64_t>(lane) << 8 * n++;
    }
  }
};
constexpr LaneTable kLaneTable;

inline int compress(int32_t* to, I32 v, uint64_t bits) {
  const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kLaneTable.lanes[bits])));
  store_vector(to, _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(v), lanes));
  return __builtin_popcountll(bits);
}
inline int compress(float* to, VFloat v, uint64_t bits) {
  return compress(reinterpret_cast<int32_t*>(to), reinterpret_cast<I32>(v), bits);
}
#endif

template <class I>
inline I load_features(const int32_t* p) {
  I v;
  for (unsigned i = 0; i < sizeof(v) / sizeof(v[0]); ++i) v[i] = p[i];
  return v;
}
template <>
inline I32 load_features(const int32_t* p) {
  return load_vector<I32>(p);
}

}  // namespace
