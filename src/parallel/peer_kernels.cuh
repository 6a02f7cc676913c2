// The kernels of peer.h: each rank stores what it has to say straight into the memory of the others
// (their inboxes) and waits until its own inbox is full.
//
// A value is its own flag. Empty places of an inbox hold kEmpty, a NaN that is never sent; whoever
// reads a value makes its place empty again. Words arrive in any order and none is torn, so there
// are no fences and one trip over the link is all that a message costs.
//
// An inbox has two slots that take turns, by a count of uses that each block keeps in the memory of
// its device, so that recorded launches run again. Two are enough: before a rank writes a slot
// again it has finished the launch between, for which it needed a word from every other rank's
// launch between, and that began when its reader's launch was over. So in each launch every rank
// must hear from every other one.
#pragma once

#include <cstdint>

#include "kernels/common/cuda.cuh"

namespace seacliff::peer {

inline constexpr int kMaxRanks = 8;
inline constexpr int kMaxBlocks = 32;
inline constexpr uint32_t kEmpty = 0xffffffffu;

struct Group {
  uint4* inbox[kMaxRanks];  // of every rank, as this one addresses it
  uint4* own;               // this rank's
  uint32_t* uses;           // of each block of this rank
  uint32_t* stop;           // one for all ranks, in host memory: not 0 when nobody shall wait
  int64_t chunk;            // vectors of a block in a slot
  uint64_t patience;        // nanoseconds
  int rank, size;
  bool echo;  // rank 0 is alone: the others' inboxes are places of its own
};

// What `stop` says when `rank` has waited too long for `from`; 1 is for the host.
__host__ __device__ constexpr uint32_t GaveUp(int rank, int from) {
  return 0x100u | static_cast<uint32_t>(rank) << 4 | static_cast<uint32_t>(from);
}

// ---- words ----

__device__ inline void Send(uint4* to, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline uint4 Look(const uint4* at) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}
__device__ inline void Empty(uint4* at) { Send(at, make_uint4(kEmpty, kEmpty, kEmpty, kEmpty)); }
__device__ inline bool Full(const uint4& v) {
  return v.x != kEmpty && v.y != kEmpty && v.z != kEmpty && v.w != kEmpty;
}
// NaNs stay NaNs, of bf16 too.
__device__ inline uint32_t Sendable(uint32_t word) { return word == kEmpty ? kEmpty - 1 : word; }
__device__ inline uint4 Sendable(const uint4& v) {
  return make_uint4(Sendable(v.x), Sendable(v.y), Sendable(v.z), Sendable(v.w));
}

__device__ inline uint64_t Now() {
  uint64_t nanoseconds;
  asm volatile("mov.u64 %0, %globaltimer;\n" : "=l"(nanoseconds));
  return nanoseconds;
}

// Looks again until all of `at` is there. Once a wait is stopped the data means nothing.
__device__ inline void Await(uint4& v, const uint4* at, const Group& g, int from) {
  uint64_t begin = 0;
  for (uint32_t looks = 1; !Full(v); ++looks) {
    v = Look(at);
    if (looks % 64 != 0) continue;
    uint32_t stop;  // over the host's bus: not asked for while the others are in time
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];\n" : "=r"(stop) : "l"(g.stop) : "memory");
    if (stop != 0) return;
    const uint64_t now = Now();
    if (begin == 0) begin = now;
    if (now - begin > g.patience) {
      asm volatile("st.relaxed.sys.global.u32 [%0], %1;\n" ::"l"(g.stop), "r"(GaveUp(g.rank, from))
                   : "memory");
      return;
    }
    __nanosleep(100);
  }
}

// ---- messages ----

// Numbers of type T, 16 bytes (a vector) at a time, of which the last may be short.
template <typename T>
struct Message {
  static constexpr int kLanes = 16 / static_cast<int>(sizeof(T));
  T* data;
  int64_t count;  // numbers
  bool aligned;   // data, to 16 bytes

  __host__ __device__ int64_t vectors() const { return (count + kLanes - 1) / kLanes; }
  __device__ uint4 Get(int64_t i) const {
    if (aligned && (i + 1) * kLanes <= count)
      return *reinterpret_cast<const uint4*>(data + i * kLanes);
    union {
      uint4 v;
      T lane[kLanes];
    } u = {make_uint4(0, 0, 0, 0)};
    for (int l = 0; l < kLanes; ++l) {
      if (i * kLanes + l < count) u.lane[l] = data[i * kLanes + l];
    }
    return u.v;
  }
  __device__ void Put(int64_t i, const uint4& v) const {
    if (aligned && (i + 1) * kLanes <= count) {
      *reinterpret_cast<uint4*>(data + i * kLanes) = v;
      return;
    }
    union {
      uint4 v;
      T lane[kLanes];
    } u = {v};
    for (int l = 0; l < kLanes; ++l) {
      if (i * kLanes + l < count) data[i * kLanes + l] = u.lane[l];
    }
  }
};

