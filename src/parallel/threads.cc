// Threads meet at a barrier, each adds up one part of what all have brought, and they meet again.
#include "parallel/threads.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace seacliff {
namespace {

// What a rank brings to a call.
struct Offer {
  Act<2> v;
  Status error;  // of its context
};

// What the ranks share.
class Meeting {
 public:
  Meeting(int32_t size, std::chrono::milliseconds timeout)
      : timeout_(timeout), came_(static_cast<size_t>(size)), offers_(came_.size()) {}

  // Waits until all ranks have come; false: aborted.
  bool Wait(int32_t rank) {
    std::unique_lock lock(mutex_);
    if (!error_.ok()) return false;
    came_[static_cast<size_t>(rank)] = true;
    const uint64_t round = round_;
    if (++count_ == came_.size()) {
      NextRound();
      return true;
    }
    const auto over = [&] { return round_ != round || !error_.ok(); };
    if (!changed_.wait_for(lock, timeout_, over)) {
      const auto missing = std::find(came_.begin(), came_.end(), false) - came_.begin();
      AbortLocked(
          Unavailable(fmt::format("rank {} of {} did not come within {} ms to where rank "
                                  "{} waits for it",
                                  missing, came_.size(), timeout_.count(), rank)));
    }
    return round_ != round;
  }
  void Abort(const Status& why) {
    const std::lock_guard lock(mutex_);
    AbortLocked(why);
  }
  Status error() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }

  Offer& offer(int32_t rank) { return offers_[static_cast<size_t>(rank)]; }
  // Between two waits: the first error that a rank brought.
  Status FirstError() const {
    for (const Offer& offer : offers_) SC_RETURN_IF_ERROR(offer.error);
    return OkStatus();
  }

 private:
  void NextRound() {
    std::fill(came_.begin(), came_.end(), false);
    count_ = 0;
    ++round_;
    changed_.notify_all();
  }
  void AbortLocked(const Status& why) {
    if (!error_.ok()) return;
    error_ = why;
    changed_.notify_all();
  }

  const std::chrono::milliseconds timeout_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> came_;
  size_t count_ = 0;
  uint64_t round_ = 0;
  Status error_;
  std::vector<Offer> offers_;
};

class ThreadRank final : public Communicator {
 public:
  ThreadRank(int32_t rank, int32_t size, std::shared_ptr<Meeting> meeting)
      : Communicator(rank, size), meeting_(std::move(meeting)) {}

  void AllReduce(Context& k, Act<2> v) override {
    if (!Offered(k, v)) return;
    const int64_t begin = v.size() * rank() / size(), end = v.size() * (rank() + 1) / size();
    k.pool().For(end - begin, 4096, [&](int64_t from, int64_t to) {
      for (int64_t i = begin + from; i < begin + to; ++i) {
        float sum = At(0).Load(i);
        for (int32_t r = 1; r < size(); ++r) sum += At(r).Load(i);
        for (int32_t r = 0; r < size(); ++r) At(r).Store(i, sum);
      }
    });
    Part(k);
  }

  void Gather(Context& k, View<const float, 2> v, View<float, 2> all) override {
    if (!Offered(k, Act<2>(const_cast<float*>(v.data), DType::kF32, v.shape))) return;
    const int64_t columns = v.shape[1];
    if (rank() == 0) {
      k.pool().For(v.shape[0] * size(), 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
          const int64_t row = i / size(), r = i % size();
          const auto* part = static_cast<const float*>(At(static_cast<int32_t>(r)).data);
          std::copy_n(part + row * columns, columns, &all(row, r * columns));
        }
      });
    }
    Part(k);
  }

  void Abort(const Status& why) override { meeting_->Abort(why); }
  Status error() const override { return meeting_->error(); }

 private:
  const Act<2>& At(int32_t rank) { return meeting_->offer(rank).v; }

  // Meets the others with `v`; false if nothing is to be done, because of some rank's error.
  bool Offered(Context& k, const Act<2>& v) {
    meeting_->offer(rank()) = {v, k.error()};
    if (!Met(k)) return false;
    const Status error = meeting_->FirstError();
    if (error.ok()) {
      for (int32_t r = 0; r < size(); ++r) {
        SC_CHECK(At(r).shape == v.shape && At(r).dtype == v.dtype);
      }
      return true;
    }
    Part(k);
    k.Fail(error);
    return false;
  }
  // Until all are done with what the others brought.
  void Part(Context& k) { Met(k); }
  bool Met(Context& k) {
    if (meeting_->Wait(rank())) return true;
    k.Fail(meeting_->error());
    return false;
  }

  const std::shared_ptr<Meeting> meeting_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> MakeThreadGroup(int32_t size,
                                                           std::chrono::milliseconds timeout) {
  const auto meeting = std::make_shared<Meeting>(size, timeout);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int32_t r = 0; r < size; ++r) {
    ranks.push_back(std::make_unique<ThreadRank>(r, size, meeting));
  }
  return ranks;
}

}  // namespace seacliff
