// What this machine can do at most, measured: reading memory and multiplying. Speeds of ops and of
// whole models are stated as fractions of it.
#pragma once

#include <cstdint>
#include <string>

#include "base/threads.h"
#include "kernels/device.h"

namespace seacliff {

struct MachineLimits {
  double read_gbps = 0;  // 10^9 bytes a second from memory, all threads
  // 10^9 operations a second (a product and a sum are two), all threads, with CurrentIsa(); 0 where
  // it has none.
  double f32_gflops = 0, bf16_gflops = 0, amx_gflops = 0;
  // Of a GPU: of mma.sync with bf16 factors and f32 sums, the portable way to its tensor cores.
  double mma_gflops = 0;
  // What an empty loop of the pool costs when loops follow one another; on a GPU an empty launch in
  // a graph.
  double loop_us = 0;

  double best_gflops() const;
  // "reads 38.1 GB/s; 215 GFLOP/s in f32, 430 in bf16 dot products; a loop costs 0.31 us"
  std::string Describe() const;
};

// Takes one to three seconds, and 1 GiB of memory meanwhile.
MachineLimits MeasureLimits(ThreadPool& pool);

// Of a device, with 8 GiB of its memory meanwhile. A value is 0 after an error, which the device
// keeps.
MachineLimits MeasureDeviceLimits(Device& device);

// Reads a buffer of 1 GiB several times in several ways and gives the best; 0 if there is no
// memory for it.
double MeasureReadBandwidth(ThreadPool& pool);

}  // namespace seacliff
