// Products with packed weights: the loops over tiles, blocks of columns and tokens.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/matmul.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>

#include "base/check.h"
#include "hwy/cache_control.h"
#include "kernels/common/matmul.h"
#include "kernels/common/matmul_bf16.h"
#include "kernels/common/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {

constexpr int64_t kBlock = 128;  // columns of a partial sum and of a decoded panel

// Register tiles, vectors of w's rows by rows of x, that leave room for weights and activations in
// the registers of the instruction set: 32 wide ones, 32 of NEON, 16 of AVX2.
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F32()));
constexpr int kPanelVectors = 2;
constexpr int kPassRows = kLanes >= 16 ? 12 : HWY_TARGET == HWY_NEON ? 10 : 6;
constexpr int64_t kPanelRows = kPanelVectors * kLanes;
constexpr int kDirectRows = 4;  // up to so many rows of x decode in registers, without a panel

// Weights of two neighbouring columns, rows r .. r + lanes: each format's way. `p` is where the
// block's columns begin; `unit` is what the decoded value must be multiplied by.
struct Fp8Pair {
  static constexpr int64_t kBytes = 2 * kTileRows;  // of a pair of columns
  static constexpr float kUnit = kE4m3Unit;
  static HWY_INLINE void Load(const uint8_t* p, int64_t pair, int64_t r, VF& even, VF& odd) {
    even = LoadE4m3(p + 2 * pair * kTileRows + r);
    odd = LoadE4m3(p + (2 * pair + 1) * kTileRows + r);
  }
};

struct Bf16Pair {
  static constexpr int64_t kBytes = 4 * kTileRows;  // of a pair of columns
  static constexpr float kUnit = 1;
  static HWY_INLINE void Load(const uint8_t* p, int64_t pair, int64_t r, VF& even, VF& odd) {
    const VU v = hn::LoadU(kU32, reinterpret_cast<const uint32_t*>(p) + pair * kTileRows + r);
    even = hn::BitCast(kF32, hn::ShiftLeft<16>(v));
    odd = hn::BitCast(kF32, hn::And(v, hn::Set(kU32, 0xffff0000u)));
  }
};

struct Fp4Pair {
  static constexpr int64_t kBytes = kTileRows;  // of a pair of columns
#if HWY_TARGET == HWY_AVX3
  static constexpr float kUnit = 1;
  static HWY_INLINE void Load(const uint8_t* p, int64_t pair, int64_t r, VF& even, VF& odd) {
    const VF table = hn::LoadU(kF32, kE2m1Table.data());
    const VU v = hn::PromoteTo(kU32, hn::LoadU(U8(), p + pair * kTileRows + r));
    // The instruction looks at the low four bits of an index alone.
    even = VF{_mm512_permutexvar_ps(v.raw, table.raw)};
    odd = VF{_mm512_permutexvar_ps(hn::ShiftRight<4>(v).raw, table.raw)};
  }
#else
  static constexpr float kUnit = 0.5f;
  static HWY_INLINE VF Decode(hn::Vec<U8> codes) {
    const hn::Full128<int8_t> d;
    const auto twice = hn::TableLookupBytes(hn::Load(d, kTwiceE2m1), hn::BitCast(I8(), codes));
    return hn::ConvertTo(kF32, hn::PromoteTo(I32(), twice));
  }
  static HWY_INLINE void Load(const uint8_t* p, int64_t pair, int64_t r, VF& even, VF& odd) {
    const auto v = hn::LoadU(U8(), p + pair * kTileRows + r);
    even = Decode(hn::And(v, hn::Set(U8(), 15)));
    odd = Decode(hn::ShiftRight<4>(v));
  }
#endif
};

struct PanelPair {  // decoded before: [columns, kPanelRows] f32
  static constexpr int64_t kBytes = 0;
  static HWY_INLINE void Load(const uint8_t* p, int64_t pair, int64_t r, VF& even, VF& odd) {
    const float* f = reinterpret_cast<const float*>(p) + 2 * pair * kPanelRows + r;
    even = hn::Load(kF32, f);
    odd = hn::Load(kF32, f + kPanelRows);
  }
};

// Scales of a partial sum: one for all rows, or one for each.
struct BlockScale {
  float weight;         // of all rows, the format's unit included; unused with `rows`
  const uint8_t* rows;  // 64 e8m0, or null
  float unit;
};

