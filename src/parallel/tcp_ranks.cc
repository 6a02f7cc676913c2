// Every call is a frame from each other rank to rank 0 and one back.
#include "parallel/tcp_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

namespace seacliff {
namespace {

int64_t Bytes(const Act<2>& v) { return v.size() * SizeOf(v.dtype); }

Status Misplaced() { return Internal("it is at another place of the step"); }

// What both ends have in common: the first error, and the end of all links with it.
class TcpRank : public Communicator {
 public:
  TcpRank(int32_t rank, int32_t size, std::vector<std::unique_ptr<TcpLink>> links)
      : Communicator(rank, size), links_(std::move(links)) {}

  void Abort(const Status& why) override {
    const std::lock_guard lock(mutex_);
    AbortLocked(why);
  }
  Status error() const override {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; error_.ok() && i < links_.size(); ++i) {
      const Status seen = links_[i]->Look();
      if (!seen.ok()) AbortLocked(Named(i, seen));
    }
    return error_;
  }

 protected:
  TcpLink& link(size_t i) { return *links_[i]; }
  // Aborts, because of what happened on a link; false.
  bool Lose(Context& k, size_t i, const Status& why) {
    const std::lock_guard lock(mutex_);
    AbortLocked(Named(i, why));
    k.Fail(error_);
    return false;
  }
  // Receives a frame of this step; false: aborted.
  bool Receive(Context& k, size_t i) {
    const Status status = links_[i]->Receive(frame_);
    if (!status.ok()) return Lose(k, i, status);
    if (frame_.kind != FrameKind::kAbort) return true;
    const std::lock_guard lock(mutex_);
    AbortLocked(frame_.status());
    k.Fail(error_);
    return false;
  }
  // False: aborted before.
  bool Ready(Context& k) {
    const std::lock_guard lock(mutex_);
    if (!error_.ok()) k.Fail(error_);
    return error_.ok();
  }

  Frame frame_;

 private:
  Status Named(size_t i, const Status& status) const {
    return Unavailable(
        fmt::format("rank {} of {}: {}", rank() == 0 ? i + 1 : 0, size(), status.message()));
  }
  void AbortLocked(const Status& why) const {
    if (!error_.ok()) return;
    error_ = why;
    for (const auto& link : links_) link->Abort(why);
  }

  const std::vector<std::unique_ptr<TcpLink>> links_;
  mutable std::mutex mutex_;
  mutable Status error_;
};

class TcpHub final : public TcpRank {
 public:
  TcpHub(int32_t size, std::vector<std::unique_ptr<TcpLink>> links)
      : TcpRank(0, size, std::move(links)) {}

  void AllReduce(Context& k, Act<2> v) override {
    const int64_t count = v.size();
    sum_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) sum_[static_cast<size_t>(i)] = v.Load(i);
    const auto add = [&](int32_t, std::byte* data) {
      const Act<2> other(data, v.dtype, v.shape);
      for (int64_t i = 0; i < count; ++i) sum_[static_cast<size_t>(i)] += other.Load(i);
    };
    if (!Collect(k, Bytes(v), add)) return;
    for (int64_t i = 0; i < count; ++i) v.Store(i, sum_[static_cast<size_t>(i)]);
    Answer(k, v.data, static_cast<size_t>(Bytes(v)));
  }

  void Gather(Context& k, View<const float, 2> v, View<float, 2> all) override {
    const int64_t rows = v.shape[0], columns = v.shape[1];
    const auto place = [&](int32_t rank, const void* data) {
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(static_cast<const float*>(data) + row * columns, columns,
                    &all(row, rank * columns));
      }
    };
    place(0, v.data);
    if (!Collect(k, v.size() * static_cast<int64_t>(sizeof(float)), place)) return;
    Answer(k, nullptr, 0);
  }

 private:
  // Takes what every other rank brought, in their order; false, and they are told, if one of them
  // or this one has an error.
  template <typename F>
  bool Collect(Context& k, int64_t bytes, const F& take) {
    if (!Ready(k)) return false;
    Status first = k.error();
    for (int32_t r = 1; r < size(); ++r) {
      if (!Receive(k, static_cast<size_t>(r - 1))) return false;
      if (frame_.kind == FrameKind::kError) {
        if (first.ok()) first = frame_.status();
      } else if (static_cast<int64_t>(frame_.bytes.size()) != bytes) {
        return Lose(k, static_cast<size_t>(r - 1), Misplaced());
      } else if (first.ok()) {
        take(r, frame_.bytes.data());
      }
    }
    if (first.ok()) return true;
    k.Fail(first);
    for (int32_t r = 1; r < size(); ++r) {
      const auto i = static_cast<size_t>(r - 1);
      const Status sent = link(i).SendError(FrameKind::kError, first);
      if (!sent.ok()) return Lose(k, i, sent);
    }
    return false;
  }
  void Answer(Context& k, const void* data, size_t bytes) {
    for (int32_t r = 1; r < size(); ++r) {
      const auto i = static_cast<size_t>(r - 1);
      const Status sent = link(i).Send(FrameKind::kData, Code::kOk, data, bytes);
      if (!sent.ok()) {
        Lose(k, i, sent);
        return;
      }
    }
  }

  std::vector<float> sum_;
};

class TcpLeaf final : public TcpRank {
 public:
  TcpLeaf(int32_t rank, int32_t size, std::vector<std::unique_ptr<TcpLink>> link)
      : TcpRank(rank, size, std::move(link)) {}

  void AllReduce(Context& k, Act<2> v) override {
    const auto bytes = static_cast<size_t>(Bytes(v));
    if (Exchange(k, v.data, bytes, bytes)) std::memcpy(v.data, frame_.bytes.data(), bytes);
  }
  void Gather(Context& k, View<const float, 2> v, View<float, 2>) override {
    Exchange(k, v.data, static_cast<size_t>(v.size()) * sizeof(float), 0);
  }

 private:
  // Brings data, or the context's error; whether data of `answer` bytes came back.
  bool Exchange(Context& k, const void* data, size_t bytes, size_t answer) {
    if (!Ready(k)) return false;
    const Status sent = k.ok() ? link(0).Send(FrameKind::kData, Code::kOk, data, bytes)
                               : link(0).SendError(FrameKind::kError, k.error());
    // What rank 0 has to say comes first, if it has ended.
    if (!Receive(k, 0)) return false;
    if (!sent.ok()) return Lose(k, 0, sent);
    if (frame_.kind == FrameKind::kError) {
      k.Fail(frame_.status());
      return false;
    }
    return frame_.bytes.size() == answer || Lose(k, 0, Misplaced());
  }
};

}  // namespace

std::unique_ptr<Communicator> MakeTcpHub(std::vector<std::unique_ptr<TcpLink>> links) {
  const auto size = static_cast<int32_t>(links.size()) + 1;
  return std::make_unique<TcpHub>(size, std::move(links));
}

std::unique_ptr<Communicator> MakeTcpLeaf(int32_t rank, int32_t size,
                                          std::unique_ptr<TcpLink> link) {
  std::vector<std::unique_ptr<TcpLink>> links;
  links.push_back(std::move(link));
  return std::make_unique<TcpLeaf>(rank, size, std::move(links));
}

}  // namespace seacliff