// Sums in f32, rounded once.
template <typename T>
struct Sum;
template <>
struct Sum<float> {
  float v[4];
  __device__ void Set(const uint4& a) {
    v[0] = __uint_as_float(a.x), v[1] = __uint_as_float(a.y);
    v[2] = __uint_as_float(a.z), v[3] = __uint_as_float(a.w);
  }
  __device__ void Add(const uint4& a) {
    v[0] += __uint_as_float(a.x), v[1] += __uint_as_float(a.y);
    v[2] += __uint_as_float(a.z), v[3] += __uint_as_float(a.w);
  }
  __device__ uint4 Rounded() const {
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                      __float_as_uint(v[3]));
  }
};
template <>
struct Sum<Bf16> {
  float v[8];
  __device__ void Set(const uint4& a) {
    const uint32_t w[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[2 * i] = cuda::LowOf(w[i]), v[2 * i + 1] = cuda::HighOf(w[i]);
  }
  __device__ void Add(const uint4& a) {
    const uint32_t w[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[2 * i] += cuda::LowOf(w[i]), v[2 * i + 1] += cuda::HighOf(w[i]);
  }
  __device__ uint4 Rounded() const {
    return make_uint4(cuda::Bf16Pair(v[0], v[1]), cuda::Bf16Pair(v[2], v[3]),
                      cuda::Bf16Pair(v[4], v[5]), cuda::Bf16Pair(v[6], v[7]));
  }
};

// The part of every inbox that one block of a launch uses: [area][source][slot][block][chunk].
struct Places {
  int64_t first, of_source, of_area;

  __device__ Places(const Group& g, uint32_t slot)
      : first((int64_t{slot} * kMaxBlocks + blockIdx.x) * g.chunk),
        of_source(2 * kMaxBlocks * g.chunk),
        of_area(g.size * of_source) {}
  __device__ int64_t At(int area, int source) const {
    return first + source * of_source + area * of_area;
  }
};

// Afterwards, by all threads: the next launch takes the other slot.
__device__ inline void CountUse(const Group& g, uint32_t slot) {
  __syncthreads();
  if (threadIdx.x == 0) g.uses[blockIdx.x] = slot ^ 1;
}

// ---- all-reduce ----

// Every rank sends all it has to every other one: at most kRanks of them, kMany vectors at a time.
template <typename T, int kRanks, int kMany>
__global__ void __launch_bounds__(512, 2) OneShot(const Group g, const Message<T> m) {
  cuda::LetNextStart();
  cuda::WaitForEarlier();
  const uint32_t slot = g.uses[blockIdx.x];
  const Places places(g, slot);
  const int64_t vectors = m.vectors(), step = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;

  for (int64_t i = first, at = threadIdx.x; i < vectors;
       i += kMany * step, at += kMany * blockDim.x) {
    uint4 own[kMany];
#pragma unroll
    for (int n = 0; n < kMany; ++n) {
      if (i + n * step < vectors) own[n] = m.Get(i + n * step);
    }
#pragma unroll
    for (int n = 0; n < kMany; ++n) {
      if (i + n * step >= vectors) continue;
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (r >= g.size || r == g.rank) continue;
        Send(g.inbox[r] + places.At(0, g.rank) + at + n * blockDim.x, Sendable(own[n]));
      }
    }
  }

  uint4* const inbox = g.own;
  for (int64_t i = first, at = threadIdx.x; i < vectors;
       i += kMany * step, at += kMany * blockDim.x) {
    uint4 in[kMany][kRanks];
#pragma unroll
    for (int n = 0; n < kMany; ++n) {
      const int64_t vector = i + n * step;
      if (vector >= vectors) continue;
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (r >= g.size) continue;
        in[n][r] =
            r == g.rank ? m.Get(vector) : Look(inbox + places.At(0, r) + at + n * blockDim.x);
      }
    }
#pragma unroll
    for (int n = 0; n < kMany; ++n) {
      const int64_t vector = i + n * step;
      if (vector >= vectors) continue;
      Sum<T> sum;
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (r >= g.size) continue;
        uint4* const place = inbox + places.At(0, r) + at + n * blockDim.x;
        if (r != g.rank) Await(in[n][r], place, g, r);
        r == 0 ? sum.Set(in[n][r]) : sum.Add(in[n][r]);
        if (r != g.rank) Empty(place);
      }
      m.Put(vector, sum.Rounded());
    }
  }
  CountUse(g, slot);
}

