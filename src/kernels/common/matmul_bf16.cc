// Products on bf16 pairs. e4m3 and e2m1 values, and e2m1 with its power-of-two scale, are exact in
// bf16, and so are the activations: what differs from matmul.cc is the order of the sums alone.
#include "kernels/common/matmul_bf16.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

// g++'s own intrinsics begin with a value that they leave open.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16")

namespace seacliff {
namespace {

constexpr int64_t kBlock = 128;  // columns of a partial sum and of a decoded panel
constexpr int64_t kPairs = kBlock / 2;
constexpr int kLanes = 16;
constexpr float kE4m3Unit = 256.0f;  // DecodeE4m3 gives 2^-8 of a value

__attribute__((always_inline)) inline __m512i PairOf(__m512 even, __m512 odd) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even), 16),
                         _mm512_castps_si512(odd));
}

// Each format: pairs of columns 2i, 2i + 1 for 16 rows from r on. A group is what shares its row
// scales (kMxfp4) or the whole block.
struct Fp8 {
  static constexpr int64_t kGroup = kPairs, kGroupBytes = kBlock * kTileRows;
  static constexpr int64_t kPairBytes = 2 * kTileRows;
  struct Scale {};
  static Scale LoadScale(const uint8_t*, int64_t) { return {}; }
  __attribute__((always_inline)) static __m512 Decode(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i half =
        _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<short>(0xbfff)));
    return _mm512_cvtph_ps(half);
  }
  __attribute__((always_inline)) static __m512i Load(const uint8_t* p, int64_t pair, int64_t r,
                                                     Scale) {
    p += 2 * pair * kTileRows + r;
    return PairOf(Decode(p), Decode(p + kTileRows));
  }
};

struct Bf16Weights {
  static constexpr int64_t kGroup = kPairs, kGroupBytes = kBlock * kTileRows * 2;
  static constexpr int64_t kPairBytes = 4 * kTileRows;
  struct Scale {};
  static Scale LoadScale(const uint8_t*, int64_t) { return {}; }
  __attribute__((always_inline)) static __m512i Load(const uint8_t* p, int64_t pair, int64_t r,
                                                     Scale) {
    return _mm512_loadu_si512(p + (pair * kTileRows + r) * 4);
  }
};

// Values of the 16 codes of e2m1 as bf16, twice: the look-up takes five bits.
alignas(64) constexpr uint16_t kE2m1Bf16[32] = {
    0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80,
    0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0, 0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040,
    0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0};

struct Fp4 {
  static constexpr int64_t kGroup = 16, kGroupBytes = 17 * kTileRows;
  static constexpr int64_t kPairBytes = kTileRows;
  using Scale = __m512i;  // what the scale adds to the exponent, in both halves of a lane
  __attribute__((always_inline)) static Scale LoadScale(const uint8_t* group, int64_t r) {
    const __m128i codes =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(group + 16 * kTileRows + r));
    // Scales below 2^-124 are taken for that, so that no exponent falls below zero.
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_max_epu8(codes, _mm_set1_epi8(3)));
    const __m512i add = _mm512_slli_epi32(_mm512_sub_epi32(wide, _mm512_set1_epi32(127)), 7);
    return _mm512_or_si512(_mm512_slli_epi32(add, 16),
                           _mm512_and_si512(add, _mm512_set1_epi32(0xffff)));
  }
  __attribute__((always_inline)) static __m512i Load(const uint8_t* p, int64_t pair, int64_t r,
                                                     Scale scale) {
    const __m512i v = _mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + pair * kTileRows + r)));
    // The even column's code to the lower half of a lane, the odd one's to the upper.
    const __m512i codes = _mm512_or_si512(v, _mm512_slli_epi32(v, 12));
    const __m512i values = _mm512_permutexvar_epi16(
        _mm512_and_si512(codes, _mm512_set1_epi32(0x000f000f)), _mm512_load_si512(kE2m1Bf16));
    const __mmask32 not_zero = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(7));
    return _mm512_maskz_add_epi16(not_zero, values, scale);
  }
};

template <int kRows>
struct Panel {  // decoded before: [pairs, kRows]
  static constexpr int64_t kGroup = kPairs, kGroupBytes = 0, kPairBytes = 0;
  struct Scale {};
  static Scale LoadScale(const uint8_t*, int64_t) { return {}; }
  __attribute__((always_inline)) static __m512i Load(const uint8_t* p, int64_t pair, int64_t r,
                                                     Scale) {
    return _mm512_load_si512(p + (pair * kRows + r) * 4);
  }
};

