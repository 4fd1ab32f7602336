// Scores and counts from stored entries of L, for Python. An entry is a feature and (h - mu) / ||h||; times its
// row's ||h|| / sigma that is its z. Nothing here is worth vectors: every entry reads or writes where its feature
// says. Sums run in the order of the entries, so that every machine rounds them alike.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bindings.h"

namespace nb = nanobind;

namespace qscore {
namespace {

struct StoredRows {
  const int32_t* lengths;  // (N,)
  int64_t rows;            // N
  const float* value;      // (nnz,)
  const double* scale;     // (N,): ||h|| / sigma
  double least;            // no z is below it: what is stored was active, whatever the rounding of value says
};

// visit(row, entry, distance, z) for every entry, and end(row) after each row's last.
template <class Visit, class End>
void for_entries(const StoredRows& a, Visit visit, End end) {
  int64_t entry = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    for (const int64_t last = entry + a.lengths[row]; entry < last; ++entry) {
      const double distance = std::fabs(static_cast<double>(a.value[entry]));
      const double z = a.scale[row] * distance;
      visit(row, entry, distance, z < a.least ? a.least : z);
    }
    end(row);
  }
}

// How many of the ascending thresholds lie strictly below a z. Where z falls is a guess for a branch, so the
// search has none: the thresholds are filled up to one less than a power of two.
class Levels {
 public:
  Levels(const double* thresholds, int64_t count) {
    while (step_ <= count / 2) step_ *= 2;
    filled_.assign(static_cast<size_t>(2 * step_ - 1), static_cast<double>(INFINITY));
    std::copy_n(thresholds, count, filled_.begin());
  }
  int64_t of(double z) const {
    int64_t level = 0;
    for (int64_t step = step_; step; step /= 2) level += filled_[level + step - 1] < z ? step : 0;
    return level;
  }

 private:
  int64_t step_ = 1;
  std::vector<double> filled_;
};

template <class Feature>
void score(const StoredRows& a, const Feature* feature, const uint8_t* mask /* 0 or 1 */, double eps, float* q,
           int32_t* num_active, int32_t* num_highly_active) {
  double total = 0;
  int32_t active = 0, highly_active = 0;
  const auto visit = [&](int64_t, int64_t entry, double distance, double z) {
    const int32_t above = z > eps, counts = above & mask[feature[entry]];  // no branch: half of them would miss
    highly_active += above;
    active += counts;
    total += distance * counts;
  };
  for_entries(a, visit, [&](int64_t row) {
    q[row] = active ? static_cast<float>(total / active) : 0.0f;
    num_active[row] = active;
    num_highly_active[row] = highly_active;
    total = 0;
    active = highly_active = 0;
  });
}

template <class Feature>
void count(const StoredRows& a, const Feature* feature, const Levels& levels, int64_t num_features,
           int64_t* counts) {
  const auto visit = [&](int64_t, int64_t entry, double, double z) {
    ++counts[levels.of(z) * num_features + feature[entry]];
  };
  for_entries(a, visit, [](int64_t) {});
}

template <class Feature>
void fill(const StoredRows& a, const Feature* feature, const Levels& levels, const uint64_t* in_masks,
          uint64_t* filled) {
  uint64_t word = 0;
  const auto visit = [&](int64_t, int64_t entry, double, double z) {
    const int64_t level = levels.of(z);
    const uint64_t below = level < 64 ? (uint64_t{1} << level) - 1 : ~uint64_t{0};
    word |= in_masks[feature[entry]] & below;
  };
  for_entries(a, visit, [&](int64_t row) {
    filled[row] = word;
    word = 0;
  });
}

// Features are stored in two bytes where the encoder's have room in them, in four otherwise.
template <class Function>
void with_features(Address feature, bool narrow, Function function) {
  if (narrow)
    function(at<const uint16_t>(feature));
  else
    function(at<const uint32_t>(feature));
}

void score_entries(Address lengths, int64_t rows, Address value, Address scale, double least, Address feature,
                   bool narrow, Address mask, double eps, Address q, Address num_active,
                   Address num_highly_active) {
  const StoredRows a{at<int32_t>(lengths), rows, at<float>(value), at<double>(scale), least};
  with_features(feature, narrow, [&](auto* features) {
    score(a, features, at<uint8_t>(mask), eps, at<float>(q), at<int32_t>(num_active),
          at<int32_t>(num_highly_active));
  });
}

void count_entries(Address lengths, int64_t rows, Address value, Address scale, double least, Address feature,
                   bool narrow, Address thresholds, int64_t num_thresholds, int64_t num_features,
                   Address counts) {
  const StoredRows a{at<int32_t>(lengths), rows, at<float>(value), at<double>(scale), least};
  const Levels levels(at<double>(thresholds), num_thresholds);
  with_features(feature, narrow, [&](auto* features) {
    count(a, features, levels, num_features, at<int64_t>(counts));
  });
}

void fill_levels(Address lengths, int64_t rows, Address value, Address scale, double least, Address feature,
                 bool narrow, Address thresholds, int64_t num_thresholds, Address in_masks, Address filled) {
  const StoredRows a{at<int32_t>(lengths), rows, at<float>(value), at<double>(scale), least};
  const Levels levels(at<double>(thresholds), num_thresholds);
  with_features(feature, narrow, [&](auto* features) {
    fill(a, features, levels, at<uint64_t>(in_masks), at<uint64_t>(filled));
  });
}

}  // namespace

void bind_stored_entries(nb::module_& m) {
  using Unlocked = nb::call_guard<nb::gil_scoped_release>;
  m.def("score_entries", &score_entries, Unlocked());
  m.def("count_entries", &count_entries, Unlocked());
  m.def("fill_levels", &fill_levels, Unlocked());
}

}  // namespace qscore
