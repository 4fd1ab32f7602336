// Representations, scores and heat maps from the last feature maps. A sample is pooled, scored and combined
// before the next one, so that the few channels that are read again come out of the cache.
#pragma once

#include "score-inl.h"

namespace {

using namespace qscore;

template <class T>
struct Maps {
  const T* data;
  int64_t channels, positions, sample_stride, channel_stride, position_stride;

  explicit Maps(const ScoreMaps& a)
      : data(static_cast<const T*>(a.maps)),
        channels(a.channels),
        positions(a.positions),
        sample_stride(a.sample_stride),
        channel_stride(a.channel_stride),
        position_stride(a.position_stride) {}
  const T* operator[](int64_t i) const { return data + i * sample_stride; }
};

// ---- pooling --------------------------------------------------------------------------------------

// How the positions of a channel are cut into vectors: whole ones, and one that ends with the channel.
template <class T>
struct Plane {
  int64_t positions, full;
  int tail;
  Mask<T> tail_mask = {};

  explicit Plane(int64_t positions)
      : positions(positions), full(positions / kLanes<T>), tail(static_cast<int>(positions % kLanes<T>)) {
    for (int lane = kLanes<T> - tail; lane < kLanes<T>; ++lane) set_lane(tail_mask, lane);
  }
};

template <class T>
inline QSCORE_INLINE Vec<T> sum_positions(const T* row, const Plane<T>& plane) {
  Vec<T> a = {}, b = {}, c = {}, d = {};
  const T* p = row;
  int64_t left = plane.full;
  for (; left >= 4; left -= 4, p += 4 * kLanes<T>) {
    a += load(p);
    b += load(p + kLanes<T>);
    c += load(p + 2 * kLanes<T>);
    d += load(p + 3 * kLanes<T>);
  }
  if (left > 0) a += load(p);
  if (left > 1) b += load(p + kLanes<T>);
  if (left > 2) c += load(p + 2 * kLanes<T>);
  if (plane.tail) d += keep(plane.tail_mask, load(row + plane.positions - kLanes<T>));
  return (a + b) + (c + d);
}

// The same for fewer positions than a vector has lanes.
template <class T>
inline Vec<T> sum_few_positions(const T* row, const Plane<T>& plane) {
  T buffer[kLanes<T>] = {};
  for (int j = 0; j < plane.tail; ++j) buffer[j] = row[j];
  return load(buffer);
}

// The positions of a channel lie side by side.
template <class T>
inline void pool_planes(const T* sample, const Maps<T>& maps, const Plane<T>& plane, Acc<T>* h) {
  using A = Acc<T>;
  constexpr int kGroup = 4;  // channels whose lanes are summed at a time
  Vec<T> lanes[kGroup] = {};
  A sums[kGroup];
  for (int64_t c = 0; c < maps.channels; c += kGroup) {
    const int64_t n = maps.channels - c < kGroup ? maps.channels - c : kGroup;
    const T* channel = sample + c * maps.channel_stride;
    for (int64_t g = 0; g < n; ++g, channel += maps.channel_stride)
      lanes[g] = plane.full ? sum_positions(channel, plane) : sum_few_positions(channel, plane);
    sum_rows(lanes, n, sums);
    for (int64_t g = 0; g < n; ++g) h[c + g] = sums[g] / static_cast<A>(maps.positions);
  }
}

// Adds kRows positions to the channels [begin, end) of h, each position's channels side by side.
template <int kRows, class T>
inline QSCORE_INLINE void add_pixels(const T* pixel, int64_t stride, int64_t begin, int64_t end, Acc<T>* h) {
  int64_t c = begin;
  for (; c + kLanes<T> <= end; c += kLanes<T>) {
    Vec<T> sum = load(pixel + c);
#pragma GCC unroll 4
    for (int k = 1; k < kRows; ++k) sum += load(pixel + k * stride + c);
    store(h + c, load(h + c) + sum);
  }
  for (; c < end; ++c)
    for (int k = 0; k < kRows; ++k) h[c] += to_acc(pixel[k * stride + c]);
}

template <class T>
inline void pool_pixels(const T* sample, const Maps<T>& maps, Acc<T>* h) {
  using A = Acc<T>;
  constexpr int kRows = 4;
  const int64_t stride = maps.position_stride;
  memset(h, 0, static_cast<size_t>(maps.channels) * sizeof(A));
  int64_t p = 0;
  for (; p + kRows <= maps.positions; p += kRows)
    add_pixels<kRows>(sample + p * stride, stride, 0, maps.channels, h);
  for (; p < maps.positions; ++p) add_pixels<1>(sample + p * stride, stride, 0, maps.channels, h);
  for (int64_t c = 0; c < maps.channels; ++c) h[c] /= static_cast<A>(maps.positions);
}

// ---- the heat map ---------------------------------------------------------------------------------

// One value more for one position; NaN wins.
template <class A>
inline A combined(A total, A x, bool rectify, bool largest) {
  if (rectify && x < 0) x = 0;
  if (!largest) return total + x;
  return x > total || isnan(x) ? x : total;
}

// Combines the n channels of `feature` of one sample into heat, the positions.
template <class T>
inline void combine_channels(const T* sample, const Maps<T>& maps, const int32_t* feature, const Acc<T>* sign,
                             int64_t n, int combination, bool rectify, Acc<T>* heat) {
  using A = Acc<T>;
  const bool largest = combination == kMaxOfChannels;
  for (int64_t p = 0; p < maps.positions; ++p) heat[p] = largest && n ? -static_cast<A>(INFINITY) : A(0);
  const auto add = [&](int64_t k, int64_t p) QSCORE_INLINE {
    const A x = sign[k] * to_acc(sample[feature[k] * maps.channel_stride + p * maps.position_stride]);
    heat[p] = combined(heat[p], x, rectify, largest);
  };
  if (maps.position_stride == 1) {
    for (int64_t k = 0; k < n; ++k)
      for (int64_t p = 0; p < maps.positions; ++p) add(k, p);
  } else {
    for (int64_t p = 0; p < maps.positions; ++p)
      for (int64_t k = 0; k < n; ++k) add(k, p);
  }
  if (combination == kMeanOfChannels && n)
    for (int64_t p = 0; p < maps.positions; ++p) heat[p] /= static_cast<A>(n);
}

// ---- all of it ------------------------------------------------------------------------------------

template <bool kTwoSided, class T>
inline void score_and_combine(const ScoreMaps& a, int64_t begin, int64_t end, void* scratch) {
  using A = Acc<T>;
  const Maps<T> maps(a);
  const int64_t r = a.channels;
  const Plane<T> plane(a.positions);
  const Layout<A> row(r);
  A* h = static_cast<A*>(a.h);
  A* q = static_cast<A*>(a.q);
  const A* saved = static_cast<const A*>(a.saved);
  const QScoreForward score{{h, a.samples, r, r}, a.arranged_mask, a.activation, q, a.saved};
  A* value = static_cast<A*>(scratch);
  int32_t* feature = reinterpret_cast<int32_t*>(value + r + 64);
  for (int64_t i = begin; i < end; ++i) {
    const T* sample = maps[i];
    A* own = h + i * r;
    if (a.position_stride == 1 && a.positions > 1)
      pool_planes(sample, maps, plane, own);
    else
      pool_pixels(sample, maps, own);
    score_all<false>(score, row, i, i + 1, static_cast<A*>(nullptr));
    const A low = kTwoSided ? saved[3 * a.samples + i] : A(0);
    const Thresholds<A> thresholds = {saved[i], low};
    const int64_t listed =
        collect_active<kTwoSided>(own, r, thresholds, reinterpret_cast<const char*>(own), feature, value);
    int64_t n = 0;
    for (int64_t k = 0; k < listed; ++k) {
      if (a.mask && !a.mask[feature[k]]) continue;
      feature[n] = feature[k];
      value[n] = kTwoSided && value[k] < low ? A(-1) : A(1);
      ++n;
    }
    a.num_active[i] = static_cast<int32_t>(n);
    A* heat = static_cast<A*>(a.heat) + i * a.positions;
    combine_channels(sample, maps, feature, value, n, a.combination, a.rectify, heat);
    if (isnan(q[i]))
      for (int64_t p = 0; p < a.positions; ++p) heat[p] = q[i];
  }
}

template <class T>
void score_maps(const ScoreMaps& a, int64_t begin, int64_t end, void* scratch) {
  a.activation.two_sided ? score_and_combine<true, T>(a, begin, end, scratch)
                         : score_and_combine<false, T>(a, begin, end, scratch);
}

}  // namespace
