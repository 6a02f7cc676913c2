// What the cpu rows of mhc_boundary and mhc_head share (spec/model.md 2.3): four residual streams
// of bf16. Included once for each instruction set, as simd-inl.h is.
#if defined(SEACLIFF_MHC_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SEACLIFF_MHC_INL
#undef SEACLIFF_MHC_INL
#else
#define SEACLIFF_MHC_INL
#endif

#include <algorithm>

#include "base/threads.h"
#include "hwy/cache_control.h"
#include "kernels/common/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {

inline constexpr int64_t kStreams = 4;

// A dot product with a row of fn is cut into pieces of up to kPiece columns of one stream, and a
// block is the pieces of all streams at the same columns. The sum of a piece is one number; pieces
// are added up block by block, stream by stream. So neither threads nor the tokens beside it change
// the bits of a token.
inline constexpr int64_t kPiece = 512;

HWY_INLINE int64_t Blocks(int64_t dim) { return (dim + kPiece - 1) / kPiece; }

// What is summed for a token: a number for each row of fn, and the squares.
inline constexpr int64_t kSlot = 32, kSquares = 31;

// Sums are taken for some rows of fn and some tokens at the same time, so that all of them are in
// registers.
inline constexpr int64_t kTileTokens = 4;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_EMU128
inline constexpr int64_t kTileSums = 12;  // of 16 vector registers
#else
inline constexpr int64_t kTileSums = 24;  // of 32
#endif
constexpr int64_t TileRows(int64_t rows, int64_t tokens) {
  int64_t tile = std::min<int64_t>(6, kTileSums / tokens);
  while (rows % tile != 0) --tile;
  return tile;
}

// Columns begin .. begin + count of every stream.
struct Columns {
  Columns(int64_t index, int64_t dim)
      : begin(index * kPiece), count(std::min(kPiece, dim - begin)), ahead(count) {
    if (begin + count == dim) ahead = 0;
  }
  int64_t begin, count;
  int64_t ahead;  // how far away the next block is, if there is one
};

// The four sums, in lane order ((0 + 2) + (1 + 3)) of each 128 bits, then by halves.
template <class D, class V>
HWY_INLINE auto SumBlocks(D d, V v) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return SumBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
HWY_INLINE void StoreSums(VF a, VF b, VF c, VF d, float* out) {
  using F64 = hn::Repartition<double, F32>;
  const VF ab = hn::Add(hn::InterleaveLower(kF32, a, b), hn::InterleaveUpper(kF32, a, b));
  const VF cd = hn::Add(hn::InterleaveLower(kF32, c, d), hn::InterleaveUpper(kF32, c, d));
  const auto ab2 = hn::BitCast(F64(), ab), cd2 = hn::BitCast(F64(), cd);
  const VF low = hn::BitCast(kF32, hn::InterleaveLower(F64(), ab2, cd2));
  const VF high = hn::BitCast(kF32, hn::InterleaveUpper(F64(), ab2, cd2));
  hn::StoreU(SumBlocks(kF32, hn::Add(low, high)), hn::FixedTag<float, 4>(), out);
}

