// Which rows a model's steps take on a machine: the forward pass with nothing to compute, for its
// shapes alone. No memory for weights or caches, no device.
#pragma once

#include <string>

#include "base/status.h"
#include "config/model_config.h"
#include "kernels/machine.h"
#include "kernels/table.h"

namespace seacliff {

// A table of ops and the rows that they take in decode steps of one and many sequences and in
// prefill, on `gpu`, or on the host if it is null. The first error of an op that no row takes.
Result<std::string> DescribeRowsTaken(const ModelConfig& config, const Rows& rows, const Gpu* gpu);

}  // namespace seacliff
