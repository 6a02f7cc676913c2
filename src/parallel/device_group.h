// Communicators between the GPUs of one process: a device and a thread for each rank.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/device.h"
#include "parallel/communicator.h"

namespace seacliff {

struct DeviceGroupOptions {
  // More than devices, of which there is one: rank 0 is by itself, to measure what a rank of
  // several costs. Its messages take the same kernels, and what the others would send is what it
  // sends.
  int32_t ranks = 0;
  bool nccl = true;               // whether NCCL is looked for
  std::string nccl_library = "";  // its file; empty: libnccl.so.2 where the loader finds it
  // How long a rank waits for another one's data before it aborts all.
  double timeout_seconds = 20;
};

// One communicator a device, rank r on devices[r]; the devices outlive them. Several ranks may
// share a GPU through a Device each, which is for tests. Every rank's calls come from one thread at
// a time.
//
// The context of AllReduce and Gather is on the rank's device. What goes wrong while launches run
// is told by error(), to be read when the step has been waited for, and by later calls; the data is
// then undefined. A rank whose context has failed still takes part, with what it has.
Result<std::vector<std::unique_ptr<Communicator>>> MakeDeviceGroup(
    std::span<Device* const> devices, const DeviceGroupOptions& options = {});

// GB/s at which one of these devices, as ranks, writes what the other reads.
Result<double> MeasureLink(Device& from, Device& to);

// The rows of all_reduce among these GPUs as a table: CHOSEN, or why not. "" without CUDA.
std::string DescribeCollectives(const Rows& rows, const std::vector<Gpu>& gpus,
                                const std::string& nccl_library);

}  // namespace seacliff
