// Products with packed weights for the cpu rows: x W^T, a tile of 64 rows of W at a time.
//
// For each output: partial sums of 128 columns (32 for kMxfp4), one fused multiply-add a column in
// ascending order, scaled and added up in ascending order in f32. Instruction sets with bf16 dot
// products (isa.h) add up the 128 columns in their units' order instead. Either way the order is
// the same for any number of tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/threads.h"
#include "kernels/common/isa.h"
#include "kernels/common/packing.h"
#include "tensor/view.h"

namespace seacliff {

// Rows begin .. begin + count of a MatMulInput: those that meet the same weights.
struct Segment {
  int64_t begin = 0, count = 0;
};

// Activations as the products read them, divided by their scales if quantised: in passes of a few
// rows of one segment.
class MatMulInput {
 public:
  // Row i is row order[i] of x (row i without an order). x: [rows, cols] bf16, cols % 32 == 0.
  // `quantise`: rounded to e4m3 with a power-of-two scale for each 128 columns. `segments` follow
  // one another and cover all rows. Memory is reused from call to call.
  void Prepare(ThreadPool& pool, const Act<2>& x, bool quantise, std::span<const Segment> segments,
               std::span<const int32_t> order = {});

  int64_t cols() const { return cols_; }
  const std::vector<Segment>& segments() const { return segments_; }
  // The instruction set that they are laid out for.
  Isa isa() const { return isa_; }
  // Rows of a full pass; the last pass of a segment may have fewer.
  int64_t pass_rows() const { return pass_rows_; }
  // The pass that begins at this row: [cols, rows of the pass];
  const float* pass(int64_t row) const { return values_.data() + row * cols_; }
  // for kAvx512Bf16 pairs of bf16, [cols / 2, rows of the pass];
  const uint32_t* pairs(int64_t row) const {
    return reinterpret_cast<const uint32_t*>(values_.data()) + row * cols_ / 2;
  }
  // for kAmx [rows of the pass, cols], and 16 rows may be read from any on.
  const Bf16* bf16(int64_t row) const {
    return reinterpret_cast<const Bf16*>(values_.data()) + row * cols_;
  }
  // One for each 128 columns of a row; 1 if not quantised.
  const float* scales(int64_t row) const { return scales_.data() + row * blocks(); }

 private:
  int64_t blocks() const { return (cols_ + 127) / 128; }

  Isa isa_ = Isa::kPlain;
  int64_t cols_ = 0, pass_rows_ = 1;
  std::vector<Segment> segments_;
  std::vector<float> values_, scales_;
};

// out[i, r] = sum_k x[rows.begin + i, k] * w[64 * tile + r, k]; out: [rows.count, 64]. `rows` is
// part of a segment, beginning at one of its passes and ending with one. Runs on the calling
// thread. w: kTiles.
void MultiplyTile(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows, float* out);

// Most rows of x in one call that takes sums of them: so many stay in cache.
inline constexpr int64_t kMaxPartRows = 256;

// Calls body(part) for parts of a segment that are at most that long.
template <typename Body>
void ForParts(const MatMulInput& x, Segment segment, const Body& body) {
  const int64_t most = kMaxPartRows / x.pass_rows() * x.pass_rows();
  for (int64_t begin = 0; begin < segment.count; begin += most) {
    body(Segment{segment.begin + begin, std::min(most, segment.count - begin)});
  }
}

// All tiles, in parallel. One segment: out[t, n] = sum_k x[t, k] * w[n, k]. With more, each is all
// tokens of one equal part of w's rows, a multiple of 64. out: [tokens, w.rows].
void MatMul(ThreadPool& pool, const Matrix& w, const MatMulInput& x, const Act<2>& out);

// Stores `count` values to out's elements from `begin` on.
void StoreValues(const float* values, int64_t count, const Act<2>& out, int64_t begin);

}  // namespace seacliff
