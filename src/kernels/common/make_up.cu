// The same bytes as checkpoint/dummy.cc makes on the host: a thread makes 8 of them, or those that
// are left of a row.
#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/common/cuda.cuh"
#include "kernels/common/make_up.h"

namespace seacliff {
namespace {

using Kind = FillRule::Kind;

constexpr int kThreads = 256;
constexpr size_t kMostCodes = 4096;

struct Params {
  uint64_t key, word;
  uint32_t mask;          // codes - 1
  const uint32_t* codes;  // on the device
  int64_t picks, experts;
  TensorRows rows;
  uint8_t* to;
  bool whole;  // rows begin and end at words of the tensor, and `to` at one
};

__device__ uint64_t HashAt(uint64_t key, int64_t place) {
  uint64_t x = key + static_cast<uint64_t>(place) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// The id at a place of the table of expert ids; its row's ids before it come first.
__device__ int64_t ExpertId(const Params& p, int64_t place) {
  const int64_t row = place / p.picks * p.picks;
  constexpr int kMostPicks = 64;
  int64_t ids[kMostPicks];
  for (int64_t i = 0;; ++i) {
    auto id = static_cast<int64_t>(HashAt(p.key, row + i) % static_cast<uint64_t>(p.experts));
    for (bool taken = true; taken;) {
      taken = false;
      for (int64_t j = 0; j < i; ++j) taken = taken || ids[j] == id;
      if (taken) id = (id + 1) % p.experts;
    }
    if (row + i == place || i + 1 == kMostPicks) return id;
    ids[i] = id;
  }
}

template <Kind kKind, int kWidth = 0>
__device__ uint64_t WordAt(const Params& p, const uint32_t* codes, int64_t place) {
  if constexpr (kKind == Kind::kRepeat) return p.word;
  if constexpr (kKind == Kind::kExpertIds) return static_cast<uint64_t>(ExpertId(p, place));
  const uint64_t h = HashAt(p.key, place);
  if constexpr (kKind == Kind::kScales) return p.word - (h & 0x0101010101010101ull);
  if constexpr (kKind == Kind::kTable) {
    uint64_t made = 0;
#pragma unroll
    for (int bit = 0; bit < 64; bit += 8 * kWidth) {
      made |= static_cast<uint64_t>(codes[(h >> bit) & p.mask]) << bit;
    }
    return made;
  }
  return h;
}

template <Kind kKind, int kWidth = 0>
__global__ void Make(const Params p) {
  __shared__ uint32_t codes[kKind == Kind::kTable ? kMostCodes : 1];
  if constexpr (kKind == Kind::kTable) {
    for (uint32_t i = threadIdx.x; i <= p.mask; i += kThreads) codes[i] = p.codes[i];
    __syncthreads();
  }
  const int64_t words = (p.rows.bytes + 7) / 8;  // of a row
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.rows.rows * words;
       i += step) {
    const int64_t row = i / words, at = (i - row * words) * 8;
    const int64_t from = p.rows.begin + row * p.rows.pitch + at;
    uint8_t* const to = p.to + row * p.rows.bytes + at;
    if (p.whole) {
      *reinterpret_cast<uint64_t*>(to) = WordAt<kKind, kWidth>(p, codes, from / 8);
      continue;
    }
    for (int64_t b = 0; b < 8 && at + b < p.rows.bytes; ++b) {
      const int64_t byte = from + b;
      to[b] = static_cast<uint8_t>(WordAt<kKind, kWidth>(p, codes, byte / 8) >> (8 * (byte % 8)));
    }
  }
}

void (*KernelOf(const FillRule& rule))(Params) {
  switch (rule.kind) {
    case Kind::kRepeat:
      return Make<Kind::kRepeat>;
    case Kind::kHash:
      return Make<Kind::kHash>;
    case Kind::kScales:
      return Make<Kind::kScales>;
    case Kind::kExpertIds:
      return Make<Kind::kExpertIds>;
    case Kind::kTable:
      return rule.width == 1   ? Make<Kind::kTable, 1>
             : rule.width == 2 ? Make<Kind::kTable, 2>
                               : Make<Kind::kTable, 4>;
  }
  return nullptr;
}

}  // namespace

void MakeUp(Device& device, const FillRule& rule, const TensorRows& rows, void* to) {
  if (rows.rows == 0 || rows.bytes == 0) return;
  Params p = {};
  p.key = rule.key;
  p.word = rule.word;
  p.picks = rule.picks;
  p.experts = rule.experts;
  p.rows = rows;
  p.to = static_cast<uint8_t*>(to);
  p.whole = rows.begin % 8 == 0 && rows.bytes % 8 == 0 && rows.pitch % 8 == 0 &&
            reinterpret_cast<uintptr_t>(to) % 8 == 0;
  if (rule.kind == Kind::kTable) {
    const auto bytes = static_cast<int64_t>(rule.codes->size() * sizeof(uint32_t));
    SC_CHECK(rule.codes->size() <= kMostCodes);
    void* const codes = device.Workspace(kMostCodes * sizeof(uint32_t));
    if (codes == nullptr) return;
    device.Upload(codes, rule.codes->data(), bytes);
    p.codes = static_cast<const uint32_t*>(codes);
    p.mask = static_cast<uint32_t>(rule.codes->size() - 1);
  }
  const int64_t words = rows.rows * cuda::CeilDiv(rows.bytes, 8);
  const int64_t blocks =
      std::min<int64_t>(cuda::CeilDiv(words, kThreads), 8 * device.gpu().multiprocessors);
  KernelOf(rule)<<<static_cast<uint32_t>(blocks), kThreads, 0,
                   static_cast<cudaStream_t>(device.stream())>>>(p);
}

}  // namespace seacliff
