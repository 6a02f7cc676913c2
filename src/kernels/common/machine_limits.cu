// What a GPU can do at most: a kernel that only reads, one that only multiplies, one that does
// nothing.
#include <algorithm>
#include <cstdint>

#include "kernels/common/cuda.cuh"
#include "kernels/common/machine_limits.h"

namespace seacliff {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 8;  // of 16 bytes, in flight at once in each thread
constexpr int64_t kBlockBytes = int64_t{16} * kThreads * kLoads;
constexpr int64_t kReadBytes = int64_t{8} << 30;
constexpr int kRounds = 8;

__global__ void FillKernel(uint4* data, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  uint32_t x = static_cast<uint32_t>(i) * 2654435761u;
  const auto next = [&] { return x = (x ^ x >> 15) * 2246822519u + 1; };
  data[i] = {next(), next(), next(), next()};
}

__device__ inline uint4 Read16(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// Each block reads its own piece, once.
__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* data, uint32_t* out) {
  const uint4* piece = data + static_cast<int64_t>(blockIdx.x) * kThreads * kLoads + threadIdx.x;
  uint4 v[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) v[i] = Read16(piece + i * kThreads);
  uint32_t all = 0;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) all ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  if (all == 0x12345678u) *out = all;  // hardly ever, but nobody knows
}

constexpr int kTiles = 8;  // of sums, independent of one another
constexpr int64_t kTileFlops = 2 * 16 * 8 * 16;

// Products of tiles that stay in registers.
__global__ void __launch_bounds__(kThreads) MultiplyKernel(int rounds, float* out) {
  uint32_t a[4], b[2][2];
  for (int i = 0; i < 4; ++i) a[i] = cuda::Bf16Pair(0.01f * (threadIdx.x % 7 + i), -0.02f);
  for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = cuda::Bf16Pair(0.03f, 0.01f * (i - 2.0f));
  float sums[kTiles][4] = {};
  for (int r = 0; r < rounds; ++r) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) cuda::MmaBf16(sums[t], a, b[t % 2]);
  }
  float all = 0;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) all += sums[t][0] + sums[t][1] + sums[t][2] + sums[t][3];
  if (all == 1.2345f) *out = all;
}

__global__ void EmptyKernel() {}

}  // namespace

MachineLimits MeasureDeviceLimits(Device& device) {
  MachineLimits limits;
  const auto stream = static_cast<cudaStream_t>(device.stream());
  const int64_t bytes = std::min(kReadBytes, device.FreeBytes() / 2) / kBlockBytes * kBlockBytes;
  const Buffer memory = device.Allocate(bytes), out = device.Allocate(16);
  if (memory.data() == nullptr || out.data() == nullptr) return limits;
  auto* data = static_cast<uint4*>(memory.data());
  const auto blocks = static_cast<unsigned>(bytes / kBlockBytes);
  FillKernel<<<blocks * kLoads, kThreads, 0, stream>>>(data, bytes / 16);
  // Several in one graph, so that starting it weighs little.
  constexpr int kReads = 4;
  const auto reads = device.Record([&] {
    for (int i = 0; i < kReads; ++i) {
      ReadKernel<<<blocks, kThreads, 0, stream>>>(data, static_cast<uint32_t*>(out.data()));
    }
  });
  for (int i = 0; i <= kRounds && reads != nullptr; ++i) {
    const double us = device.Time([&] { device.Run(*reads); }) / kReads;
    if (i > 0) limits.read_gbps = std::max(limits.read_gbps, static_cast<double>(bytes) / us / 1e3);
  }

  const int multiply_blocks = 4 * device.gpu().multiprocessors;
  constexpr int kMultiplyRounds = 20'000;
  const double flops = static_cast<double>(multiply_blocks) * (kThreads / cuda::kWarp) * kTiles *
                       kMultiplyRounds * static_cast<double>(kTileFlops);
  for (int i = 0; i <= kRounds; ++i) {
    const double us = device.Time([&] {
      MultiplyKernel<<<multiply_blocks, kThreads, 0, stream>>>(kMultiplyRounds,
                                                               static_cast<float*>(out.data()));
    });
    if (i > 0) limits.mma_gflops = std::max(limits.mma_gflops, flops / us / 1e3);
  }

  constexpr int kLaunches = 2000;
  const auto graph = device.Record([&] {
    for (int i = 0; i < kLaunches; ++i) EmptyKernel<<<1, cuda::kWarp, 0, stream>>>();
  });
  if (graph == nullptr) return limits;
  const auto replay = [&] { return device.Time([&] { device.Run(*graph); }); };
  replay();
  limits.loop_us = std::min(replay(), replay()) / kLaunches;
  return limits;
}

}  // namespace seacliff
