// Loops that do nothing but load, or nothing but multiply and add.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/machine_limits.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::CappedTag<float, 16>;
using U32 = hn::RebindToUnsigned<F32>;

// Reads `bytes` as kStreams streams side by side, asking for lines `ahead` bytes before they are
// read (0: leaving that to the machine). bytes: a multiple of kStreams * 256.
template <int kStreams>
uint32_t ReadStreams(const std::byte* data, int64_t bytes, int64_t ahead) {
  constexpr U32 kD;
  constexpr int64_t kStep = 256;
  const auto lanes = static_cast<int64_t>(hn::Lanes(kD));
  const int64_t stream = bytes / kStreams;
  auto a = hn::Zero(kD), b = a, c = a, e = a;
  for (int64_t at = 0; at < stream; at += kStep) {
    for (int s = 0; s < kStreams; ++s) {
      const auto* p = reinterpret_cast<const uint32_t*>(data + s * stream + at);
      if (ahead != 0) {
        for (int64_t line = 0; line < kStep; line += 64) {
          hwy::Prefetch(reinterpret_cast<const std::byte*>(p) + ahead + line);
        }
      }
      for (int64_t i = 0; i < kStep / 4; i += 4 * lanes) {
        a = hn::Xor(a, hn::LoadU(kD, p + i));
        b = hn::Xor(b, hn::LoadU(kD, p + i + lanes));
        c = hn::Xor(c, hn::LoadU(kD, p + i + 2 * lanes));
        e = hn::Xor(e, hn::LoadU(kD, p + i + 3 * lanes));
      }
    }
  }
  return hn::GetLane(hn::SumOfLanes(kD, hn::Xor(hn::Xor(a, b), hn::Xor(c, e))));
}

uint32_t Read(const std::byte* data, int64_t bytes, int64_t streams, int64_t ahead) {
  switch (streams) {
    case 1:
      return ReadStreams<1>(data, bytes, ahead);
    case 2:
      return ReadStreams<2>(data, bytes, ahead);
    default:
      return ReadStreams<4>(data, bytes, ahead);
  }
}

