// Collectives of the GPUs of one process through memory that all of them write and read directly:
// each other's where the cards can reach it (NVLink, PCIe), else the host's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

class PeerMemory {
 public:
  // Rank r of `size` on devices[r]; nobody waits longer than `patience` nanoseconds for another. Of
  // rank 0 alone: what it sends to another rank arrives where it awaits that one's.
  static Result<std::unique_ptr<PeerMemory>> Make(std::span<Device* const> devices, int32_t size,
                                                  uint64_t patience);
  // Empty if each of these GPUs can write the memory of each other one.
  static std::string WhyNotDirect(std::span<const Gpu> gpus);
  // GB/s at which a kernel of `from` writes the memory that it would have of `to`.
  static Result<double> MeasureLink(Device& from, Device& to);
  virtual ~PeerMemory() = default;

  // Bytes of the longest message that one launch takes; no TwoShot where that is 0.
  virtual int64_t OneShotBytes() const = 0;
  virtual int64_t TwoShotBytes() const = 0;

  // As Communicator's, for messages of any length: longer ones by several launches.
  virtual void OneShot(Context& k, int32_t rank, Act<2> v) = 0;
  virtual void TwoShot(Context& k, int32_t rank, Act<2> v) = 0;
  virtual void Gather(Context& k, int32_t rank, View<const float, 2> v, View<float, 2> all) = 0;
  // Returns, in the stream's order, when every rank has come.
  virtual void Meet(Context& k, int32_t rank) = 0;

  // Ends all waits for ever.
  virtual void Stop() = 0;
  // Whether waits have ended, and for whom which rank did not come; both -1 when Stop ended them.
  struct Stopped {
    bool stopped;
    int32_t rank, missing;
  };
  virtual Stopped stopped() const = 0;

  // The fewest bytes that TwoShot takes.
  static constexpr int64_t kTwoShotLeast = 16 * 64;

 protected:
  PeerMemory() = default;
};

}  // namespace seacliff
