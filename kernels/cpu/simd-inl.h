// One vector register and the few operations that the kernels need, for the instruction set that this
// translation unit is compiled for. Included once per target; see CMakeLists.txt.
//
// Only C headers and internal linkage here: an inline function of the standard library that is compiled
// with AVX-512 could otherwise be the copy that the linker keeps for every machine.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// A body that is called and not inlined would keep its sums in memory.
#define QSCORE_INLINE __attribute__((always_inline))

namespace {

constexpr int kVectorBytes = QSCORE_VECTOR_BYTES;
constexpr int kLineBytes = 64;

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Acc = typename AccumulatorOf<T>::type;

template <class A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kVectorBytes)));
};
using VFloat = VectorOf<float>::type;
using VDouble = VectorOf<double>::type;
template <class T>
using Vec = typename VectorOf<Acc<T>>::type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Acc<T>));

typedef uint32_t U32 __attribute__((vector_size(kVectorBytes)));
typedef int32_t I32 __attribute__((vector_size(kVectorBytes)));
typedef int64_t I64 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t U16 __attribute__((vector_size(kVectorBytes / 2)));
typedef unsigned char Bytes __attribute__((vector_size(kVectorBytes)));

// Lanes are counted in integers of their own width.
template <class A>
struct CountOf {
  using type = I32;
};
template <>
struct CountOf<double> {
  using type = I64;
};
template <class T>
using Count = typename CountOf<Acc<T>>::type;

// ---- scalar conversions ---------------------------------------------------------------------------

inline float to_acc(float x) { return x; }
inline double to_acc(double x) { return x; }
inline float to_acc(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  memcpy(&y, &bits, sizeof(y));
  return y;
}
inline float to_acc(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#elif defined(__aarch64__)
  __fp16 y;
  memcpy(&y, &x.bits, sizeof(y));
  return y;
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  float y;
  if (magnitude >= 0x7c00u) {
    const uint32_t bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
    memcpy(&y, &bits, sizeof(y));
    return y;
  }
  // A float with the half's exponent and mantissa is the value times 2^-112, subnormals included.
  const uint32_t bits = magnitude << 13;
  memcpy(&y, &bits, sizeof(y));
  y *= 0x1p112f;
  return sign ? -y : y;
#endif
}

// ---- vector loads and stores ----------------------------------------------------------------------

template <class V>
inline V load_vector(const void* p) {
  V v;
  memcpy(&v, p, sizeof(v));
  return v;
}
template <class V>
inline void store_vector(void* p, V v) {
  memcpy(p, &v, sizeof(v));
}

inline VFloat load(const float* p) { return load_vector<VFloat>(p); }
inline VDouble load(const double* p) { return load_vector<VDouble>(p); }
inline VFloat load(const BFloat16* p) {
#if defined(__AVX512F__)
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return reinterpret_cast<VFloat>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
#elif defined(__AVX2__)
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<VFloat>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
#else
  return reinterpret_cast<VFloat>(__builtin_convertvector(load_vector<U16>(p), U32) << 16);
#endif
}
inline VFloat load(const Half* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<VFloat>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return reinterpret_cast<VFloat>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__aarch64__)
  return reinterpret_cast<VFloat>(
      vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)))));
#else
  VectorOf<float>::type v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = to_acc(p[i]);
  return v;
#endif
}

inline void store(float* p, VFloat v) { store_vector(p, v); }
inline void store(double* p, VDouble v) { store_vector(p, v); }
inline U16 to_half(VFloat v) {
#if defined(__AVX512F__)
  return reinterpret_cast<U16>(
      _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  return reinterpret_cast<U16>(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__aarch64__)
  return reinterpret_cast<U16>(vcvt_f16_f32(reinterpret_cast<float32x4_t>(v)));
#else
  U16 result;
  for (int i = 0; i < kLanes<float>; ++i) {
    uint32_t bits;
    const float x = v[i];
    memcpy(&bits, &x, sizeof(bits));
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
      half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: the sum's mantissa is the subnormal
      float y;
      memcpy(&y, &magnitude, sizeof(y));
      y += 0.5f;
      uint32_t sum;
      memcpy(&sum, &y, sizeof(sum));
      half = sum - 0x3f000000u;
    } else {
      half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    }
    result[i] = static_cast<uint16_t>(sign | half);
  }
  return result;
#endif
}

// ---- arithmetic -----------------------------------------------------------------------------------