// `rounds` times twelve independent products and sums; returns how many operations that were. They
// begin with the numbers in `values`, as the compiler would make one of those that are alike, and
// leave their sum there.
int64_t MultiplyAdd(int64_t rounds, float* values) {
  constexpr F32 kD;
  const auto m = hn::Set(kD, 0.75f), s = hn::Set(kD, 0.25f);
  auto v0 = hn::Set(kD, values[0]);
  auto v1 = hn::Set(kD, values[1]);
  auto v2 = hn::Set(kD, values[2]);
  auto v3 = hn::Set(kD, values[3]);
  auto v4 = hn::Set(kD, values[4]);
  auto v5 = hn::Set(kD, values[5]);
  auto v6 = hn::Set(kD, values[6]);
  auto v7 = hn::Set(kD, values[7]);
  auto v8 = hn::Set(kD, values[8]);
  auto v9 = hn::Set(kD, values[9]);
  auto v10 = hn::Set(kD, values[10]);
  auto v11 = hn::Set(kD, values[11]);
  for (int64_t i = 0; i < rounds; ++i) {
    v0 = hn::MulAdd(v0, m, s);
    v1 = hn::MulAdd(v1, m, s);
    v2 = hn::MulAdd(v2, m, s);
    v3 = hn::MulAdd(v3, m, s);
    v4 = hn::MulAdd(v4, m, s);
    v5 = hn::MulAdd(v5, m, s);
    v6 = hn::MulAdd(v6, m, s);
    v7 = hn::MulAdd(v7, m, s);
    v8 = hn::MulAdd(v8, m, s);
    v9 = hn::MulAdd(v9, m, s);
    v10 = hn::MulAdd(v10, m, s);
    v11 = hn::MulAdd(v11, m, s);
  }
  const auto a = hn::Add(hn::Add(hn::Add(v0, v1), hn::Add(v2, v3)), hn::Add(v4, v5));
  const auto b = hn::Add(hn::Add(hn::Add(v6, v7), hn::Add(v8, v9)), hn::Add(v10, v11));
  values[0] = hn::GetLane(hn::SumOfLanes(kD, hn::Add(a, b)));
  return rounds * 12 * 2 * static_cast<int64_t>(hn::Lanes(kD));
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

#include "kernels/common/isa.h"
#include "kernels/common/machine_limits.h"

#if HWY_ARCH_X86_64
#include <immintrin.h>
#endif

namespace seacliff {

HWY_EXPORT(Read);
HWY_EXPORT(MultiplyAdd);

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

using Burst = int64_t (*)(int64_t rounds, float* values);

int64_t F32Burst(int64_t rounds, float* values) {
  return HWY_DYNAMIC_DISPATCH(MultiplyAdd)(rounds, values);
}

#if HWY_ARCH_X86_64
__attribute__((target("avx512f,avx512bf16"))) int64_t Bf16Burst(int64_t rounds, float* values) {
  const auto ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  const auto zeros = (__m512bh)_mm512_set1_epi32(0);
  __m512 v0 = _mm512_set1_ps(values[0]);
  __m512 v1 = _mm512_set1_ps(values[1]);
  __m512 v2 = _mm512_set1_ps(values[2]);
  __m512 v3 = _mm512_set1_ps(values[3]);
  __m512 v4 = _mm512_set1_ps(values[4]);
  __m512 v5 = _mm512_set1_ps(values[5]);
  __m512 v6 = _mm512_set1_ps(values[6]);
  __m512 v7 = _mm512_set1_ps(values[7]);
  __m512 v8 = _mm512_set1_ps(values[8]);
  __m512 v9 = _mm512_set1_ps(values[9]);
  __m512 v10 = _mm512_set1_ps(values[10]);
  __m512 v11 = _mm512_set1_ps(values[11]);
  for (int64_t i = 0; i < rounds; ++i) {
    v0 = _mm512_dpbf16_ps(v0, ones, zeros);
    v1 = _mm512_dpbf16_ps(v1, ones, zeros);
    v2 = _mm512_dpbf16_ps(v2, ones, zeros);
    v3 = _mm512_dpbf16_ps(v3, ones, zeros);
    v4 = _mm512_dpbf16_ps(v4, ones, zeros);
    v5 = _mm512_dpbf16_ps(v5, ones, zeros);
    v6 = _mm512_dpbf16_ps(v6, ones, zeros);
    v7 = _mm512_dpbf16_ps(v7, ones, zeros);
    v8 = _mm512_dpbf16_ps(v8, ones, zeros);
    v9 = _mm512_dpbf16_ps(v9, ones, zeros);
    v10 = _mm512_dpbf16_ps(v10, ones, zeros);
    v11 = _mm512_dpbf16_ps(v11, ones, zeros);
  }
  const __m512 a = v0 + v1 + v2 + v3 + v4 + v5, b = v6 + v7 + v8 + v9 + v10 + v11;
  values[0] = _mm512_reduce_add_ps(a + b);
  return rounds * 12 * 2 * 32;
}

// Four accumulators of 16 x 16, two operands of 16 x 32 each: the way a product uses the tiles.
__attribute__((target("amx-tile,amx-bf16"))) int64_t AmxBurst(int64_t rounds, float* values) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  alignas(64) float tile[256] = {};
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, tile, 64);
  _tile_loadd(5, tile, 64);
  _tile_loadd(6, tile, 64);
  _tile_loadd(7, tile, 64);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, 64);
  _tile_release();
  values[0] = tile[0];
  return rounds * 4 * 2 * 16 * 16 * 32;
}
#endif

// Best of a few, all threads at once, each about 10 ms long.
double MeasureGflops(ThreadPool& pool, Burst burst) {
  const auto run = [burst](int64_t rounds) {
    float values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    return burst(rounds, values);
  };
  int64_t rounds = 1 << 10;
  for (;; rounds *= 2) {
    const auto begin = Clock::now();
    run(rounds);
    if (SecondsSince(begin) > 2.5e-3) break;
  }
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    std::atomic<int64_t> flops{0};
    const auto begin = Clock::now();
    // Four for each thread, so that one that comes late holds up less.
    pool.For(4 * pool.threads(), 1, [&](int64_t, int64_t) { flops += run(rounds); });
    best = std::max(best, static_cast<double>(flops) / SecondsSince(begin) / 1e9);
  }
  return best;
}

