// What the sm_90a row of linear takes.
#include "kernels/linear/op.h"

namespace seacliff::linear {
namespace {

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool Sm90Takes(const LinearArgs& a) {
  const Matrix& w = a.w;
  return !a.x.exact() && a.x.shape[0] >= kSm90Tokens && a.quantise &&
         w.format == WeightFormat::kFp8 && w.layout == WeightLayout::kRowMajor && w.rows > 0 &&
         w.rows % 128 == 0 && w.cols > 0 && w.cols % 128 == 0 && Aligned(a.x.data) &&
         Aligned(w.data) && Aligned(a.out.data);
}

}  // namespace seacliff::linear