// Rank r adds up the r-th piece of the message and sends the sum to the others. No piece may be
// empty: at least size^2 vectors.
template <typename T, int kRanks>
__global__ void __launch_bounds__(512, 2) TwoShot(const Group g, const Message<T> m) {
  cuda::LetNextStart();
  cuda::WaitForEarlier();
  const uint32_t slot = g.uses[blockIdx.x];
  const Places places(g, slot);
  const int64_t vectors = m.vectors(), piece = (vectors + g.size - 1) / g.size;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint4* const inbox = g.own;

  for (int64_t i = first, at = threadIdx.x; i < piece; i += step, at += blockDim.x) {
    const auto sent = [&](int r) { return r < g.size && r != g.rank && r * piece + i < vectors; };
    uint4 own[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (sent(r)) own[r] = m.Get(r * piece + i);
    }
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (sent(r)) Send(g.inbox[r] + places.At(0, g.rank) + at, Sendable(own[r]));
    }
  }
  for (int64_t i = first, at = threadIdx.x; i < piece; i += step, at += blockDim.x) {
    const int64_t vector = g.rank * piece + i;
    if (vector >= vectors) break;
    uint4 in[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= g.size) continue;
      in[r] = r == g.rank ? m.Get(vector) : Look(inbox + places.At(0, r) + at);
    }
    Sum<T> sum;
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= g.size) continue;
      uint4* const place = inbox + places.At(0, r) + at;
      if (r != g.rank) Await(in[r], place, g, r);
      r == 0 ? sum.Set(in[r]) : sum.Add(in[r]);
      if (r != g.rank) Empty(place);
    }
    const uint4 result = sum.Rounded();
    m.Put(vector, result);
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r < g.size && r != g.rank) {
        Send(g.inbox[r] + places.At(1, g.rank) + at, Sendable(result));
      }
    }
  }
  for (int64_t i = first, at = threadIdx.x; i < piece; i += step, at += blockDim.x) {
    uint4 in[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= g.size || r == g.rank || r * piece + i >= vectors) continue;
      in[r] = Look(inbox + places.At(1, r) + at);
    }
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= g.size || r == g.rank || r * piece + i >= vectors) continue;
      uint4* const place = inbox + places.At(1, r) + at;
      Await(in[r], place, g, r);
      m.Put(r * piece + i, in[r]);
      Empty(place);
    }
  }
  CountUse(g, slot);
}

// ---- gather ----

// Rank 0's table, into which numbers [begin, begin + count) of each rank's matrix of `columns`
// columns go.
struct Table {
  float* data;
  int64_t stride, columns, begin;
};

__device__ inline void Lay(const Table& t, const Message<float>& m, int rank, int64_t i,
                           const uint4& v) {
  const float lane[4] = {__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                         __uint_as_float(v.w)};
  int64_t row = (t.begin + i * 4) / t.columns, column = (t.begin + i * 4) % t.columns;
#pragma unroll
  for (int l = 0; l < 4; ++l) {
    if (i * 4 + l >= m.count) break;
    t.data[row * t.stride + rank * t.columns + column] = lane[l];
    if (++column == t.columns) ++row, column = 0;
  }
}

// Ranks send all they have to rank 0 alone, and a token to the others, as does rank 0.
static __global__ void __launch_bounds__(512, 2)
    Gather(const Group g, const Message<float> m, const Table table) {
  cuda::LetNextStart();
  cuda::WaitForEarlier();
  const uint32_t slot = g.uses[blockIdx.x];
  const Places places(g, slot);
  const int64_t vectors = m.vectors(), step = int64_t{gridDim.x} * blockDim.x;
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint4* const inbox = g.own;

  const bool sends_token =
      !g.echo && blockIdx.x == 0 && threadIdx.x < g.size && threadIdx.x != g.rank;
  const int other = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int r = 0; r < kMaxRanks; ++r) {
    if (!sends_token || r != other || (g.rank != 0 && r == 0)) continue;
    Send(g.inbox[r] + places.At(0, g.rank), make_uint4(0, 0, 0, 0));
  }
  for (int64_t i = first, at = threadIdx.x; i < vectors; i += step, at += blockDim.x) {
    const uint4 own = m.Get(i);
    if (g.rank != 0) {
      Send(g.inbox[0] + places.At(0, g.rank) + at, Sendable(own));
      continue;
    }
    Lay(table, m, 0, i, own);
    for (int r = 1; r < g.size; ++r) {
      uint4* const place = inbox + places.At(0, r) + at;
      if (g.echo) Send(place, Sendable(own));
      uint4 in = Look(place);
      Await(in, place, g, r);
      Empty(place);
      Lay(table, m, r, i, in);
    }
  }
  if (g.rank != 0 && sends_token) {
    uint4* const place = inbox + places.At(0, other);
    uint4 in = Look(place);
    Await(in, place, g, other);
    Empty(place);
  }
  CountUse(g, slot);
}

}  // namespace seacliff::peer
