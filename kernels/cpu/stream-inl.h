// The limits that the kernels are measured against: merely reading a matrix, and copying it.
#pragma once

#include "kernels.h"
#include "simd-inl.h"

namespace {

// Combines all bytes of the rows, so that every one of them must arrive.
template <class T>
void stream_read(const qscore::Matrix& h, int64_t begin, int64_t end, uint64_t* combined) {
  constexpr int kVectors = 8;
  const int64_t row_bytes = h.features * static_cast<int64_t>(sizeof(T));
  const bool dense = h.row_stride == h.features;
  const int64_t pieces = dense ? 1 : end - begin, piece_bytes = dense ? (end - begin) * row_bytes : row_bytes;
  I64 sums[kVectors] = {};
  for (int64_t i = 0; i < pieces; ++i) {
    const char* p =
        static_cast<const char*>(h.data) + (begin + i) * h.row_stride * static_cast<int64_t>(sizeof(T));
    int64_t k = 0;
    for (; k + kVectors * kVectorBytes <= piece_bytes; k += kVectors * kVectorBytes) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        if (u * kVectorBytes % kLineBytes == 0) prefetch(p + k + u * kVectorBytes + 4096);
        sums[u] ^= load_vector<I64>(p + k + u * kVectorBytes);
      }
    }
    for (; k < piece_bytes; ++k) sums[0][0] ^= static_cast<unsigned char>(p[k]);
  }
  for (int u = 0; u < kVectors; ++u)
    for (int lane = 0; lane < kLanes<double>; ++lane) *combined ^= static_cast<uint64_t>(sums[u][lane]);
}

// Past the caches where the target is aligned. `to` is like h, contiguous.
template <class T>
void stream_copy(const qscore::Matrix& h, void* to, int64_t begin, int64_t end) {
  const int64_t row_bytes = h.features * static_cast<int64_t>(sizeof(T));
  for (int64_t i = begin; i < end; ++i) {
    const char* p = static_cast<const char*>(h.data) + i * h.row_stride * static_cast<int64_t>(sizeof(T));
    char* out = static_cast<char*>(to) + i * row_bytes;
    int64_t k = 0;
    if (reinterpret_cast<uintptr_t>(out) % kVectorBytes == 0)
      for (; k + 4 * kVectorBytes <= row_bytes; k += 4 * kVectorBytes) {
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) {
          if (u * kVectorBytes % kLineBytes == 0) prefetch(p + k + u * kVectorBytes + 4096);
          stream_vector(out + k + u * kVectorBytes, load_vector<Bytes>(p + k + u * kVectorBytes));
        }
      }
    memcpy(out + k, p + k, static_cast<size_t>(row_bytes - k));
  }
  stream_fence();
}

}  // namespace