double MeasureLoop(ThreadPool& pool) {
  constexpr int kLoops = 500;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const auto begin = Clock::now();
    for (int loop = 0; loop < kLoops; ++loop) pool.For(pool.threads(), 1, [](int64_t, int64_t) {});
    best = std::min(best, SecondsSince(begin) * 1e6 / kLoops);
  }
  return best;
}

}  // namespace

double MachineLimits::best_gflops() const {
  return std::max({f32_gflops, bf16_gflops, amx_gflops, mma_gflops});
}

std::string MachineLimits::Describe() const {
  if (mma_gflops > 0) {
    return fmt::format(
        "reads {:.0f} GB/s; {:.0f} TFLOP/s by mma.sync of bf16; an empty launch in a graph costs "
        "{:.2f} us",
        read_gbps, mma_gflops / 1e3, loop_us);
  }
  std::string text = fmt::format("reads {:.1f} GB/s; {:.0f} GFLOP/s in f32", read_gbps, f32_gflops);
  if (bf16_gflops > 0) text += fmt::format(", {:.0f} in bf16 dot products", bf16_gflops);
  if (amx_gflops > 0) text += fmt::format(", {:.0f} in AMX tiles", amx_gflops);
  return text + fmt::format("; a loop costs {:.2f} us", loop_us);
}

double MeasureReadBandwidth(ThreadPool& pool) {
  // Slices are so short that some fall into a moment when nothing else runs here; the whole is more
  // than the caches of any machine at hand, so that a slice is forgotten when its turn comes again.
  constexpr int64_t kBytes = int64_t{1} << 30, kSlice = kBytes / 8, kPiece = int64_t{1} << 20;
  constexpr int kRounds = 4;
  constexpr double kMostSeconds = 2;
  struct Way {
    int64_t streams, ahead;
  };
  constexpr Way kWays[] = {{1, 0}, {2, 0}, {4, 0}, {1, 1024}, {2, 1024}, {4, 1024}};
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, kBytes, MADV_HUGEPAGE);  // else page tables are measured too; may be refused
  auto* data = static_cast<std::byte*>(memory);
  pool.For(kBytes, kPiece,
           [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, std::byte{1}); });
  double best = 0;
  std::atomic<uint32_t> sum{0};
  const auto start = Clock::now();
  for (int round = 0; round < kRounds && SecondsSince(start) < kMostSeconds; ++round) {
    for (const Way& way : kWays) {
      for (int64_t slice = 0; slice < kBytes; slice += kSlice) {
        const auto begin = Clock::now();
        pool.For(kSlice, kPiece, [&](int64_t from, int64_t to) {
          sum += HWY_DYNAMIC_DISPATCH(Read)(data + slice + from, to - from, way.streams, way.ahead);
        });
        best = std::max(best, static_cast<double>(kSlice) / SecondsSince(begin) / 1e9);
      }
    }
  }
  munmap(memory, kBytes);
  return best;
}

MachineLimits MeasureLimits(ThreadPool& pool) {
  MachineLimits limits;
  limits.read_gbps = MeasureReadBandwidth(pool);
  limits.f32_gflops = MeasureGflops(pool, F32Burst);
#if HWY_ARCH_X86_64
  if (CurrentIsa() >= Isa::kAvx512Bf16) limits.bf16_gflops = MeasureGflops(pool, Bf16Burst);
  if (CurrentIsa() >= Isa::kAmx) limits.amx_gflops = MeasureGflops(pool, AmxBurst);
#endif
  limits.loop_us = MeasureLoop(pool);
  return limits;
}

#ifndef SEACLIFF_CUDA  // else in machine_limits.cu
MachineLimits MeasureDeviceLimits(Device&) { return {}; }
#endif

}  // namespace seacliff
#endif  // HWY_ONCE