inline VFloat absolute(VFloat v) { return reinterpret_cast<VFloat>(reinterpret_cast<U32>(v) & 0x7fffffffu); }
inline VDouble absolute(VDouble v) { return v < 0 ? -v : v; }

// `v` with its sign turned where `sign` is negative.
inline VFloat times_sign(VFloat v, VFloat sign) {
  return reinterpret_cast<VFloat>(reinterpret_cast<U32>(v) ^ (reinterpret_cast<U32>(sign) & 0x80000000u));
}
inline VDouble times_sign(VDouble v, VDouble sign) { return sign < 0 ? -v : v; }

template <class A>
inline typename VectorOf<A>::type broadcast(A x) {
  return x - typename VectorOf<A>::type{};  // not + 0, which is an addition: it turns -0
}

// The lanes' sum in double, pairwise: it depends on nothing but the target.
inline double sum_lanes(VFloat v) {
#if defined(__AVX512F__)
  const __m512 x = reinterpret_cast<__m512>(v);
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
  return _mm512_reduce_add_pd(
      _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(high)));
#elif defined(__AVX2__)
  const __m256 x = reinterpret_cast<__m256>(v);
  const __m256d four =
      _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
#else
  return (static_cast<double>(v[0]) + v[1]) + (static_cast<double>(v[2]) + v[3]);
#endif
}
template <class V>
inline double sum_lanes(V v) {
  constexpr int kCount = static_cast<int>(sizeof(V) / sizeof(v[0]));
  double lanes[kCount];
  for (int i = 0; i < kCount; ++i) lanes[i] = static_cast<double>(v[i]);
  for (int half = kCount / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}
// The sums of the lanes of n vectors, four vectors at a time where shuffles can do it, in the lanes' own
// precision. `v` and `to` are as long as the next multiple of four.
#if defined(__SSE2__)
inline __m128 fold(__m128 x) { return x; }
#if defined(__AVX2__)
inline __m128 fold(__m256 x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
#endif
#if defined(__AVX512F__)
inline __m128 fold(__m512 x) {
  return fold(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
}
#define QSCORE_SHUFFLE(name, ...) _mm512_##name(__VA_ARGS__)
#elif defined(__AVX2__)
#define QSCORE_SHUFFLE(name, ...) _mm256_##name(__VA_ARGS__)
#else
#define QSCORE_SHUFFLE(name, ...) _mm_##name(__VA_ARGS__)
#endif
inline __m128 sum_four(const VFloat* v) {
  using M = decltype(QSCORE_SHUFFLE(setzero_ps));
  const M a = (M)v[0], b = (M)v[1], c = (M)v[2], d = (M)v[3];
  const M ab = QSCORE_SHUFFLE(unpacklo_ps, a, b) + QSCORE_SHUFFLE(unpackhi_ps, a, b);
  const M cd = QSCORE_SHUFFLE(unpacklo_ps, c, d) + QSCORE_SHUFFLE(unpackhi_ps, c, d);
  return fold(QSCORE_SHUFFLE(shuffle_ps, ab, cd, 0x44) + QSCORE_SHUFFLE(shuffle_ps, ab, cd, 0xee));
}
inline void sum_rows(const VFloat* v, int64_t n, float* to) {
  for (int64_t g = 0; g < n; g += 4) _mm_storeu_ps(to + g, sum_four(v + g));
}
inline void sum_rows(const VFloat* v, int64_t n, double* to) {
  for (int64_t g = 0; g < n; g += 4) {
    const __m128 four = sum_four(v + g);
    _mm_storeu_pd(to + g, _mm_cvtps_pd(four));
    _mm_storeu_pd(to + g + 2, _mm_cvtps_pd(_mm_movehl_ps(four, four)));
  }
}
#undef QSCORE_SHUFFLE
#endif
template <class V, class S>
inline void sum_rows(const V* v, int64_t n, S* to) {
  for (int64_t g = 0; g < n; ++g) to[g] = static_cast<S>(sum_lanes(v[g]));
}

inline float root(float x) { return sqrtf(x); }
inline double root(double x) { return sqrt(x); }

// ---- memory ---------------------------------------------------------------------------------------

inline void prefetch(const char* p) { __builtin_prefetch(p); }

// Past the caches; `p` is aligned to the vector. Needs a fence before another thread may read it.
inline void stream_vector(char* p, Bytes v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
  store_vector(p, v);
#endif
}
inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace
