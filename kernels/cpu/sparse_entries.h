// The entries that the sparse kernels find: how many is known only at the end.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace qscore {

class SparseEntries {
 public:
  explicit SparseEntries(int dtype) : value_size_(dtype == kFloat64 ? sizeof(double) : sizeof(float)) {}
  ~SparseEntries() {
    std::free(feature_);
    std::free(value_);
  }
  SparseEntries(const SparseEntries&) = delete;
  SparseEntries& operator=(const SparseEntries&) = delete;

  int64_t size() const { return size_; }
  bool doubles() const { return value_size_ == sizeof(double); }
  int32_t* release_feature() { return static_cast<int32_t*>(std::exchange(feature_, nullptr)); }
  void* release_value() { return std::exchange(value_, nullptr); }

  // Runs find(worker, begin, end, entries) over all rows. A block of them at a time, so that what a worker
  // found is still in its cache when it is moved to its place behind the rows before.
  template <class F>
  void collect(const Matrix& h, int workers, F find) {
    std::vector<Entries> parts(workers);
    const Buffers buffers{parts};
    const int64_t fit = workers * kElementsPerBlock / h.features;
    const int64_t block = fit < workers ? workers : fit;
    for (int64_t begin = 0; begin < h.rows; begin += block) {
      const int64_t rows = begin + block < h.rows ? block : h.rows - begin;
      auto work = [&](int w) {
        parts[w].size = 0;
        find(w, begin + rows * w / workers, begin + rows * (w + 1) / workers, &parts[w]);
      };
      run_workers(workers, work);
      if (workers == 1 && rows == h.rows) return take(parts[0]);
      append(parts, static_cast<double>(h.rows) / static_cast<double>(begin + rows));
    }
    reallocate(size_);
  }

 private:
  static constexpr int64_t kElementsPerBlock = 1 << 20;

  // Frees what the workers grew.
  struct Buffers {
    std::vector<Entries>& parts;
    ~Buffers() {
      for (auto& part : parts) {
        std::free(part.feature);
        std::free(part.value);
      }
    }
  };

  void take(Entries& part) {
    if (part.failed) throw std::bad_alloc();
    feature_ = std::exchange(part.feature, nullptr);
    value_ = std::exchange(part.value, nullptr);
    size_ = part.size;
    reallocate(size_);
  }

  // `rest`: how many times the rows so far all rows are. Memory that is touched once should not move.
  void append(const std::vector<Entries>& parts, double rest) {
    std::vector<int64_t> place{size_};
    for (const auto& part : parts) {
      if (part.failed) throw std::bad_alloc();
      place.push_back(place.back() + part.size);
    }
    if (place.back() > capacity_)
      reallocate(static_cast<int64_t>(1.125 * rest * static_cast<double>(place.back())) + 1);
    auto move = [&](int w) {
      if (!parts[w].size) return;
      const size_t n = static_cast<size_t>(parts[w].size), at = static_cast<size_t>(place[w]);
      std::memcpy(static_cast<int32_t*>(feature_) + at, parts[w].feature, n * sizeof(int32_t));
      std::memcpy(static_cast<char*>(value_) + at * value_size_, parts[w].value, n * value_size_);
    };
    run_workers(static_cast<int>(parts.size()), move);
    size_ = place.back();
  }

  void reallocate(int64_t capacity) {
    resize(feature_, capacity * static_cast<int64_t>(sizeof(int32_t)));
    resize(value_, capacity * static_cast<int64_t>(value_size_));
    capacity_ = capacity;
  }
  static void resize(void*& memory, int64_t bytes) {
    void* moved = std::realloc(memory, static_cast<size_t>(bytes ? bytes : 1));
    if (!moved) throw std::bad_alloc();
    memory = moved;
    prefer_huge_pages(memory, bytes);
  }

  void* feature_ = nullptr;
  void* value_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
  size_t value_size_;
};

}  // namespace qscore
