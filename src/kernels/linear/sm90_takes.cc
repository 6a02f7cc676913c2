// What the sm_90a row of linear takes.
#include "kernels/linear/op.h"

namespace seacliff::linear {
namespace {

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool Sm90Takes(const LinearArgs& a) {
  if (a.x.exact() || a.x.shape[0] < kSm90Tokens || !Aligned(a.x.data)) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const LinearArgs part = a[i];
    const Matrix& w = part.w;
    if (w.format != WeightFormat::kFp8 || w.layout != WeightLayout::kRowMajor || !part.quantise ||
        w.rows == 0 || w.rows % 128 != 0 || w.cols == 0 || w.cols % 128 != 0 || !Aligned(w.data) ||
        !Aligned(part.out.data)) {
      return false;
    }
  }
  return true;
}

}  // namespace seacliff::linear
