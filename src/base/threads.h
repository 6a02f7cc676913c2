// A pool of worker threads for data-parallel loops, short ones too: where loops follow one another
// closely, one costs about a microsecond. Which thread takes which piece never changes a result: a
// piece writes only its own outputs.
//
// Where every thread can have a CPU of its own, workers are pinned, one to a CPU, and threads that
// have nothing to do look for work for a moment (kSpin) before they sleep. The calling thread is
// not pinned: a worker on whose CPU it is found moves to the CPU that is free. With more threads
// than CPUs nothing is pinned, and with more than there are cores nobody spins.
//
// A loop waits only for workers that came in time to take part, so a worker that the system has put
// aside holds up nothing but the piece it has in hand.
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <thread>
#include <vector>

namespace seacliff {

// A callable body(begin, end) that outlives the call it is passed to; never copied or allocated.
class LoopBody {
 public:
  template <std::invocable<int64_t, int64_t> F>
  LoopBody(const F& body)  // NOLINT: implicit, so that a lambda can be passed
      : object_(&body), call_([](const void* object, int64_t begin, int64_t end) {
          (*static_cast<const F*>(object))(begin, end);
        }) {}
  void operator()(int64_t begin, int64_t end) const { call_(object_, begin, end); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t, int64_t);
};

class ThreadPool {
 public:
  static constexpr std::chrono::microseconds kSpin{40};

  // `threads` counts the calling thread too; 0 means one per core (base/cpus.h).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) over disjoint ranges that cover [0, count), each at most `grain` long.
  // Returns when all are done. One loop at a time per pool: a loop inside a body aborts.
  void For(int64_t count, int64_t grain, const LoopBody& body);

 private:
  // A number that threads wait on: they spin for a while, then sleep in the kernel.
  struct alignas(64) Signal {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> sleepers{0};

    // Returns the value once it is not `old`.
    uint32_t Await(uint32_t old, bool spin);
    // To be called after a change that others may sleep on.
    void Wake();
  };

  // Bit of `inside_` that says that no further worker may take part.
  static constexpr uint32_t kClosed = uint32_t{1} << 31;

  void Pin(std::vector<int> cpus);
  void MakeWay();
  void Work();
  bool Enter();
  void Leave();
  void TakePieces();

  std::vector<std::thread> workers_;
  std::vector<int> homes_;  // the CPU of each worker; empty: not pinned
  int free_cpu_ = -1;       // one that no worker is pinned to
  bool spin_ = false;

  Signal loops_;   // counts the loops begun
  Signal inside_;  // workers in the current loop, and kClosed
  std::atomic<bool> running_{false}, stop_{false};

  // The current loop; written while it is closed and no worker is inside.
  const LoopBody* body_ = nullptr;
  int64_t count_ = 0, grain_ = 1;
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace seacliff