// Takes y into a block of a token's streams [kStreams, dim], with the token's mix (post, then C row
// by row), if kPost. Leaves the block's values in x [kStreams, stride] and returns the sum of their
// squares.
template <bool kPost>
HWY_INLINE float PostBlock(const Columns& columns, Bf16* streams, int64_t dim, const Bf16* y,
                           const float* mix, float* x, int64_t stride) {
  VF post[kStreams], c[kStreams * kStreams], square[kStreams];
  for (int64_t s = 0; s < kStreams; ++s) square[s] = hn::Zero(kF32);
  if constexpr (kPost) {
    for (int64_t s = 0; s < kStreams; ++s) post[s] = hn::Set(kF32, mix[s]);
    for (int64_t s = 0; s < kStreams * kStreams; ++s) c[s] = hn::Set(kF32, mix[kStreams + s]);
  }
  for (int64_t i = 0; i < columns.count; i += Lanes()) {
    Bf16* at = streams + columns.begin + i;
    VF v[kStreams];
#pragma GCC unroll 4
    for (int64_t s = 0; s < kStreams; ++s) {
      v[s] = LoadBf16(at + s * dim);
      hwy::Prefetch(at + s * dim + columns.ahead);
    }
    if constexpr (kPost) {
      const VF in = LoadBf16(y + columns.begin + i);
      hwy::Prefetch(y + columns.begin + i + columns.ahead);
      VF sum[kStreams];
#pragma GCC unroll 4
      for (int64_t s = 0; s < kStreams; ++s) {
        sum[s] = hn::Mul(c[s], v[0]);
#pragma GCC unroll 4
        for (int64_t j = 1; j < kStreams; ++j) {
          sum[s] = hn::MulAdd(c[j * kStreams + s], v[j], sum[s]);
        }
        sum[s] = hn::MulAdd(post[s], in, sum[s]);
      }
#pragma GCC unroll 4
      for (int64_t s = 0; s < kStreams; ++s) {
        StoreBf16(sum[s], at + s * dim);
        v[s] = RoundBf16(sum[s]);
      }
    }
#pragma GCC unroll 4
    for (int64_t s = 0; s < kStreams; ++s) {
      square[s] = hn::MulAdd(v[s], v[s], square[s]);
      hn::StoreU(v[s], kF32, x + s * stride + i);
    }
  }
  return SumLanes(hn::Add(hn::Add(square[0], square[1]), hn::Add(square[2], square[3])));
}

// sums[t, r] += fn[r] . x[t] over `count` columns, for kRows rows and kTokens tokens. fn and x
// begin at the first column; their rows are fn_stride and x_stride apart, those of sums kSlot.
template <int64_t kRows, int64_t kTokens>
HWY_INLINE void DotTile(const float* fn, int64_t fn_stride, int64_t count, const float* x,
                        int64_t x_stride, float* sums) {
  VF acc[kRows * kTokens];
#pragma GCC unroll 32
  for (int64_t i = 0; i < kRows * kTokens; ++i) acc[i] = hn::Zero(kF32);
  for (int64_t i = 0; i < count; i += Lanes()) {
    VF w[kRows];
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      w[r] = hn::LoadU(kF32, fn + r * fn_stride + i);
    }
#pragma GCC unroll 4
    for (int64_t t = 0; t < kTokens; ++t) {
      const VF v = hn::LoadU(kF32, x + t * x_stride + i);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRows; ++r) {
        acc[r * kTokens + t] = hn::MulAdd(w[r], v, acc[r * kTokens + t]);
      }
    }
  }
  constexpr int64_t kCount = (kRows * kTokens + 3) / 4 * 4;
  float total[kCount];
  const auto of = [&](int64_t i) { return i < kRows * kTokens ? acc[i] : hn::Zero(kF32); };
#pragma GCC unroll 8
  for (int64_t i = 0; i < kCount; i += 4) {
    StoreSums(of(i), of(i + 1), of(i + 2), of(i + 3), total + i);
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) sums[t * kSlot + r] += total[r * kTokens + t];
  }
}

// The same for kRows rows, a tile at a time, and `tokens` tokens, kTileTokens at most.
template <int64_t kRows, int64_t kTokens = kTileTokens>
HWY_INLINE void DotRows(const float* fn, int64_t fn_stride, int64_t count, int64_t tokens,
                        const float* x, int64_t x_stride, float* sums) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) {
      return DotRows<kRows, kTokens - 1>(fn, fn_stride, count, tokens, x, x_stride, sums);
    }
  }
  constexpr int64_t kTile = TileRows(kRows, kTokens);
  for (int64_t row = 0; row < kRows; row += kTile) {
    DotTile<kTile, kTokens>(fn + row * fn_stride, fn_stride, count, x, x_stride, sums + row);
  }
}

