// The worker pool behind data-parallel loops.
#include "base/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "base/check.h"
#include "base/cpus.h"

namespace seacliff {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));  // what a futex is

// Sleeps unless the value is another already; may return for no reason.
void Sleep(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void WakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

bool PinTo(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return pthread_setaffinity_np(thread, sizeof(set), &set) == 0;
}

}  // namespace

uint32_t ThreadPool::Signal::Await(uint32_t old, bool spin) {
  using Clock = std::chrono::steady_clock;
  constexpr int kLooks = 16;  // between two looks at the clock
  if (spin) {
    const auto end = Clock::now() + kSpin;
    do {
      for (int i = 0; i < kLooks; ++i) {
        const uint32_t now = value.load(std::memory_order_acquire);
        if (now != old) return now;
        Pause();
      }
    } while (Clock::now() < end);
  }
  // Either this sees the new value, or Wake sees this sleeper: both sides write, then read.
  sleepers.fetch_add(1);
  uint32_t now = value.load();
  for (; now == old; now = value.load()) Sleep(value, old);
  sleepers.fetch_sub(1);
  return now;
}

void ThreadPool::Signal::Wake() {
  if (sleepers.load() != 0) WakeAll(value);
}

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = CoresOfOurOwn();
  inside_.value.store(kClosed);
  std::vector<int> cpus = AllowedCpus();
  const bool room = threads <= static_cast<int>(cpus.size());
  spin_ = room && threads <= CoresOfOurOwn();
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
  if (room) Pin(std::move(cpus));
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  loops_.value.fetch_add(1);
  loops_.Wake();
  for (auto& worker : workers_) worker.join();
}

// The caller keeps the CPU it is on, workers get those after it.
void ThreadPool::Pin(std::vector<int> cpus) {
  const auto own = std::find(cpus.begin(), cpus.end(), CurrentCpu());
  if (own != cpus.end()) std::rotate(cpus.begin(), own, cpus.end());
  free_cpu_ = cpus[0];
  for (size_t i = 0; i < workers_.size(); ++i) {
    homes_.push_back(cpus[i + 1]);
    PinTo(workers_[i].native_handle(), cpus[i + 1]);
  }
}

// The system moves the caller as it likes; a worker that is pinned where it went goes to the free
// CPU, or the two would share one.
void ThreadPool::MakeWay() {
  const int cpu = CurrentCpu();
  if (cpu == free_cpu_ || homes_.empty()) return;
  const auto home = std::find(homes_.begin(), homes_.end(), cpu);
  if (home == homes_.end()) return;
  const auto worker = static_cast<size_t>(home - homes_.begin());
  if (PinTo(workers_[worker].native_handle(), free_cpu_)) std::swap(*home, free_cpu_);
}

void ThreadPool::For(int64_t count, int64_t grain, const LoopBody& body) {
  if (count <= 0) return;
  SC_CHECK(!running_.exchange(true, std::memory_order_acquire));
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || count <= grain) {
    for (int64_t i = 0; i < count; i += grain) body(i, std::min(count, i + grain));
    running_.store(false, std::memory_order_release);
    return;
  }
  MakeWay();
  body_ = &body;
  count_ = count;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  inside_.value.store(0, std::memory_order_release);
  loops_.value.fetch_add(1);
  loops_.Wake();
  TakePieces();
  uint32_t inside = inside_.value.fetch_or(kClosed) | kClosed;
  while (inside != kClosed) inside = inside_.Await(inside, spin_);
  running_.store(false, std::memory_order_release);
}

void ThreadPool::TakePieces() {
  for (;;) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= count_) return;
    (*body_)(begin, std::min(count_, begin + grain_));
  }
}

bool ThreadPool::Enter() {
  uint32_t inside = inside_.value.load(std::memory_order_relaxed);
  while ((inside & kClosed) == 0) {
    if (inside_.value.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::Leave() {
  // Closed and empty: the caller may be waiting for that.
  if (inside_.value.fetch_sub(1) == (kClosed | 1)) inside_.Wake();
}

// A worker that comes late may enter a loop that began after the one it was called for; it then
// finds that one's count changed, comes back and finds nothing to do.
void ThreadPool::Work() {
  uint32_t seen = 0;
  for (;;) {
    seen = loops_.Await(seen, spin_);
    if (stop_.load()) return;
    if (!Enter()) continue;
    TakePieces();
    Leave();
  }
}

}  // namespace seacliff
