// cpu row of index_query.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/index_query/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <vector>

#include "kernels/common/attention-inl.h"
#include "kernels/index_query/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::index_query {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

void Run(Context& k, const IndexQueryArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  auto* q = static_cast<Bf16*>(a.q.data);
  // Waking a thread takes about as long as the heads of a token.
  const int64_t grain = std::max<int64_t>(1, 16384 / (heads * dim));
  k.pool().For(tokens, grain, [=, &a](int64_t begin, int64_t end) {
    std::vector<float> v(static_cast<size_t>(dim));
    for (int64_t t = begin; t < end; ++t) {
      const Rotation rotation(a.frequencies.data, a.positions(t), 1);
      for (int64_t row = t * heads; row < (t + 1) * heads; ++row) {
        LoadRow(q + row * dim, dim, v.data());
        rotation.Apply(v.data() + dim - kRotated);
        RoundRow(v.data() + dim - kRotated, kRotated);
        Hadamard(v.data(), dim);
        RoundRow(v.data(), dim);
        RoundTripE2m1(v.data(), dim);
        StoreRow(v.data(), dim, q + row * dim);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::index_query
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <bit>

namespace seacliff::index_query {

HWY_EXPORT(Run);

bool CpuTakes(const IndexQueryArgs& a) {
  const int64_t dim = a.q.shape[2];
  return !a.q.exact() && dim % 64 == 0 && std::has_single_bit(static_cast<uint64_t>(dim)) &&
         a.frequencies.shape[0] == 32;
}
void Cpu(Context& k, const IndexQueryArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::index_query
#endif