// Few tokens: fn is what there is to read. Threads share its rows and long ranges of its columns,
// which the machine fetches ahead by itself. x: [tokens, kStreams, dim]; sums: a part for each
// piece, [Blocks(dim), kStreams, tokens, kSlot].
template <int64_t kRows>
void DotByPieces(ThreadPool& pool, const float* fn, int64_t dim, int64_t tokens, const float* x,
                 float* sums) {
  constexpr int64_t kShare = TileRows(kRows, 1), kRange = 4;  // rows; blocks
  const int64_t blocks = Blocks(dim), ranges = (blocks + kRange - 1) / kRange;
  const int64_t width = kStreams * dim, items = kRows / kShare * kStreams * ranges;
  pool.For(items, dim * tokens <= kPiece ? items : 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t range = item % ranges, stream = item / ranges % kStreams;
      const int64_t row = item / (ranges * kStreams) * kShare;
      const int64_t last = std::min(blocks, (range + 1) * kRange);
      for (int64_t b = range * kRange; b < last; ++b) {
        const Columns columns(b, dim);
        const int64_t at = stream * dim + columns.begin;
        for (int64_t t = 0; t < tokens; t += kTileTokens) {
          DotRows<kShare>(fn + row * width + at, width, columns.count,
                          std::min(kTileTokens, tokens - t), x + t * width + at, width,
                          sums + ((b * kStreams + stream) * tokens + t) * kSlot + row);
        }
      }
    }
  });
}

// Many tokens: each thread has its own. fill(t, columns, x, stride) leaves a block of token t in x
// and returns the sum of its squares, as PostBlock does. sums: [tokens, kSlot].
template <int64_t kRows, typename Fill>
HWY_INLINE void DotByTokens(const float* fn, int64_t dim, int64_t tokens, const Fill& fill,
                            float* sums) {
  constexpr int64_t kToken = kStreams * kPiece;
  alignas(64) float x[kTileTokens * kToken];
  for (int64_t b = 0; b < Blocks(dim); ++b) {
    const Columns columns(b, dim);
    for (int64_t first = 0; first < tokens; first += kTileTokens) {
      const int64_t count = std::min(kTileTokens, tokens - first);
      float* to = sums + first * kSlot;
      for (int64_t t = 0; t < count; ++t) {
        to[t * kSlot + kSquares] += fill(first + t, columns, x + t * kToken, kPiece);
      }
      for (int64_t s = 0; s < kStreams; ++s) {
        DotRows<kRows>(fn + s * dim + columns.begin, kStreams * dim, columns.count, count,
                       x + s * kPiece, kToken, to);
      }
    }
  }
}

HWY_INLINE VF Sigmoid(VF v) {
  const VF one = hn::Set(kF32, 1.0f);
  // Beyond 88 the exponential would leave f32.
  const VF e = hn::Exp(kF32, hn::Min(hn::Neg(v), hn::Set(kF32, 88.0f)));
  return hn::Div(one, hn::Add(one, e));
}

// out = rms_norm(sum_s w[s] * streams[s], rounded) * weight of one token.
HWY_INLINE void Collapse(const Bf16* streams, int64_t dim, const float* w, const Bf16* weight,
                         float eps, Bf16* out) {
  VF factor[kStreams];
  for (int64_t s = 0; s < kStreams; ++s) factor[s] = hn::Set(kF32, w[s]);
  for (int64_t i = 0; i < dim; i += Lanes()) {
    VF v = hn::Mul(factor[0], LoadBf16(streams + i));
#pragma GCC unroll 4
    for (int64_t s = 1; s < kStreams; ++s) {
      v = hn::MulAdd(factor[s], LoadBf16(streams + s * dim + i), v);
    }
    StoreBf16(v, out + i);
  }
  NormRow(out, weight, dim, eps, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