// [pairs, kRows] of the rows from `row` on.
template <typename W, int kRows>
void DecodePanel(const uint8_t* w, int64_t pairs, int64_t row, uint32_t* panel) {
  for (int64_t begin = 0; begin < pairs; begin += W::kGroup, w += W::kGroupBytes) {
    const int64_t end = std::min(pairs, begin + W::kGroup);
    for (int64_t r = 0; r < kRows; r += kLanes) {
      const auto scale = W::LoadScale(w, row + r);
      for (int64_t pair = begin; pair < end; ++pair) {
        _mm512_store_si512(panel + pair * kRows + r, W::Load(w, pair - begin, row + r, scale));
      }
    }
  }
}

// The scale of all weights of a block: kMxfp4's are in the decoded values already.
float BlockScale(const Matrix& w, int64_t tile, int64_t block) {
  if (w.format != WeightFormat::kFp8) return 1;
  return ToFloat(w.scales[tile * kTileRows / 128 * w.scale_cols() + block]) * kE4m3Unit;
}

// How far ahead of the product memory is asked for: a few hundred cycles of reading.
constexpr int64_t kAhead = 3072;

// One block of columns of a tile for one pass of x.
struct Block {
  const uint8_t* w;
  int64_t pairs;
  float scale;
  const uint32_t* x;  // [pairs, rows of the pass]
  const float* x_scale;
  int64_t x_scale_stride;
  float* out;  // [rows of the pass, 64]
};

// out += scale * partial sum, for M rows of x and V vectors of w's rows: the weights' from r on,
// the outputs' from `row` on.
template <typename W, int V, int M>
__attribute__((always_inline)) inline void AddBlock(const Block& b, const uint8_t* w, int64_t r,
                                                    int64_t row) {
  __m512 sum[M][V];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[m][v] = _mm512_setzero_ps();
  }
  const uint32_t* x = b.x;
  for (int64_t begin = 0; begin < b.pairs; begin += W::kGroup, w += W::kGroupBytes) {
    const int64_t count = std::min(b.pairs - begin, W::kGroup);
    typename W::Scale scale[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) scale[v] = W::LoadScale(w, r + v * kLanes);
    for (int64_t pair = 0; pair < count; ++pair, x += M) {
      for (int64_t line = 0; line < W::kPairBytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(w + pair * W::kPairBytes + kAhead + line),
                     _MM_HINT_T0);
      }
      __m512bh weights[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        weights[v] = (__m512bh)W::Load(w, pair, r + v * kLanes, scale[v]);
      }
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const auto xm = (__m512bh)_mm512_set1_epi32(static_cast<int>(x[m]));
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[m][v] = _mm512_dpbf16_ps(sum[m][v], weights[v], xm);
      }
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    const __m512 scale = _mm512_set1_ps(b.scale * b.x_scale[m * b.x_scale_stride]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* o = b.out + m * kTileRows + row + v * kLanes;
      _mm512_storeu_ps(o, _mm512_fmadd_ps(sum[m][v], scale, _mm512_loadu_ps(o)));
    }
  }
}

constexpr int kPassRows = 12, kPanelRows = 32;  // 24 registers of sums
constexpr int kDirectRows = 4;

template <typename W>
void AddFew(const Block& b, int64_t rows) {
  switch (rows) {
    case 1:
      return AddBlock<W, 4, 1>(b, b.w, 0, 0);
    case 2:
      return AddBlock<W, 4, 2>(b, b.w, 0, 0);
    case 3:
      return AddBlock<W, 4, 3>(b, b.w, 0, 0);
    default:
      return AddBlock<W, 4, 4>(b, b.w, 0, 0);
  }
}

template <int M>
void AddPanel(const Block& b, int64_t rows, const uint32_t* panel, int64_t row) {
  if constexpr (M > 1) {
    if (rows < M) return AddPanel<M - 1>(b, rows, panel, row);
  }
  AddBlock<Panel<kPanelRows>, kPanelRows / kLanes, M>(b, reinterpret_cast<const uint8_t*>(panel), 0,
                                                      row);
}

