// What the CUDA rows share: the launch, warps, the number formats of the checkpoints, and the
// tensor core instructions that every card from sm_80 on has. Device code of a row stays in its .cu
// file, which may not include fmt: nvcc cannot compile its version 9.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "base/numbers.h"
#include "kernels/common/overlap_sm90.cuh"
#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff::cuda {

inline constexpr int kWarp = 32;

inline cudaStream_t Stream(Context& k) { return static_cast<cudaStream_t>(k.device()->stream()); }
inline int Multiprocessors(Context& k) { return k.device()->gpu().multiprocessors; }
// What a block may ask for; never above the device's own limit.
inline int64_t SharedLimit(Context& k) { return k.device()->gpu().shared_memory; }

// After a launch: a bad configuration fails the step here; what goes wrong later is told by the
// next wait.
inline void CheckLaunch(Context& k, const char* op) {
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) {
    k.Fail(Internal(std::string("CUDA: launch of ") + op + ": " + cudaGetErrorString(code)));
  }
}

// From now on launches of the kernel may ask for so many bytes of dynamic shared memory, or for as
// many as ever were allowed: another rank's thread may be about to launch it.
void AllowShared(Context& k, const void* kernel, int64_t bytes);

// Launches with `shared` bytes of dynamic shared memory, above 48 KB too. A grid without blocks is
// not launched.
template <typename... Params, typename... Args>
void Launch(Context& k, const char* op, void (*kernel)(Params...), dim3 grid, dim3 block,
            int64_t shared, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const cudaStream_t stream = Stream(k);
  AllowShared(k, reinterpret_cast<const void*>(kernel), shared);
  kernel<<<grid, block, static_cast<size_t>(shared), stream>>>(static_cast<Params>(args)...);
  CheckLaunch(k, op);
}

// The same for a kernel that may start while those before it still run (programmatic dependent
// launch; an ordinary launch on cards and in code older than sm_90). Such a kernel may read at once
// what no launch of a step writes, weights above all. Before it reads anything else, and before it
// writes anything, every thread calls WaitForEarlier.
template <typename... Params, typename... Args>
void LaunchOverlapped(Context& k, const char* op, void (*kernel)(Params...), dim3 grid, dim3 block,
                      int64_t shared, Args... args) {
  if (!k.device()->overlaps()) return Launch(k, op, kernel, grid, block, shared, args...);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const cudaStream_t stream = Stream(k);
  AllowShared(k, reinterpret_cast<const void*>(kernel), shared);
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  CheckLaunch(k, op);
}

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- numbers ----

__device__ inline float Load(const Bf16* p) {
  return __uint_as_float(static_cast<uint32_t>(p->bits) << 16);
}
__device__ inline uint16_t Bf16Bits(float v) {  // nearest, ties to even
  return __bfloat16_as_ushort(__float2bfloat16_rn(v));
}
__device__ inline void Store(Bf16* p, float v) { p->bits = Bf16Bits(v); }
__device__ inline float RoundBf16(float v) { return __bfloat162float(__float2bfloat16_rn(v)); }

// Two bf16 in a word, the first in its lower half.
__device__ inline float LowOf(uint32_t two) { return __uint_as_float(two << 16); }
__device__ inline float HighOf(uint32_t two) { return __uint_as_float(two & 0xffff0000u); }
__device__ inline uint32_t Bf16Pair(float low, float high) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&two);
}
// The products of both halves.
__device__ inline uint32_t Times(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                         *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}

// 2^(code - 127); code 0 is 2^-127.
__device__ inline float FromE8m0(uint8_t code) {
  return __uint_as_float(code == 0 ? 0x00400000u : static_cast<uint32_t>(code) << 23);
}

// 1 / FromE8m0(code); that of 2^127 is subnormal but exact.
__device__ inline float InverseE8m0(uint8_t code) {
  return FromE8m0(static_cast<uint8_t>(254 - code));
}

// Two e4m3 (the low two bytes) to two f16, each 2^-8 of its value: an e4m3 is an f16 whose exponent
// is off by 8, subnormal values included.
__device__ inline __half2 HalvesFromE4m3(uint16_t two) {
  const uint32_t wide = __byte_perm(two, 0, 0x1404);  // bytes to the upper halves of two f16
  const uint32_t bits = ((wide & 0x7f007f00u) >> 1) | (wide & 0x80008000u);
  return *reinterpret_cast<const __half2*>(&bits);
}
inline constexpr float kE4m3Unit = 256.0f;
__device__ inline float FromE4m3(uint8_t code) {
  return __low2float(HalvesFromE4m3(code)) * kE4m3Unit;
}
__device__ inline float FromE2m1(uint8_t code) {  // the low four bits
  const uint32_t magnitude = code & 7;
  const float v = magnitude < 2
                      ? 0.5f * static_cast<float>(magnitude)
                      : __uint_as_float((126 + (magnitude >> 1)) << 23 | (magnitude & 1) << 22);
  return (code & 8) != 0 ? -v : v;
}

