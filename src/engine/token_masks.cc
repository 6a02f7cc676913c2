// Memory of masks and its way to a device.
#include "engine/token_masks.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace seacliff {

Result<TokenMasks> TokenMasks::Make(Device* device, int64_t rows, int64_t vocab) {
  TokenMasks masks;
  masks.words_ = MaskWords(vocab);
  const int64_t bytes = rows * MaskBytes(vocab);
  if (device == nullptr) {
    masks.here_ = Buffer::Host(bytes);
    return masks;
  }
  masks.here_ = device->AllocatePinned(bytes);
  masks.there_ = device->Allocate(bytes, "masks of grammars");
  SC_RETURN_IF_ERROR(device->Synchronize());
  SC_ASSIGN_OR_RETURN(masks.side_, OpenSideStream(*device));
  return masks;
}

std::span<uint32_t> TokenMasks::Next() {
  SC_CHECK((used_ + 1) * words_ * 4 <= here_.bytes());
  return {static_cast<uint32_t*>(here_.data()) + used_ * words_, static_cast<size_t>(words_)};
}

std::span<const uint32_t> TokenMasks::Take() {
  const Buffer& memory = side_ != nullptr ? there_ : here_;
  const auto* masks = static_cast<const uint32_t*>(memory.data());
  return {masks + used_++ * words_, static_cast<size_t>(words_)};
}

Status TokenMasks::Upload() {
  if (side_ == nullptr || used_ == 0) return OkStatus();
  return side_->Upload(there_.data(), here_.data(), 4 * used_ * words_);
}

bool AllowsOthers(std::span<const uint32_t> mask, int64_t vocab, std::span<const int32_t> ids) {
  for (size_t i = 0; i < mask.size(); ++i) {
    for (uint32_t bits = mask[i]; bits != 0; bits &= bits - 1) {
      const auto id = static_cast<int32_t>(i) * 32 + std::countr_zero(bits);
      if (id < vocab && std::find(ids.begin(), ids.end(), id) == ids.end()) return true;
    }
  }
  return false;
}

}  // namespace seacliff
