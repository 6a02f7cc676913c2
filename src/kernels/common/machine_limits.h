// What this machine can do at most, measured: reading memory and multiplying. Speeds of ops and of
// whole models are stated as fractions of it.
#pragma once

#include <cstdint>
#include <string>

#include "base/threads.h"

namespace seacliff {

struct MachineLimits {
  double read_gbps = 0;  // 10^9 bytes a second from memory, all threads
  // 10^9 operations a second (a product and a sum are two), all threads, with CurrentIsa(); 0 where
  // it has none.
  double f32_gflops = 0, bf16_gflops = 0, amx_gflops = 0;
  double loop_us = 0;  // what an empty loop of the pool costs when loops follow one another

  double best_gflops() const;
  // "reads 38.1 GB/s; 215 GFLOP/s in f32, 430 in bf16 dot products; a loop costs 0.31 us"
  std::string Describe() const;
};

// Takes one to three seconds, and 1 GiB of memory meanwhile.
MachineLimits MeasureLimits(ThreadPool& pool);

// Reads a buffer of 1 GiB several times in several ways and gives the best; 0 if there is no
// memory for it.
double MeasureReadBandwidth(ThreadPool& pool);

}  // namespace seacliff
