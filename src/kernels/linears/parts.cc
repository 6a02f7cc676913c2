// The row of linears that asks linear for each part, and what the CUDA row takes in one launch.
#include <algorithm>

#include "kernels/linears/op.h"

namespace seacliff::linears {
namespace {

// Read 16 bytes at a time.
bool Streams(const Matrix& w) {
  const bool whole = w.format == WeightFormat::kFp8    ? w.cols % 16 == 0
                     : w.format == WeightFormat::kBf16 ? w.cols % 8 == 0
                                                       : false;
  return whole && w.layout == WeightLayout::kRowMajor &&
         reinterpret_cast<uintptr_t>(w.data) % 16 == 0;
}

}  // namespace

bool CudaTakes(const LinearsArgs& a) {
  const auto parts = a.parts();
  return !a.x.exact() && a.x.shape[0] <= kCudaTokens && !parts.empty() &&
         reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0 &&
         std::all_of(parts.begin(), parts.end(), [](const LinearsArgs::Part& part) {
           return Streams(part.w) && (part.w.format == WeightFormat::kFp8 || !part.quantise);
         });
}

bool CudaPartsTakes(const LinearsArgs& a) {
  bool takes = true;
  for (size_t i = 0; i < a.count; ++i) takes = takes && linear::CudaTakes(a.part(i));
  return takes;
}

void Parts(Context& k, const LinearsArgs& a) {
  for (size_t i = 0; i < a.count; ++i) Linear(k, a.part(i));
}

}  // namespace seacliff::linears
