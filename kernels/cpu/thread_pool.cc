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

// Whoever is free takes the next task, the caller too: it never waits for a thread that is still waking up,
// or whose processor is busy with somebody else's work, but only for tasks that are being done.
class ThreadPool {
 public:
  void run(int count, void (*task)(void*, int), void* context) {
    const std::unique_lock<std::mutex> owner(running_, std::try_to_lock);
    if (!owner.owns_lock()) {
      for (int i = 0; i < count; ++i) task(context, i);
      return;
    }
    grow(count - 1);
    std::unique_lock<std::mutex> lock(mutex_);
    task_ = task;
    context_ = context;
    count_ = count;
    next_ = 0;
    ++generation_;
    if (asleep_) start_.notify_all();
    work_off(lock, nullptr);
    lock.unlock();
    if (soon([this] { return busy_ == 0; })) return;
    lock.lock();
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  // Fewer threads where no more can be had.
  void grow(int wanted) {
    while (threads_ < wanted) {
      try {
        std::thread(&ThreadPool::serve, this).detach();
      } catch (...) {
        return;
      }
      ++threads_;
    }
  }

  void serve() {
    unsigned long seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (generation_ == seen) {
        lock.unlock();
        soon([&] { return generation_ != seen; });
        lock.lock();
        ++asleep_;
        start_.wait(lock, [&] { return generation_ != seen; });
        --asleep_;
      }
      seen = generation_;
      work_off(lock, &busy_);
      if (busy_ == 0) done_.notify_one();
    }
  }

  // Does tasks until none is left; `lock` is held except during a task.
  void work_off(std::unique_lock<std::mutex>& lock, std::atomic<int>* busy) {
    while (next_ < count_) {
      const int index = next_++;
      const auto task = task_;
      void* const context = context_;
      if (busy) ++*busy;
      lock.unlock();
      task(context, index);
      lock.lock();
      if (busy) --*busy;
    }
  }

  std::mutex running_;  // held by the call that uses the threads
  std::mutex mutex_;    // guards what follows; the two counters may be read without it
  std::condition_variable start_, done_;
  std::atomic<unsigned long> generation_{0};
  std::atomic<int> busy_{0};  // threads with a task, without the caller's
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int count_ = 0, next_ = 0;
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
