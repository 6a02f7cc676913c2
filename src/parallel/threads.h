// Ranks that are threads of this process and compute in host memory.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace seacliff {

// How long a rank waits for the others of its step before it takes them for hung.
inline constexpr std::chrono::milliseconds kRankTimeout = std::chrono::seconds(20);

// The communicators of `size` ranks. A rank that waits for longer than `timeout` aborts them all
// with kUnavailable, which names a rank that did not come.
std::vector<std::unique_ptr<Communicator>> MakeThreadGroup(
    int32_t size, std::chrono::milliseconds timeout = kRankTimeout);

}  // namespace seacliff
