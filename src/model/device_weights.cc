// The walk over all weights, twice: once for their sizes, once for their places; then they are read
// from the checkpoint's files, or made on the device.
#include "model/device_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/log.h"
#include "base/pages.h"
#include "base/threads.h"
#include "kernels/common/make_up.h"
#include "model/weight_arrays.h"

namespace seacliff {
namespace {

// Brings host memory to the device through pinned buffers: threads fill some while others are on
// their way.
class Stream {
 public:
  Stream(const Checkpoint& checkpoint, Device& device, std::byte* base,
         const LoadProgress& progress, int64_t total)
      : checkpoint_(checkpoint), device_(device), base_(base), progress_(progress), total_(total) {}

  // Puts it `at` bytes from the base, in ascending order. Nothing moves before Run.
  void Add(const WeightArray& host, int64_t at) {
    const bool gaps = host.pitch != host.bytes;
    // Without gaps rows do not matter.
    const WeightArray all = gaps ? host : WeightArray{host.data, host.size(), 1, 1};
    const int64_t step = std::max<int64_t>(kBuffer / all.bytes, 1);
    for (int64_t row = 0; row < all.rows; row += step) {
      const WeightArray piece = {static_cast<const std::byte*>(all.data) + row * all.pitch,
                                 std::min(step, all.rows - row), all.bytes, all.pitch};
      AddPiece({piece, at + row * all.bytes});
    }
  }
  // What is there without a copy.
  void Skip(int64_t bytes) { done_ += bytes; }

  // kInvalidArgument if the file cannot be read.
  Status Run() {
    const auto loads = static_cast<int64_t>(loads_.size());
    if (loads == 0) return OkStatus();
    const int64_t at_once = std::min(loads, kAtOnce);
    int64_t buffer = 0;
    for (const Load& load : loads_) buffer = std::max(buffer, load.end - load.begin);
    Buffer halves[2];
    for (Buffer& half : halves) half = device_.AllocatePinned(at_once * buffer);
    SC_RETURN_IF_ERROR(device_.TakeError());
    SC_LOG_DEBUG("weights go to GPU {} through {} MiB of host memory", device_.gpu().index,
                 2 * at_once * buffer >> 20);
    ThreadPool pool(0);
    std::atomic<const void*> failed{nullptr};
    for (int64_t first = 0, half = 0; first < loads; first += at_once, half ^= 1) {
      const int64_t count = std::min(at_once, loads - first);
      auto* const buffers = static_cast<std::byte*>(halves[half].data());
      pool.For(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const void* bad = Fill(loads_[static_cast<size_t>(first + i)], buffers + i * buffer);
          if (bad != nullptr) failed = bad;
        }
      });
      // The other half has arrived before it is filled again.
      SC_RETURN_IF_ERROR(device_.Synchronize());
      if (failed != nullptr) return checkpoint_.ReadError(failed);
      for (int64_t i = 0; i < count; ++i) {
        const Load& load = loads_[static_cast<size_t>(first + i)];
        device_.UploadLater(base_ + load.begin, buffers + i * buffer, load.end - load.begin);
        done_ += load.bytes;
      }
      if (progress_) progress_("copying", done_, total_);
    }
    return device_.Synchronize();
  }

 private:
  static constexpr int64_t kBuffer = int64_t{8} << 20, kAtOnce = 8;

  struct Piece {
    WeightArray from;
    int64_t at;
  };
  // Pieces that lie together on the device, which one copy brings there.
  struct Load {
    int64_t begin, end, bytes;  // on the device; of the pieces
    size_t first, last;         // pieces
  };

  void AddPiece(const Piece& piece) {
    const int64_t end = piece.at + piece.from.size();
    constexpr int64_t kMostGap = 256;  // between arrays
    if (loads_.empty() || end - loads_.back().begin > kBuffer ||
        piece.at - loads_.back().end >= kMostGap) {
      loads_.push_back({piece.at, piece.at, 0, pieces_.size(), pieces_.size()});
    }
    pieces_.push_back(piece);
    Load& load = loads_.back();
    load.end = end;
    load.bytes += piece.from.size();
    load.last = pieces_.size();
  }

  // Returns what cannot be read, else null.
  const void* Fill(const Load& load, std::byte* buffer) const {
    for (size_t i = load.first; i < load.last; ++i) {
      const auto& [from, at] = pieces_[i];
      const int64_t span = (from.rows - 1) * from.pitch + from.bytes;
      if (!ReadPages(from.data, span)) return from.data;
      std::byte* const to = buffer + (at - load.begin);
      if (from.pitch == from.bytes) {
        std::memcpy(to, from.data, static_cast<size_t>(span));
      } else {
        for (int64_t r = 0; r < from.rows; ++r) {
          std::memcpy(to + r * from.bytes,
                      static_cast<const std::byte*>(from.data) + r * from.pitch,
                      static_cast<size_t>(from.bytes));
        }
      }
      ReleasePages(from.data, span);
    }
    return nullptr;
  }

  const Checkpoint& checkpoint_;
  Device& device_;
  std::byte* const base_;
  const LoadProgress& progress_;
  const int64_t total_;
  int64_t done_ = 0;
  std::vector<Piece> pieces_;
  std::vector<Load> loads_;
};

}  // namespace

int64_t DeviceWeights::BytesOf(ModelWeights& weights) {
  int64_t total = 0;
  ForEachArray(weights, [&](const WeightArray& host) { total += Aligned(host.size()); });
  return total;
}

Result<DeviceWeights> DeviceWeights::Upload(ModelWeights& weights, const Checkpoint& checkpoint,
                                            Device& device, const LoadProgress& progress) {
  const int64_t total = BytesOf(weights);
  DeviceWeights result;
  result.memory_ = device.Allocate(total, "the weights");
  if (result.memory_.data() == nullptr) return device.TakeError();
  Stream stream(checkpoint, device, static_cast<std::byte*>(result.memory_.data()), progress,
                total);
  int64_t next = 0;
  MoveArrays(weights, [&](const WeightArray& host) {
    const int64_t at = next;
    next += Aligned(host.size());
    const Checkpoint::MadeUpBytes made_up = checkpoint.FindMadeUp(host.data);
    std::byte* const to = static_cast<std::byte*>(result.memory_.data()) + at;
    if (made_up.rule == nullptr) {
      stream.Add(host, at);
    } else {
      MakeUp(device, *made_up.rule, {made_up.begin, host.rows, host.bytes, host.pitch}, to);
      stream.Skip(host.size());
    }
    return to;
  });
  SC_RETURN_IF_ERROR(device.Synchronize());
  SC_RETURN_IF_ERROR(stream.Run());
  if (progress) progress("copying", total, total);
  return result;
}

}  // namespace seacliff