// v rounded to the nearest e4m3 value, ties to even, saturating at 448.
__device__ inline float RoundE4m3(float v) {
  const float a = fminf(fabsf(v), 448.0f);
  float r;
  if (a < 0x1p-6f) {
    r = __fmul_rn(rintf(__fmul_rn(a, 512.0f)), 1.0f / 512.0f);
  } else {
    uint32_t u = __float_as_uint(a);
    u = (u + 0x7ffffu + ((u >> 20) & 1u)) & 0xfff00000u;
    r = __uint_as_float(u);
  }
  return copysignf(r, v);
}
// The code of a value that RoundE4m3 gave.
__device__ inline uint8_t E4m3Code(float v) {
  const uint32_t u = __float_as_uint(v);
  const float a = fabsf(v);
  const uint32_t code =
      a < 0x1p-6f ? static_cast<uint32_t>(a * 512.0f) : (__float_as_uint(a) >> 20) - (120u << 3);
  return static_cast<uint8_t>(code | (u >> 24 & 0x80u));
}
// The code of the nearest e2m1 value, ties to the even code, saturating at 6.
__device__ inline uint8_t E2m1Code(float v) {
  const float a = fabsf(v);
  const uint8_t code = a <= 0.25f   ? 0
                       : a < 0.75f  ? 1
                       : a <= 1.25f ? 2
                       : a < 1.75f  ? 3
                       : a <= 2.5f  ? 4
                       : a < 3.5f   ? 5
                       : a <= 5.0f  ? 6
                                    : 7;
  return static_cast<uint8_t>(code | (__float_as_uint(v) >> 28 & 8u));
}

// The smallest power of two that is not below v (v > 0, normal), as an e8m0 code.
__device__ inline uint8_t Pow2Ceil(float v) {
  const uint32_t u = __float_as_uint(v);
  return static_cast<uint8_t>((u >> 23) + ((u & 0x7fffffu) != 0 ? 1u : 0u));
}
// Block scales of activations and entries, from the largest magnitude of the block.
__device__ inline uint8_t E4m3ScaleCode(float amax) {
  return Pow2Ceil(__fmul_rn(fmaxf(amax, 1e-4f), 1.0f / 448.0f));
}
__device__ inline uint8_t E2m1ScaleCode(float amax) {
  return Pow2Ceil(__fmul_rn(fmaxf(amax, 6.0f * 0x1p-126f), 1.0f / 6.0f));
}

// ---- warps ----

__device__ inline float WarpSum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}
__device__ inline float WarpMax(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
  }
  return v;
}
// Over a block of whole warps, at most 1,024 threads; `scratch` is 32 floats of shared memory.
// Every thread gets the result; the order of the sum is the same in every run.
__device__ inline float BlockSum(float v, float* scratch) {
  v = WarpSum(v);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  __syncthreads();
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  return WarpSum(lane < warps ? scratch[lane] : 0.0f);
}

// Whether `blocks` - 1 other blocks came to this ticket before; what they wrote is then seen. The
// ticket is one of Device::counters(), 0 before and, after the last, again.
__device__ inline bool LastOf(uint32_t* ticket, uint32_t blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;\n"
                 : "=r"(before)
                 : "l"(ticket)
                 : "memory");
    last = before == blocks - 1;
    if (last) *ticket = 0;
  }
  __syncthreads();
  return last;
}

// ---- tensor cores and asynchronous copies, sm_80 ----

// d += a b: a 16 x 16 and b 16 x 8 of bf16, d 16 x 8 of f32, spread over a warp as PTX says for
// mma.m16n8k16: with g = lane / 4 and t = lane % 4, a = rows g, g + 8 of columns 2t, 2t + 1, then
// of columns 2t + 8, 2t + 9 (a[0]: row g, a[1]: row g + 8, a[2]: row g, a[3]: row g + 8); b = rows
// 2t, 2t + 1 (b[0]) and 2t + 8, 2t + 9 (b[1]) of column g; d = row g columns 2t, 2t + 1, then row
// g + 8.
__device__ inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same with f16 factors.
__device__ inline void MmaF16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void LoadMatrix4(uint32_t (&r)[4], const void* shared) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* shared) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// 16 bytes from global to shared memory in the background; zeros if !valid (`from` is then not
// read).
__device__ inline void CopyAsync16(void* shared, const void* from, bool valid = true) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from),
               "r"(valid ? 16 : 0));
}
// The same of 8 bytes.
__device__ inline void CopyAsync8(void* shared, const void* from, bool valid = true) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(address), "l"(from),
               "r"(valid ? 8 : 0));
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n"); }
template <int kPending>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

}  // namespace seacliff::cuda
