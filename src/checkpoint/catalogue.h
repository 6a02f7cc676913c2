// THE tensor table: every tensor of a published DeepSeek-V4 checkpoint, with its stored dtype and
// its shape in terms of the config (spec/model.md 3.1). Says nothing about files; checkpoint.h
// opens them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.h"
#include "tensor/dtype.h"

namespace seacliff {

// Which blocks have the tensor. A block is a layer or an MTP block; "{block}" in a pattern stands
// for "layers.N" or "mtp.N".
enum class Present : uint8_t {
  kOnce,        // once in the model
  kBlock,       // every block
  kCompressed,  // layers with ratio != 0
  kIndexed,     // layers with ratio 4
  kHashed,      // layers whose experts are looked up by token id
  kScored,      // blocks whose experts are picked by score
  kMtp,         // MTP blocks
};

enum class StoredAs : uint8_t {
  kBf16,
  kF32,
  kI64,
  kFp8,     // e4m3 with companion "X.scale" of e8m0 for 128 x 128 blocks
  kExpert,  // kFp8, or nibbles in I8 with companion scales [rows, cols / 32], as the config says
};

// A dimension of a shape. The width of what a compressor writes depends on the block's ratio.
enum class Dim : uint8_t {
  kNone,
  kOne,
  kThree,
  kVocab,
  kDim,
  kHeads,
  kHeadDim,
  kQueryDim,  // heads * head_dim
  kQRank,
  kGroupDim,    // heads_per_group * head_dim
  kOutputRank,  // o_groups * o_rank
  kInterDim,
  kExperts,
  kPicks,
  kStreams,
  kStreamsDim,  // streams * dim
  kMixDim,      // (2 + streams) * streams
  kRatio,
  kEntryDim,  // head_dim, doubled by the overlapping ratio 4
  kIndexHeads,
  kIndexDim,
  kIndexQueryDim,  // index_heads * index_dim
  kIndexEntryDim,  // index_dim, doubled by the overlapping ratio 4
};

// How dummy weights are drawn (docs/checkpoints.md).
enum class Fill : uint8_t {
  kZeros,
  kOnes,
  kNormal,     // standard deviation 1
  kSmall,      // standard deviation 1/8
  kLinear,     // standard deviation 1 / sqrt(columns)
  kExpertIds,  // distinct within a row
};

struct TensorRow {
  std::string_view pattern;  // with {block}, {expert}
  std::string_view doc;
  Present present;
  StoredAs storage;
  Dim rows, cols;  // of the weight, whatever packs it; cols kNone: a vector
  Fill fill;
};

std::span<const TensorRow> TensorTable();

// One tensor of one model. A companion of scales is a tensor of its own, with the row of its
// weight.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  const TensorRow* row = nullptr;
  bool is_scale = false;
  int64_t cols = 0;  // columns of the weight: what a linear sums over
};

// Calls visit for every tensor, blocks in ascending order, until it returns false. MTP blocks come
// last, and only if asked for.
void ForEachTensor(const ModelConfig& config, bool with_mtp,
                   const std::function<bool(const TensorSpec&)>& visit);

struct TensorTotals {
  int64_t tensors = 0;
  int64_t bytes = 0;
};
TensorTotals CountTensors(const ModelConfig& config, bool with_mtp);

// The table for a person, with the shapes, counts and bytes of this model, and the totals.
std::string DescribeTensors(const ModelConfig& config);

}  // namespace seacliff