HWY_INLINE VF RowScales(const uint8_t* p) {
  const VU bits = hn::ShiftLeft<23>(hn::PromoteTo(kU32, hn::LoadU(U8(), p)));
  return hn::BitCast(kF32, hn::Max(bits, hn::Set(kU32, 0x00400000u)));  // code 0 is 2^-127
}

// How far ahead of the product memory is asked for: a few hundred cycles of reading.
constexpr int64_t kAhead = 3072;

// One block of columns of a tile for one pass of x.
struct Block {
  const uint8_t* w;
  int64_t pairs;
  BlockScale scale;
  const float* x;  // [columns, rows of the pass]
  const float* x_scale;
  int64_t x_scale_stride;
  float* out;  // [rows of the pass, 64]
};

// One partial sum for M rows of x and V vectors of w's rows, the weights' from r on, the outputs'
// from `row` on: out += scale * sum.
template <typename W, int V, int M>
HWY_INLINE void AddBlock(const Block& b, const uint8_t* w, int64_t r, int64_t row) {
  VF sum[M][V];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[m][v] = hn::Zero(kF32);
  }
  const float* x = b.x;
  for (int64_t pair = 0; pair < b.pairs; ++pair, x += 2 * M) {
    if (r == 0) {
      for (int64_t line = 0; line < W::kBytes; line += 64) {
        hwy::Prefetch(w + pair * W::kBytes + kAhead + line);
      }
    }
    if constexpr (W::kBytes > 0) {
      // Decoding needs registers: a vector of weights is used up at once.
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        VF even, odd;
        W::Load(w, pair, r + v * kLanes, even, odd);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          sum[m][v] = hn::MulAdd(even, hn::Set(kF32, x[m]), sum[m][v]);
          sum[m][v] = hn::MulAdd(odd, hn::Set(kF32, x[M + m]), sum[m][v]);
        }
      }
    } else {
      // A value of x is spread over a register once for all weights.
      VF weights[2][V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        W::Load(w, pair, r + v * kLanes, weights[0][v], weights[1][v]);
      }
#pragma GCC unroll 2
      for (int column = 0; column < 2; ++column) {
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          const VF xm = hn::Set(kF32, x[column * M + m]);
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) {
            sum[m][v] = hn::MulAdd(weights[column][v], xm, sum[m][v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const int64_t to = row + v * kLanes;
    const VF s = b.scale.rows != nullptr
                     ? hn::Mul(RowScales(b.scale.rows + to), hn::Set(kF32, b.scale.unit))
                     : hn::Set(kF32, b.scale.weight);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      float* o = b.out + m * kTileRows + to;
      const VF factor = hn::Mul(s, hn::Set(kF32, b.x_scale[m * b.x_scale_stride]));
      hn::StoreU(hn::MulAdd(sum[m][v], factor, hn::LoadU(kF32, o)), kF32, o);
    }
  }
}

// All 64 rows of the tile for M rows of x, decoding on the way.
template <typename W, int M>
void AddDirect(const Block& b) {
  constexpr int kAll = static_cast<int>(kTileRows) / kLanes;
  constexpr int kWide = kLanes >= 16 ? 4 : M == 1 ? 8 : M == 2 ? 4 : 2;
  constexpr int kVectors = kWide < kAll ? kWide : kAll;
  for (int64_t r = 0; r < kTileRows; r += kVectors * kLanes) AddBlock<W, kVectors, M>(b, b.w, r, r);
}

template <typename W>
void AddFew(const Block& b, int64_t rows) {
  switch (rows) {
    case 1:
      return AddDirect<W, 1>(b);
    case 2:
      return AddDirect<W, 2>(b);
    case 3:
      return AddDirect<W, 3>(b);
    default:
      return AddDirect<W, 4>(b);
  }
}

// kPanelRows rows of the tile from `row` on for a pass of up to M rows of x, from a panel.
template <int M>
void AddPanel(const Block& b, int64_t rows, const float* panel, int64_t row) {
  if constexpr (M > 1) {
    if (rows < M) return AddPanel<M - 1>(b, rows, panel, row);
  }
  AddBlock<PanelPair, kPanelVectors, M>(b, reinterpret_cast<const uint8_t*>(panel), 0, row);
}

template <typename W>
void DecodePanel(const uint8_t* w, int64_t pairs, int64_t row, float* panel) {
  for (int64_t pair = 0; pair < pairs; ++pair, panel += 2 * kPanelRows) {
    for (int64_t r = 0; r < kPanelRows; r += kLanes) {
      VF even, odd;
      W::Load(w, pair, row + r, even, odd);
      hn::Store(even, kF32, panel + r);
      hn::Store(odd, kF32, panel + kPanelRows + r);
    }
  }
}

// `step` columns a partial sum, block_bytes of them; scale_of(block, bytes) is their weights'. Few
// rows of x decode on the way; for many, a panel is decoded once and read again.
template <typename W, typename ScaleOf>
void Tile(const uint8_t* data, int64_t step, int64_t block_bytes, const MatMulInput& x,
          Segment rows, const ScaleOf& scale_of, float* out) {
  alignas(64) float panel[kBlock * kPanelRows];
  std::fill(out, out + rows.count * kTileRows, 0.0f);
  Block b;
  b.x_scale_stride = (x.cols() + kBlock - 1) / kBlock;
  for (int64_t block = 0; block * step < x.cols(); ++block) {
    const int64_t column = block * step;
    b.w = data + block * block_bytes;
    b.pairs = std::min(step, x.cols() - column) / 2;
    b.scale = scale_of(block, b.w);
    const auto take = [&](int64_t i) {
      const int64_t count = std::min<int64_t>(kPassRows, rows.count - i);
      b.x = x.pass(rows.begin + i) + column * count;
      b.x_scale = x.scales(rows.begin + i) + column / kBlock;
      b.out = out + i * kTileRows;
      return count;
    };
    if (rows.count <= kDirectRows) {
      AddFew<W>(b, take(0));
      continue;
    }
    for (int64_t row = 0; row < kTileRows; row += kPanelRows) {
      DecodePanel<W>(b.w, b.pairs, row, panel);
      for (int64_t i = 0; i < rows.count; i += kPassRows) {
        const int64_t count = take(i);
        AddPanel<kPassRows>(b, count, panel, row);
      }
    }
  }
}

void MultiplyTileImpl(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows,
                      float* out) {
  const uint8_t* data = TileData(w, tile);
  switch (w.format) {
    case WeightFormat::kFp8: {
      const E8m0* scales = w.scales + tile * kTileRows / 128 * w.scale_cols();
      const auto scale = [scales](int64_t block, const uint8_t*) {
        return BlockScale{ToFloat(scales[block]) * Fp8Pair::kUnit, nullptr, 0};
      };
      return Tile<Fp8Pair>(data, kBlock, kBlock * kTileRows, x, rows, scale, out);
    }
    case WeightFormat::kMxfp4: {
      const auto scale = [](int64_t, const uint8_t* block) {
        return BlockScale{0, block + 16 * kTileRows, Fp4Pair::kUnit};
      };
      return Tile<Fp4Pair>(data, 32, 17 * kTileRows, x, rows, scale, out);
    }
    default: {
      const auto scale = [](int64_t, const uint8_t*) { return BlockScale{1, nullptr, 0}; };
      return Tile<Bf16Pair>(data, kBlock, kBlock * kTileRows * 2, x, rows, scale, out);
    }
  }
}

// One row of x as matmul.h says: row `in_pass` of a pass of `rows`.
void PrepareRow(const Bf16* x, int64_t cols, bool quantise, Isa isa, int64_t in_pass, int64_t rows,
                float* pass, float* scales) {
  alignas(64) float block[kBlock];
  auto* bf16 = reinterpret_cast<Bf16*>(pass);
  for (int64_t begin = 0; begin < cols; begin += kBlock, ++scales) {
    const int64_t count = std::min(kBlock, cols - begin);
    for (int64_t i = 0; i < count; i += kLanes) hn::Store(LoadBf16(x + begin + i), kF32, block + i);
    *scales = quantise ? QuantiseE4m3(block, count, block) : 1.0f;
    if (isa == Isa::kAmx) {
      Bf16* row = bf16 + in_pass * cols + begin;
      for (int64_t i = 0; i < count; i += kLanes) StoreBf16(hn::Load(kF32, block + i), row + i);
    } else if (isa == Isa::kAvx512Bf16) {
      for (int64_t i = 0; i < count; ++i) {
        bf16[((begin + i) / 2 * rows + in_pass) * 2 + i % 2] = ToBf16(block[i]);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) pass[(begin + i) * rows + in_pass] = block[i];
    }
  }
}

int64_t PassRows() { return kPassRows; }

void StoreBf16Values(const float* values, int64_t count, Bf16* out) {
  int64_t i = 0;
  for (; i + Lanes() <= count; i += Lanes()) StoreBf16(hn::LoadU(kF32, values + i), out + i);
  for (; i < count; ++i) out[i] = ToBf16(values[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff {

HWY_EXPORT(MultiplyTileImpl);
HWY_EXPORT(PrepareRow);
HWY_EXPORT(PassRows);
HWY_EXPORT(StoreBf16Values);

void MatMulInput::Prepare(ThreadPool& pool, const Act<2>& x, bool quantise,
                          std::span<const Segment> segments, std::span<const int32_t> order) {
  SC_CHECK(!x.exact() && x.shape[1] % 32 == 0);
  cols_ = x.shape[1];
  isa_ = CurrentIsa();
  pass_rows_ = isa_ == Isa::kAmx ? 16 : HWY_DYNAMIC_DISPATCH(PassRows)();
  segments_.assign(segments.begin(), segments.end());
  const int64_t rows = segments_.empty() ? 0 : segments_.back().begin + segments_.back().count;
  values_.resize(static_cast<size_t>((rows + 16) * cols_));
  scales_.resize(static_cast<size_t>(rows * blocks()));
  const auto* from = static_cast<const Bf16*>(x.data);
  const auto prepare = HWY_DYNAMIC_DISPATCH(PrepareRow);
  const auto prepare_rows = [&](int64_t begin, int64_t end) {
    auto segment =
        std::upper_bound(segments_.begin(), segments_.end(), begin,
                         [](int64_t row, const Segment& s) { return row < s.begin + s.count; });
    for (int64_t i = begin; i < end; ++i) {
      while (i >= segment->begin + segment->count) ++segment;
      const int64_t in_pass = (i - segment->begin) % pass_rows_, first = i - in_pass;
      const int64_t pass_rows = std::min(pass_rows_, segment->begin + segment->count - first);
      const int64_t row = order.empty() ? i : order[static_cast<size_t>(i)];
      const bool bf16 = isa_ == Isa::kAmx || isa_ == Isa::kAvx512Bf16;
      float* pass = values_.data() + (bf16 ? first * cols_ / 2 : first * cols_);
      prepare(from + row * cols_, cols_, quantise, isa_, in_pass, pass_rows, pass,
              scales_.data() + i * blocks());
    }
  };
  // A thread is worth waking for some 16,000 values.
  pool.For(rows, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(cols_, 1)), prepare_rows);
}

void MultiplyTile(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows, float* out) {
  if (rows.count == 0) return;
#if defined(__x86_64__)
  if (x.isa() == Isa::kAmx) return MultiplyTileAmx(w, tile, x, rows, out);
  if (x.isa() == Isa::kAvx512Bf16) return MultiplyTileAvx512Bf16(w, tile, x, rows, out);
#endif
  HWY_DYNAMIC_DISPATCH(MultiplyTileImpl)(w, tile, x, rows, out);
}

void MatMul(ThreadPool& pool, const Matrix& w, const MatMulInput& x, const Act<2>& out) {
  SC_CHECK(w.layout == WeightLayout::kTiles && w.cols == x.cols());
  const auto groups = static_cast<int64_t>(x.segments().size());
  const int64_t tiles = TileCount(w), tokens = out.shape[0];
  SC_CHECK(groups == 1 || w.rows % (groups * kTileRows) == 0);
  // For few tokens long pieces, as memory is read best straight on, but several for each thread.
  const int64_t grain = tokens > 4
                            ? 1
                            : std::max<int64_t>(1, std::min((1 << 18) / TileBytes(w),
                                                            tiles / (4 * int64_t{pool.threads()})));
  pool.For(tiles, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> sums(kMaxPartRows * kTileRows);
    for (int64_t tile = begin; tile < end; ++tile) {
      const Segment& segment = x.segments()[static_cast<size_t>(tile / (tiles / groups))];
      const int64_t width = std::min(kTileRows, w.rows - tile * kTileRows);
      ForParts(x, segment, [&](Segment part) {
        MultiplyTile(w, tile, x, part, sums.data());
        for (int64_t i = 0; i < part.count; ++i) {
          const int64_t token = part.begin - segment.begin + i;
          StoreValues(sums.data() + i * kTileRows, width, out, token * w.rows + tile * kTileRows);
        }
      });
    }
  });
}

void StoreValues(const float* values, int64_t count, const Act<2>& out, int64_t begin) {
  if (out.exact()) {
    std::copy(values, values + count, static_cast<float*>(out.data) + begin);
  } else {
    HWY_DYNAMIC_DISPATCH(StoreBf16Values)(values, count, static_cast<Bf16*>(out.data) + begin);
  }
}

}  // namespace seacliff
#endif
