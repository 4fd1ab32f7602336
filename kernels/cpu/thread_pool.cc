#include "thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace qscore {
namespace {

// A thread that waits keeps looking for so long before it sleeps: waking it costs about as much as the work
// of a small batch.
constexpr std::chrono::microseconds kPatience{20};

template <class Condition>
bool soon(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

class ThreadPool {
 public:
  void run(int count, void (*task)(void*, int), void* context) {
    const std::unique_lock<std::mutex> owner(running_, std::try_to_lock);
    int shared = 1;
    if (owner.owns_lock()) {
      shared = grow(count);
      const std::lock_guard<std::mutex> lock(mutex_);
      task_ = task;
      context_ = context;
      shared_ = shared;
      pending_ = shared - 1;
      ++generation_;
      if (shared > 1 && asleep_) start_.notify_all();
    }
    task(context, 0);
    for (int i = shared; i < count; ++i) task(context, i);
    if (shared > 1 && !soon([this] { return pending_ == 0; })) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, [this] { return pending_ == 0; });
    }
  }

 private:
  // Returns how many tasks can run side by side, the caller's included: fewer where no thread can be had.
  int grow(int count) {
    while (threads_ + 1 < count) {
      try {
        std::thread(&ThreadPool::work, this, threads_ + 1, generation_.load()).detach();
      } catch (...) {
        break;
      }
      ++threads_;
    }
    return threads_ + 1 < count ? threads_ + 1 : count;
  }

  void work(int index, unsigned long seen) {
    for (;;) {
      soon([&] { return generation_ != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      start_.wait(lock, [&] { return generation_ != seen; });
      --asleep_;
      seen = generation_;
      if (index >= shared_) continue;
      const auto task = task_;
      void* const context = context_;
      lock.unlock();
      task(context, index);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex running_;  // held by the call that uses the threads
  std::mutex mutex_;    // guards what follows; the two counters may be read without it
  std::condition_variable start_, done_;
  std::atomic<unsigned long> generation_{0};
  std::atomic<int> pending_{0};
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int shared_ = 0;
  int asleep_ = 0;
  int threads_ = 0;  // only touched under running_
};

// Never destroyed: its threads may outlive static destruction. A forked child has none of its parent's
// threads and perhaps locked mutexes, so it gets a pool of its own.
std::atomic<ThreadPool*> pool{nullptr};

ThreadPool& this_process_pool() {
  ThreadPool* current = pool.load();
  if (current) return *current;
  auto* fresh = new ThreadPool;
  if (pool.compare_exchange_strong(current, fresh)) {
#if !defined(_WIN32)
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { pool.store(new ThreadPool); }); });
#endif
    return *fresh;
  }
  delete fresh;
  return *current;
}

}  // namespace

void run_tasks(int count, void (*task)(void* context, int index), void* context) {
  if (count == 1) return task(context, 0);
  this_process_pool().run(count, task, context);
}

}  // namespace qscore
