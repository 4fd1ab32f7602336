// Where a gradient goes: through the caches, or past them where it is too large to stay there anyway. A
// store that misses the caches would read the line first, half as much traffic again.
#pragma once

#include "simd-inl.h"

namespace {

struct CachedWriter {
  char* to;

  void put(Bytes v) {
    store_vector(to, v);
    to += kVectorBytes;
  }
  void put_bytes(const char* p, int n) {
    memcpy(to, p, static_cast<size_t>(n));
    to += n;
  }
};

// For rows that begin and end at a vector's boundary.
struct StreamWriter {
  char* to;

  explicit StreamWriter(char* to) : to(to) {}
  ~StreamWriter() { stream_fence(); }
  void put(Bytes v) {
    stream_vector(to, v);
    to += kVectorBytes;
  }
  void put_bytes(const char* p, int n) {
    memcpy(to, p, static_cast<size_t>(n));
    to += n;
  }
};

// For rows that begin anywhere: collects consecutive bytes and streams whole cache lines of them.
class LineWriter {
 public:
  explicit LineWriter(char* to) : to_(to) {
    // The buffer keeps the alignment of the target, so that a line there is a line here.
    begin_ = end_ = static_cast<int>(reinterpret_cast<uintptr_t>(to) % kLineBytes);
    to_ -= begin_;
  }
  ~LineWriter() {
    flush();
    memcpy(to_ + begin_, buffer_ + begin_, static_cast<size_t>(end_ - begin_));
    stream_fence();
  }
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  void put(Bytes v) {
    store_vector(buffer_ + end_, v);
    end_ += kVectorBytes;
    if (end_ >= kCapacity) flush();
  }
  void put_bytes(const char* p, int n) {
    memcpy(buffer_ + end_, p, static_cast<size_t>(n));
    end_ += n;
    if (end_ >= kCapacity) flush();
  }

 private:
  static constexpr int kCapacity = 4096;

  void flush() {
    if (end_ < kLineBytes) return;
    int line = 0;
    if (begin_) {  // another row's bytes share the first line
      memcpy(to_ + begin_, buffer_ + begin_, static_cast<size_t>(kLineBytes - begin_));
      begin_ = 0;
      line = kLineBytes;
    }
    const int whole = end_ / kLineBytes * kLineBytes;
    for (; line < whole; line += kVectorBytes) stream_vector(to_ + line, load_vector<Bytes>(buffer_ + line));
    memcpy(buffer_, buffer_ + whole, kLineBytes);
    to_ += whole;
    end_ -= whole;
  }

  char* to_;
  int begin_, end_;
  alignas(64) char buffer_[kCapacity + 2 * kLineBytes];
};

// Calls f(writer) with the writer for `to`, rows of `row_bytes`.
template <class F>
inline void with_writer(char* to, int64_t row_bytes, bool stream, F f) {
  if (!stream) {
    CachedWriter writer{to};
    f(writer);
  } else if ((reinterpret_cast<uintptr_t>(to) | static_cast<uintptr_t>(row_bytes)) % kVectorBytes == 0) {
    StreamWriter writer(to);
    f(writer);
  } else {
    LineWriter writer(to);
    f(writer);
  }
}

}  // namespace
