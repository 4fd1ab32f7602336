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

namespace {

constexpr int kVectorBytes = QSCORE_VECTOR_BYTES;

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
template <class T>
using Vec = typename VectorOf<Acc<T>>::type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Acc<T>));

typedef uint32_t U32 __attribute__((vector_size(kVectorBytes)));
typedef int32_t I32 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t U16 __attribute__((vector_size(kVectorBytes / 2)));

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

// ---- vector loads ---------------------------------------------------------------------------------

inline VectorOf<float>::type load(const float* p) {
  VectorOf<float>::type v;
  memcpy(&v, p, sizeof(v));
  return v;
}
inline VectorOf<double>::type load(const double* p) {
  VectorOf<double>::type v;
  memcpy(&v, p, sizeof(v));
  return v;
}
inline VectorOf<float>::type load(const BFloat16* p) {
  U16 v;
  memcpy(&v, p, sizeof(v));
  return reinterpret_cast<VectorOf<float>::type>(__builtin_convertvector(v, U32) << 16);
}
inline VectorOf<float>::type load(const Half* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<VectorOf<float>::type>(
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return reinterpret_cast<VectorOf<float>::type>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__aarch64__)
  return reinterpret_cast<VectorOf<float>::type>(
      vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)))));
#else
  VectorOf<float>::type v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = to_acc(p[i]);
  return v;
#endif
}

// The first n lanes from memory, the others `fill`: a tail goes through the same arithmetic as the body.
template <class T>
inline Vec<T> load_partial(const T* p, int64_t n, Acc<T> fill) {
  T buffer[kLanes<T>] = {};
  memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  Vec<T> v = load(buffer);
  for (int64_t i = n; i < kLanes<T>; ++i) v[i] = fill;
  return v;
}

// ---- vector stores --------------------------------------------------------------------------------

inline void store(float* p, VectorOf<float>::type v) { memcpy(p, &v, sizeof(v)); }
inline void store(double* p, VectorOf<double>::type v) { memcpy(p, &v, sizeof(v)); }
inline void store(BFloat16* p, VectorOf<float>::type v) {
  const U32 bits = reinterpret_cast<U32>(v);
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet_nan = (bits >> 16) | 0x40u;
  const U32 result = reinterpret_cast<I32>(v != v) != 0 ? quiet_nan : rounded;
  const U16 narrow = __builtin_convertvector(result, U16);
  memcpy(p, &narrow, sizeof(narrow));
}
inline void store(Half* p, VectorOf<float>::type v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(p),
      _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__aarch64__)
  vst1_u16(reinterpret_cast<uint16_t*>(p),
           vreinterpret_u16_f16(vcvt_f16_f32(reinterpret_cast<float32x4_t>(v))));
#else
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
    p[i].bits = static_cast<uint16_t>(sign | half);
  }
#endif
}

template <class T>
inline void store_partial(T* p, int64_t n, Vec<T> v) {
  T buffer[kLanes<T>];
  store(buffer, v);
  memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
}

// ---- arithmetic -----------------------------------------------------------------------------------

inline VectorOf<float>::type absolute(VectorOf<float>::type v) {
  return reinterpret_cast<VectorOf<float>::type>(reinterpret_cast<U32>(v) & 0x7fffffffu);
}
inline VectorOf<double>::type absolute(VectorOf<double>::type v) { return v < 0 ? -v : v; }

template <class A>
inline typename VectorOf<A>::type broadcast(A x) {
  return typename VectorOf<A>::type{} + x;
}

// +1, -1 or 0, and 0 for NaN.
template <class V>
inline V sign_of(V v) {
  const V zero = {};
  return (v > 0 ? zero + 1 : zero) - (v < 0 ? zero + 1 : zero);
}

// One bit a lane where a > b; false for NaN.
inline uint64_t greater_bits(VectorOf<float>::type a, VectorOf<float>::type b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(
      _mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_GT_OQ)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<float>; ++i) bits |= static_cast<uint64_t>(a[i] > b[i]) << i;
  return bits;
#endif
}
inline uint64_t greater_bits(VectorOf<double>::type a, VectorOf<double>::type b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_pd(
      _mm256_cmp_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b), _CMP_GT_OQ)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<double>; ++i) bits |= static_cast<uint64_t>(a[i] > b[i]) << i;
  return bits;
#endif
}

// The lanes are added in double, in order, so that a sum does not depend on anything but the target.
template <class V>
inline double sum_lanes(V v) {
  double total = 0;
  for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); ++i) total += static_cast<double>(v[i]);
  return total;
}

}  // namespace
