// The masks of a step's sampling: room for one of each row, made once. They are written on the
// host while the model runs; on a device they are copied beside its work.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "kernels/device.h"
#include "kernels/sample/op.h"
#include "kernels/side_stream.h"
#include "tensor/buffer.h"

namespace seacliff {

class TokenMasks {
 public:
  // Takes rows * MaskBytes(vocab) of the host's memory, and of the device's, which may be null and
  // must outlive the masks. kExhausted if it has no memory for them.
  static Result<TokenMasks> Make(Device* device, int64_t rows, int64_t vocab);

  // Forgets the masks of the step before, which must be over.
  void Clear() { used_ = 0; }
  // To write the next mask in. It holds numbers from an earlier step.
  std::span<uint32_t> Next();
  // Takes what was written there into the step: where sampling finds it, once it was uploaded.
  std::span<const uint32_t> Take();
  Status Upload();

 private:
  int64_t words_ = 0, used_ = 0;
  Buffer here_, there_;  // [rows, words]; there_: on a device
  std::unique_ptr<SideStream> side_;
};

// Whether a mask allows an id that is not among `ids`.
bool AllowsOthers(std::span<const uint32_t> mask, int64_t vocab, std::span<const int32_t> ids);

}  // namespace seacliff
