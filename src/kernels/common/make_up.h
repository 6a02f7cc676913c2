// Made-up weights where they are wanted: bytes of tensor/fill_rule.h in device memory.
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "tensor/fill_rule.h"

namespace seacliff {

// Rows of a tensor's bytes: the first begins at byte `begin`, each next one `pitch` further.
struct TensorRows {
  int64_t begin, rows, bytes, pitch;
};

// Fills `to`, which has no gaps, in the stream's order. Uses the workspace.
void MakeUp(Device& device, const FillRule& rule, const TensorRows& rows, void* to);

}  // namespace seacliff
