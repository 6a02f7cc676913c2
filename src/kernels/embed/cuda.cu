// cuda row of embed: a block copies a row of the table into all streams of a token.
#include <type_traits>

#include "kernels/common/cuda.cuh"
#include "kernels/embed/op.h"

namespace seacliff::embed {
namespace {

struct Params {
  const int32_t* ids;
  const void* table;
  void* streams;
  int64_t first, rows;  // ids of the table
  int64_t count, row;   // streams of a token, elements of a row
};

// From: an element of the table; To: of the streams.
template <typename From, typename To>
__global__ void Copy(const Params p) {
  const int64_t token = blockIdx.x, i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  cuda::LetNextStart();
  cuda::WaitForEarlier();
  if (i >= p.row) return;
  const int64_t id = p.ids[token] - p.first;
  const bool here = id >= 0 && id < p.rows;
  const From v = here ? static_cast<const From*>(p.table)[id * p.row + i] : From{};
  auto* to = static_cast<To*>(p.streams) + token * p.count * p.row + i;
  To out;
  if constexpr (std::is_same_v<From, float>) {
    cuda::Store(&out, v);
  } else {
    out = v;
  }
  for (int64_t s = 0; s < p.count; ++s) to[s * p.row] = out;
}

}  // namespace

void Cuda(Context& k, const EmbedArgs& a) {
  constexpr int64_t kThreads = 128;
  const int64_t tokens = a.ids.shape[0], dim = a.streams.shape[2];
  Params p = {a.ids.data,         a.table.data, a.streams.data, a.first, a.table.rows,
              a.streams.shape[1], dim};
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  auto kernel = Copy<Bf16, Bf16>;
  if (a.table.format == WeightFormat::kF32) {
    kernel = Copy<float, Bf16>;
  } else if (dim % 8 == 0 && aligned(p.table) && aligned(p.streams)) {
    kernel = Copy<uint4, uint4>;
    p.row = dim / 8;
  }
  const dim3 grid(static_cast<unsigned>(tokens),
                  static_cast<unsigned>(cuda::CeilDiv(p.row, kThreads)));
  cuda::LaunchOverlapped(k, "embed", kernel, grid, kThreads, 0, p);
}

}  // namespace seacliff::embed
