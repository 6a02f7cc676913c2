// A pool of worker threads for data-parallel loops. Which thread takes which piece never changes a
// result: a piece writes only its own outputs.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace seacliff {

class ThreadPool {
 public:
  // `threads` counts the calling thread too; 0 means one per core of this machine.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) over disjoint ranges that cover [0, count), each at most `grain` long.
  // Returns when all are done. Not reentrant: one loop at a time per pool.
  void For(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

 private:
  void Work();
  void TakePieces();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  uint64_t generation_ = 0;
  int busy_ = 0;
  bool stop_ = false;

  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0, grain_ = 1;
  std::atomic<int64_t> next_{0};
};

}  // namespace seacliff
