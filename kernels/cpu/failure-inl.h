// Metrics of failure prediction on resamples of ranked samples. A resample is walked once, from the highest
// score down: its blocks of equal scores in tiles that stay in the first cache, all sums in one go.
#pragma once

#include "kernels.h"
#include "simd-inl.h"

namespace {

using namespace qscore;

constexpr int kTile = 512;  // blocks

// Whole numbers as double: vectors of them add, multiply and divide.
struct BlockTile {
  double correct[kTile], wrong[kTile];   // of this block
  double size[kTile];                    // their sum, 1 where the tile is filled up
  double errors[kTile], covered[kTile];  // wrong, and all, in this block and all before it
  double below[kTile];                   // all in this block and all after it
  double steps[kTile];                   // 1 / k, summed over the ranks k of this block
  double risk[kTile];                    // errors / covered
};

// Sums over the blocks of a resample; see qscore_fast/evaluation/failure.
struct BlockSums {
  VDouble pairs = {};        // of a wrong sample below a correct one, ties half
  VDouble success = {};      // of the precision, at every correct sample
  VDouble error = {};        // the same of wrong ones, from the lowest score up
  VDouble risks = {};        // over the ranks, less the number of wrong samples
  VDouble generalised = {};  // of wrong samples among the most trusted, over the ranks
};

inline QSCORE_INLINE void add_tile(BlockTile& tile, int count, double num_wrong, BlockSums& sums) {
  constexpr int kStep = kLanes<double>;
  for (int i = 0; i < count; i += kStep) {
    const VDouble c = load(tile.correct + i), w = load(tile.wrong + i), s = load(tile.size + i);
    const VDouble errors = load(tile.errors + i), covered = load(tile.covered + i);
    const VDouble risk = errors / covered;
    store(tile.risk + i, risk);
    sums.pairs += w * (covered - errors - c * 0.5);
    sums.success += c - c * risk;
    sums.error += w * (num_wrong - errors + w) / load(tile.below + i);
    // Within a block the errors grow evenly: E(k) / k = b + (E - b K) / k with b its share of wrong ones.
    sums.risks += (errors - w - w / s * (covered - s)) * load(tile.steps + i);
    sums.generalised += (c + w) * (errors - w * 0.5);
  }
}

// What one metric with a threshold looks for while the blocks pass by, and -1 until it is found.
struct Threshold {
  double wanted;  // correct samples, or samples, or a risk
  double found;
};
static_assert(sizeof(Threshold) == kThresholdBytes, "the scratch is made for it");

// The fewest correct samples of num_correct whose share is not below `share`, as a division sees it.
inline double fewest_correct(double share, double num_correct) {
  double k = static_cast<double>(static_cast<int64_t>(share * num_correct));
  while (k > 0 && (k - 1) / num_correct >= share) k -= 1;
  while (k < num_correct && k / num_correct < share) k += 1;
  return k;
}

inline double first_samples(double coverage, double n) {
  const double k = ceil(n * coverage - 1e-9);
  return k < 1 ? 1 : k;
}

inline void look_for(int metric, const BlockTile& tile, int count, Threshold& t) {
  if (metric == kCoverageAtRisk) {
    for (int i = 0; i < count; ++i)
      if (tile.risk[i] <= t.wanted) t.found = tile.covered[i];
    return;
  }
  if (t.found >= 0) return;
  if (metric == kFprAtTpr) {
    if (tile.covered[count - 1] - tile.errors[count - 1] < t.wanted) return;
    int i = 0;
    while (tile.covered[i] - tile.errors[i] < t.wanted) ++i;
    t.found = tile.errors[i];
  } else if (metric == kSelectiveAccuracy) {
    if (tile.covered[count - 1] < t.wanted) return;
    int i = 0;
    while (tile.covered[i] < t.wanted) ++i;
    const double wrong = tile.errors[i] - (tile.covered[i] - t.wanted) * tile.wrong[i] / tile.size[i];
    t.found = 1 - wrong / t.wanted;
  }
}

// Samples, and wrong ones, of the blocks that are not empty; the number of these blocks.
inline int64_t count_blocks(const ResampledMetrics& a, const int64_t* weights, int32_t* size, int32_t* wrong,
                            int64_t* num_wrong) {
  int64_t filled = 0, errors = 0;
  const auto append = [&](int64_t s, int64_t w) {
    size[filled] = static_cast<int32_t>(s);
    wrong[filled] = static_cast<int32_t>(w);
    errors += w;
    filled += s != 0;  // a third of the samples is not drawn: a branch would be a guess
  };
  if (a.blocks == a.samples) {
    for (int64_t i = 0; i < a.samples; ++i) {
      const int64_t times = weights[a.order[i]];
      append(times, times * a.wrong[i]);
    }
  } else {
    for (int64_t b = 0; b < a.blocks; ++b) {
      const int64_t end = b + 1 < a.blocks ? a.starts[b + 1] : a.samples;
      int64_t s = 0, w = 0;
      for (int64_t i = a.starts[b]; i < end; ++i) {
        const int64_t times = weights[a.order[i]];
        s += times;
        w += times * a.wrong[i];
      }
      append(s, w);
    }
  }
  *num_wrong = errors;
  return filled;
}

inline double value_of(int metric, const BlockSums& sums, const Threshold& t, double n, double num_wrong) {
  const double num_correct = n - num_wrong, none = static_cast<double>(NAN);
  const double risks = (num_wrong + sum_lanes(sums.risks)) / n, accuracy = num_correct / n;
  switch (metric) {
    case kAuroc:
      return num_correct && num_wrong ? sum_lanes(sums.pairs) / (num_correct * num_wrong) : none;
    case kAuprcSuccess:
      return num_correct ? sum_lanes(sums.success) / num_correct : none;
    case kAuprcError:
      return num_wrong ? sum_lanes(sums.error) / num_wrong : none;
    case kFprAtTpr:
      return num_correct && num_wrong ? t.found / num_wrong : none;
    case kAurc:
      return risks;
    case kExcessAurc:
      return risks - (1 - accuracy + (accuracy > 0 ? accuracy * log(accuracy) : 0));
    case kAugrc:
      return sum_lanes(sums.generalised) / (n * n);
    case kSelectiveAccuracy:
      return t.found;
    default:
      return t.found > 0 ? t.found / n : none;
  }
}

void resampled_metrics(const ResampledMetrics& a, int64_t begin, int64_t end, void* scratch) {
  Threshold* thresholds = static_cast<Threshold*>(scratch);
  int32_t* size = reinterpret_cast<int32_t*>(thresholds + a.num_metrics);
  int32_t* wrong = size + a.blocks;
  const double n = static_cast<double>(a.samples);
  BlockTile tile;
  for (int64_t row = begin; row < end; ++row) {
    int64_t counted = 0;
    const int64_t blocks = count_blocks(a, a.weights + row * a.samples, size, wrong, &counted);
    const double num_wrong = static_cast<double>(counted), num_correct = n - num_wrong;
    for (int m = 0; m < a.num_metrics; ++m) {
      const double p = a.parameters[m];
      thresholds[m].found = -1;
      thresholds[m].wanted = a.metrics[m] == kFprAtTpr            ? fewest_correct(p, num_correct)
                             : a.metrics[m] == kSelectiveAccuracy ? first_samples(p, n)
                                                                  : p;
    }
    BlockSums sums;
    int64_t errors = 0, covered = 0;
    double harmonic = 0;
    for (int64_t first = 0; first < blocks; first += kTile) {
      const int count = static_cast<int>(blocks - first < kTile ? blocks - first : kTile);
      for (int i = 0; i < count; ++i) {
        const int32_t s = size[first + i], w = wrong[first + i];
        tile.below[i] = static_cast<double>(a.samples - covered);
        errors += w;
        covered += s;
        tile.correct[i] = s - w;
        tile.wrong[i] = w;
        tile.size[i] = s;
        tile.errors[i] = static_cast<double>(errors);
        tile.covered[i] = static_cast<double>(covered);
        tile.steps[i] = a.harmonic[covered] - harmonic;
        harmonic = a.harmonic[covered];
      }
      for (int i = count; i % kLanes<double> != 0; ++i) {
        tile.correct[i] = tile.wrong[i] = tile.steps[i] = 0;
        tile.size[i] = tile.errors[i] = tile.covered[i] = tile.below[i] = 1;
      }
      add_tile(tile, count, num_wrong, sums);
      for (int m = 0; m < a.num_metrics; ++m) look_for(a.metrics[m], tile, count, thresholds[m]);
    }
    for (int m = 0; m < a.num_metrics; ++m)
      a.values[row * a.num_metrics + m] = value_of(a.metrics[m], sums, thresholds[m], n, num_wrong);
  }
}

}  // namespace
