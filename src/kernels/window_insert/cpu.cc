// cpu row of window_insert.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/window_insert/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <vector>

#include "kernels/common/attention-inl.h"
#include "kernels/window_insert/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::window_insert {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

void Run(Context& k, const WindowInsertArgs& a) {
  const int64_t dim = a.kv.shape[1];
  const auto* kv = static_cast<const Bf16*>(a.kv.data);
  k.pool().For(a.kv.shape[0], 32, [=, &a](int64_t begin, int64_t end) {
    std::vector<Bf16> normed(static_cast<size_t>(dim));
    std::vector<float> v(static_cast<size_t>(dim));
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = a.batch.positions(t);
      NormRow(kv + t * dim, a.weight.data, dim, a.eps, normed.data());
      LoadRow(normed.data(), dim, v.data());
      Rotation(a.frequencies.data, position, 1).Apply(v.data() + dim - kRotated);
      const int64_t page = a.batch.window_pages(a.batch.seq_of(t), position / kPageTokens);
      StoreKvEntry(a.window, page, position % kPageTokens, v.data());
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::window_insert
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::window_insert {

HWY_EXPORT(Run);

bool CpuTakes(const WindowInsertArgs& a) {
  return !a.kv.exact() && a.window.format == EntryFormat::kKvFp8 && a.kv.shape[1] % 64 == 0 &&
         a.frequencies.shape[0] == 32;
}
void Cpu(Context& k, const WindowInsertArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::window_insert
#endif