template <typename W>
void DotTile(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows, float* out) {
  alignas(64) uint32_t panel[kPairs * kPanelRows];
  Block b;
  b.x_scale_stride = (x.cols() + kBlock - 1) / kBlock;
  b.w = TileData(w, tile);
  for (int64_t column = 0, block = 0; column < x.cols(); column += kBlock, ++block) {
    b.pairs = std::min(kBlock, x.cols() - column) / 2;
    b.scale = BlockScale(w, tile, block);
    const auto take = [&](int64_t i) {
      const int64_t count = std::min<int64_t>(kPassRows, rows.count - i);
      b.x = x.pairs(rows.begin + i) + column / 2 * count;
      b.x_scale = x.scales(rows.begin + i) + block;
      b.out = out + i * kTileRows;
      return count;
    };
    if (rows.count <= kDirectRows) {
      AddFew<W>(b, take(0));
    } else {
      for (int64_t row = 0; row < kTileRows; row += kPanelRows) {
        DecodePanel<W, kPanelRows>(b.w, b.pairs, row, panel);
        for (int64_t i = 0; i < rows.count; i += kPassRows) {
          const int64_t count = take(i);
          AddPanel<kPassRows>(b, count, panel, row);
        }
      }
    }
    b.w += kPairs / W::kGroup * W::kGroupBytes;
  }
}

// AMX: tiles 0-3 hold sums [rows of the pass, 16 rows of w] each, 4 a part of x, 5 a part of the
// panel.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

void Configure(int64_t pass_rows) {
  TileConfig config;
  for (int t = 0; t < 6; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = t == 5 ? 16 : static_cast<uint8_t>(pass_rows);
  }
  _tile_loadconfig(&config);
}

// sums[rows of the pass, 64] of one block: x row-major with `stride` bytes a row.
void AmxBlock(const uint32_t* panel, int64_t pairs, const Bf16* x, int64_t stride, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t pair = 0; pair < pairs; pair += 16, panel += 16 * kTileRows, x += 32) {
    _tile_loadd(4, x, stride);
    _tile_loadd(5, panel, kTileRows * 4);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, panel + 16, kTileRows * 4);
    _tile_dpbf16ps(1, 4, 5);
    _tile_loadd(5, panel + 32, kTileRows * 4);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(5, panel + 48, kTileRows * 4);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, sums, kTileRows * 4);
  _tile_stored(1, sums + 16, kTileRows * 4);
  _tile_stored(2, sums + 32, kTileRows * 4);
  _tile_stored(3, sums + 48, kTileRows * 4);
}

template <typename W>
void AmxTile(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows, float* out) {
  alignas(64) uint32_t panel[kPairs * kTileRows];
  alignas(64) float sums[16 * kTileRows];
  const int64_t blocks = (x.cols() + kBlock - 1) / kBlock;
  const uint8_t* data = TileData(w, tile);
  Configure(std::min<int64_t>(16, rows.count));
  for (int64_t column = 0, block = 0; column < x.cols(); column += kBlock, ++block) {
    const int64_t pairs = std::min(kBlock, x.cols() - column) / 2;
    const float scale = BlockScale(w, tile, block);
    DecodePanel<W, kTileRows>(data, pairs, 0, panel);
    data += kPairs / W::kGroup * W::kGroupBytes;
    for (int64_t i = 0; i < rows.count; i += 16) {
      // A last pass of fewer rows reads on into memory that Prepare provides; its sums are unused.
      AmxBlock(panel, pairs, x.bf16(rows.begin + i) + column, x.cols() * 2, sums);
      for (int64_t m = 0; m < std::min<int64_t>(16, rows.count - i); ++m) {
        const __m512 s = _mm512_set1_ps(scale * x.scales(rows.begin + i)[m * blocks + block]);
        float* o = out + (i + m) * kTileRows;
        for (int64_t r = 0; r < kTileRows; r += kLanes) {
          const __m512 sum = _mm512_load_ps(sums + m * kTileRows + r);
          _mm512_storeu_ps(o + r, _mm512_fmadd_ps(sum, s, _mm512_loadu_ps(o + r)));
        }
      }
    }
  }
  _tile_release();
}

}  // namespace

void MultiplyTileAvx512Bf16(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows,
                            float* out) {
  std::memset(out, 0, static_cast<size_t>(rows.count * kTileRows) * sizeof(float));
  switch (w.format) {
    case WeightFormat::kFp8:
      return DotTile<Fp8>(w, tile, x, rows, out);
    case WeightFormat::kMxfp4:
      return DotTile<Fp4>(w, tile, x, rows, out);
    default:
      return DotTile<Bf16Weights>(w, tile, x, rows, out);
  }
}

void MultiplyTileAmx(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows,
                     float* out) {
  std::memset(out, 0, static_cast<size_t>(rows.count * kTileRows) * sizeof(float));
  switch (w.format) {
    case WeightFormat::kFp8:
      return AmxTile<Fp8>(w, tile, x, rows, out);
    case WeightFormat::kMxfp4:
      return AmxTile<Fp4>(w, tile, x, rows, out);
    default:
      return AmxTile<Bf16Weights>(w, tile, x, rows, out);
  }
}

}  // namespace seacliff

#pragma GCC pop_options
#endif
