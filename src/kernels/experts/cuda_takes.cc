// What the CUDA row of experts takes and needs; host code that every build has, for the table and
// the memory plan name it.
#include <algorithm>
#include <cstdint>

#include "kernels/experts/op.h"

namespace seacliff::experts {
namespace {

// Rows that can be read 16 bytes at a time.
bool Takes(const Matrix& m, WeightFormat format) {
  return m.format == format && m.layout == WeightLayout::kRowMajor && m.cols % 32 == 0 &&
         reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
}

bool Takes(const ExpertWeights& w) {
  const WeightFormat format = w.gate.format;
  return (format == WeightFormat::kFp8 || format == WeightFormat::kMxfp4) &&
         Takes(w.gate, format) && Takes(w.up, format) && Takes(w.down, format);
}

}  // namespace

bool CudaTakes(const ExpertsArgs& a) {
  const ExpertWeights& first = a.experts.front();
  // Pointers of all experts travel with one launch, which takes 32 KB.
  return !a.x.exact() && a.experts.size() <= kCudaMostExperts &&
         reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0 &&
         std::all_of(a.experts.begin(), a.experts.end(),
                     [&](const ExpertWeights& w) {
                       return w.gate.format == first.gate.format && Takes(w);
                     }) &&
         (!a.shared.gate || (a.shared.gate.rows == first.gate.rows && Takes(a.shared)));
}

int64_t CudaWorkspace(int64_t tokens, int64_t picks, int64_t experts, int64_t dim, int64_t inter) {
  const auto bytes = [&](int64_t of, int64_t parts) {
    const int64_t slots = of * picks, all_slots = slots + of;
    const int64_t pointers = 48 * (experts + 1);  // of three matrices and their scales
    const int64_t tiles = 16 * (slots / 8 + std::min(experts, slots));  // of 8 slots or more
    const int64_t lists = 8 * all_slots + 4 * slots;  // token, weight; place of a slot
    const int64_t values = 2 * (of * dim + all_slots * inter + all_slots * dim);  // x, h, outputs
    constexpr int64_t kPieces = 8, kAligned = 256;
    return pointers + tiles + lists + values + parts + kPieces * kAligned;
  };
  // One token's products come in segments.
  const int64_t segments = (dim + kCudaSegment - 1) / kCudaSegment;
  return std::max(bytes(tokens, 0), bytes(1, 8 * picks * segments * inter));
}

}  // namespace seacliff::experts
