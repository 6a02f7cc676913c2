// The tensor table and its expansion for one config.
#include "checkpoint/catalogue.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "checkpoint/safetensors.h"

namespace seacliff {
namespace {

using enum Present;
using enum StoredAs;
using enum Dim;
using enum Fill;

// clang-format off
constexpr TensorRow kTensors[] = {
  // pattern, what it is,
  // present,   storage, rows,           columns,     dummy
  {"embed.weight", "token embedding",
   kOnce,       kBf16,   kVocab,         kDim,        kNormal},
  {"head.weight", "logits",
   kOnce,       kBf16,   kVocab,         kDim,        kLinear},
  {"norm.weight", "norm before the head",
   kOnce,       kBf16,   kDim,           kNone,       kOnes},
  {"hc_head_fn", "streams to one: weights of the mix",
   kOnce,       kF32,    kStreams,       kStreamsDim, kLinear},
  {"hc_head_base", "its bias",
   kOnce,       kF32,    kStreams,       kNone,       kZeros},
  {"hc_head_scale", "its scale",
   kOnce,       kF32,    kOne,           kNone,       kOnes},

  {"{block}.attn_norm.weight", "norm before attention",
   kBlock,      kBf16,   kDim,           kNone,       kOnes},
  {"{block}.ffn_norm.weight", "norm before the experts",
   kBlock,      kBf16,   kDim,           kNone,       kOnes},
  {"{block}.hc_attn_fn", "streams around attention: mixes",
   kBlock,      kF32,    kMixDim,        kStreamsDim, kLinear},
  {"{block}.hc_attn_base", "their bias",
   kBlock,      kF32,    kMixDim,        kNone,       kZeros},
  {"{block}.hc_attn_scale", "scales of pre, post, comb",
   kBlock,      kF32,    kThree,         kNone,       kOnes},
  {"{block}.hc_ffn_fn", "streams around the experts: mixes",
   kBlock,      kF32,    kMixDim,        kStreamsDim, kLinear},
  {"{block}.hc_ffn_base", "their bias",
   kBlock,      kF32,    kMixDim,        kNone,       kZeros},
  {"{block}.hc_ffn_scale", "scales of pre, post, comb",
   kBlock,      kF32,    kThree,         kNone,       kOnes},

  {"{block}.attn.wq_a.weight", "query, down",
   kBlock,      kFp8,    kQRank,         kDim,        kLinear},
  {"{block}.attn.q_norm.weight", "norm of the low-rank query",
   kBlock,      kBf16,   kQRank,         kNone,       kOnes},
  {"{block}.attn.wq_b.weight", "query, up to all heads",
   kBlock,      kFp8,    kQueryDim,      kQRank,      kLinear},
  {"{block}.attn.wkv.weight", "the latent that is key and value",
   kBlock,      kFp8,    kHeadDim,       kDim,        kLinear},
  {"{block}.attn.kv_norm.weight", "norm of the latent",
   kBlock,      kBf16,   kHeadDim,       kNone,       kOnes},
  {"{block}.attn.attn_sink", "sink logit of each head",
   kBlock,      kF32,    kHeads,         kNone,       kZeros},
  {"{block}.attn.wo_a.weight", "output, group by group",
   kBlock,      kFp8,    kOutputRank,    kGroupDim,   kLinear},
  {"{block}.attn.wo_b.weight", "output, groups together",
   kBlock,      kFp8,    kDim,           kOutputRank, kLinear},

  {"{block}.attn.compressor.ape", "added to gates, by place in the block",
   kCompressed, kF32,    kRatio,         kEntryDim,   kSmall},
  {"{block}.attn.compressor.wkv.weight", "what is pooled",
   kCompressed, kBf16,   kEntryDim,      kDim,        kLinear},
  {"{block}.attn.compressor.wgate.weight", "gates of the pooling",
   kCompressed, kBf16,   kEntryDim,      kDim,        kLinear},
  {"{block}.attn.compressor.norm.weight", "norm of an entry",
   kCompressed, kBf16,   kHeadDim,       kNone,       kOnes},

  {"{block}.attn.indexer.wq_b.weight", "index query",
   kIndexed,    kFp8,    kIndexQueryDim, kQRank,      kLinear},
  {"{block}.attn.indexer.weights_proj.weight", "weights of the index heads",
   kIndexed,    kBf16,   kIndexHeads,    kDim,        kLinear},
  {"{block}.attn.indexer.compressor.ape", "as the main compressor",
   kIndexed,    kF32,    kRatio,         kIndexEntryDim,kSmall},
  {"{block}.attn.indexer.compressor.wkv.weight", "as the main compressor",
   kIndexed,    kBf16,   kIndexEntryDim, kDim,        kLinear},
  {"{block}.attn.indexer.compressor.wgate.weight", "as the main compressor",
   kIndexed,    kBf16,   kIndexEntryDim, kDim,        kLinear},
  {"{block}.attn.indexer.compressor.norm.weight", "norm of an index key",
   kIndexed,    kBf16,   kIndexDim,      kNone,       kOnes},

  {"{block}.ffn.gate.weight", "routing logits",
   kBlock,      kBf16,   kExperts,       kDim,        kLinear},
  {"{block}.ffn.gate.bias", "added to scores to pick, not to weigh",
   kScored,     kF32,    kExperts,       kNone,       kZeros},
  {"{block}.ffn.gate.tid2eid", "experts of each token id",
   kHashed,     kI64,    kVocab,         kPicks,      kExpertIds},
  {"{block}.ffn.shared_experts.w1.weight", "shared expert, gate",
   kBlock,      kFp8,    kInterDim,      kDim,        kLinear},
  {"{block}.ffn.shared_experts.w3.weight", "shared expert, up",
   kBlock,      kFp8,    kInterDim,      kDim,        kLinear},
  {"{block}.ffn.shared_experts.w2.weight", "shared expert, down",
   kBlock,      kFp8,    kDim,           kInterDim,   kLinear},
  {"{block}.ffn.experts.{expert}.w1.weight", "expert, gate",
   kBlock,      kExpert, kInterDim,      kDim,        kLinear},
  {"{block}.ffn.experts.{expert}.w3.weight", "expert, up",
   kBlock,      kExpert, kInterDim,      kDim,        kLinear},
  {"{block}.ffn.experts.{expert}.w2.weight", "expert, down",
   kBlock,      kExpert, kDim,           kInterDim,   kLinear},

  {"{block}.e_proj.weight", "of the token's embedding",
   kMtp,        kFp8,    kDim,           kDim,        kLinear},
  {"{block}.h_proj.weight", "of the streams",
   kMtp,        kFp8,    kDim,           kDim,        kLinear},
  {"{block}.enorm.weight", "norm before e_proj",
   kMtp,        kBf16,   kDim,           kNone,       kOnes},
  {"{block}.hnorm.weight", "norm before h_proj",
   kMtp,        kBf16,   kDim,           kNone,       kOnes},
  {"{block}.norm.weight", "norm before the head",
   kMtp,        kBf16,   kDim,           kNone,       kOnes},
  {"{block}.hc_head_fn", "streams to one: weights of the mix",
   kMtp,        kF32,    kStreams,       kStreamsDim, kLinear},
  {"{block}.hc_head_base", "its bias",
   kMtp,        kF32,    kStreams,       kNone,       kZeros},
  {"{block}.hc_head_scale", "its scale",
   kMtp,        kF32,    kOne,           kNone,       kOnes},
};
// clang-format on

constexpr std::string_view kBlockMark = "{block}";
constexpr std::string_view kExpertMark = "{expert}";
constexpr std::string_view kWeightSuffix = ".weight";

// One block of a model, or the model itself for the rows that are there once.
struct Block {
  std::string prefix;  // "layers.7"
  int64_t ratio = 0;
  bool hashed = false;
  bool mtp = false;
};

Block LayerBlock(const ModelConfig& c, int64_t layer) {
  return {fmt::format("layers.{}", layer), c.ratios[static_cast<size_t>(layer)],
          layer < c.hash_layers, false};
}

Block MtpBlock(const ModelConfig& c, int64_t index) {
  return {fmt::format("mtp.{}", index), c.ratios[static_cast<size_t>(c.layers + index)], false,
          true};
}

bool IsPresent(Present present, const Block& block) {
  switch (present) {
    case Present::kOnce:
      return false;
    case Present::kBlock:
      return true;
    case Present::kCompressed:
      return block.ratio != 0;
    case Present::kIndexed:
      return block.ratio == 4;
    case Present::kHashed:
      return block.hashed;
    case Present::kScored:
      return !block.hashed;
    case Present::kMtp:
      return block.mtp;
  }
  return false;
}

int64_t Value(Dim dim, const ModelConfig& c, int64_t ratio) {
  switch (dim) {
    case Dim::kNone:
    case Dim::kOne:
      return 1;
    case Dim::kThree:
      return 3;
    case Dim::kVocab:
      return c.vocab_size;
    case Dim::kDim:
      return c.dim;
    case Dim::kHeads:
      return c.heads;
    case Dim::kHeadDim:
      return c.head_dim;
    case Dim::kQueryDim:
      return c.heads * c.head_dim;
    case Dim::kQRank:
      return c.q_rank;
    case Dim::kGroupDim:
      return c.heads_per_group() * c.head_dim;
    case Dim::kOutputRank:
      return c.o_groups * c.o_rank;
    case Dim::kInterDim:
      return c.inter_dim;
    case Dim::kExperts:
      return c.experts;
    case Dim::kPicks:
      return c.picks;
    case Dim::kStreams:
      return c.streams;
    case Dim::kStreamsDim:
      return c.streams * c.dim;
    case Dim::kMixDim:
      return c.mix_dim();
    case Dim::kRatio:
      return ratio;
    case Dim::kEntryDim:
      return ModelConfig::Overlap(ratio) * c.head_dim;
    case Dim::kIndexHeads:
      return c.index_heads;
    case Dim::kIndexDim:
      return c.index_dim;
    case Dim::kIndexQueryDim:
      return c.index_heads * c.index_dim;
    case Dim::kIndexEntryDim:
      return ModelConfig::Overlap(ratio) * c.index_dim;
  }
  return 0;
}

TensorSpec MakeSpec(const TensorRow& row, DType dtype, std::vector<int64_t> shape) {
  TensorSpec spec;
  spec.dtype = dtype;
  spec.bytes = ByteCount(dtype, shape);
  SC_CHECK(spec.bytes > 0);  // the config's limits keep products within 64 bits
  spec.shape = std::move(shape);
  spec.row = &row;
  return spec;
}

// The weight of a row and, if it has one, its companion of scales; without names.
std::vector<TensorSpec> Shapes(const TensorRow& row, const ModelConfig& c, int64_t ratio) {
  const int64_t rows = Value(row.rows, c, ratio), cols = Value(row.cols, c, ratio);
  std::vector<TensorSpec> specs;
  const bool packed = row.storage == StoredAs::kExpert && c.experts_fp4;
  if (packed) {
    specs.push_back(MakeSpec(row, DType::kI8, {rows, cols / 2}));
    specs.push_back(MakeSpec(row, DType::kE8m0, {rows, cols / 32}));
  } else if (row.storage == StoredAs::kExpert || row.storage == StoredAs::kFp8) {
    specs.push_back(MakeSpec(row, DType::kE4m3, {rows, cols}));
    specs.push_back(MakeSpec(row, DType::kE8m0, {(rows + 127) / 128, (cols + 127) / 128}));
  } else {
    const DType dtype = row.storage == StoredAs::kBf16  ? DType::kBf16
                        : row.storage == StoredAs::kF32 ? DType::kF32
                                                        : DType::kI64;
    std::vector<int64_t> shape = {rows};
    if (row.cols != Dim::kNone) shape.push_back(cols);
    specs.push_back(MakeSpec(row, dtype, std::move(shape)));
  }
  for (TensorSpec& spec : specs) spec.cols = cols;
  if (specs.size() == 2) specs[1].is_scale = true;
  return specs;
}

// "X.weight" -> "X.scale".
std::string ScaleName(std::string_view name) {
  SC_CHECK(name.ends_with(kWeightSuffix));
  return std::string(name.substr(0, name.size() - kWeightSuffix.size())) + ".scale";
}

std::string Replace(std::string_view text, std::string_view mark, std::string_view with) {
  std::string result(text);
  const size_t at = result.find(mark);
  if (at != std::string::npos) result.replace(at, mark.size(), with);
  return result;
}

bool HasExperts(const TensorRow& row) {
  return row.pattern.find(kExpertMark) != std::string_view::npos;
}

using Visit = std::function<bool(const TensorSpec&)>;

// Visits the tensors of one row in one block; false when the visitor has seen enough.
bool VisitRow(const TensorRow& row, const ModelConfig& c, const Block& block, const Visit& visit) {
  std::vector<TensorSpec> specs = Shapes(row, c, block.ratio);
  const std::string name = Replace(row.pattern, kBlockMark, block.prefix);
  const int64_t copies = HasExperts(row) ? c.experts : 1;
  for (int64_t i = 0; i < copies; ++i) {
    const std::string own = Replace(name, kExpertMark, fmt::format_int(i).str());
    for (TensorSpec& spec : specs) {
      spec.name = spec.is_scale ? ScaleName(own) : own;
      if (!visit(spec)) return false;
    }
  }
  return true;
}

bool VisitBlock(const ModelConfig& c, const Block& block, const Visit& visit) {
  for (const TensorRow& row : kTensors) {
    if (IsPresent(row.present, block) && !VisitRow(row, c, block, visit)) return false;
  }
  return true;
}

// Lines of the printed table: one for each row and shape it takes in this model.
struct Line {
  std::string pattern;
  TensorSpec spec;
  int64_t count = 0;
};

std::vector<Block> AllBlocks(const ModelConfig& c, bool with_mtp) {
  std::vector<Block> blocks;
  for (int64_t i = 0; i < c.layers; ++i) blocks.push_back(LayerBlock(c, i));
  for (int64_t i = 0; with_mtp && i < c.mtp_layers; ++i) blocks.push_back(MtpBlock(c, i));
  return blocks;
}

std::vector<Line> Lines(const ModelConfig& c, bool with_mtp) {
  std::vector<Line> lines;
  const std::vector<Block> blocks = AllBlocks(c, with_mtp);
  for (const TensorRow& row : kTensors) {
    const size_t first = lines.size();
    const auto add = [&](int64_t ratio) {
      for (const TensorSpec& spec : Shapes(row, c, ratio)) {
        const auto same = [&](const Line& line) {
          return line.spec.is_scale == spec.is_scale && line.spec.shape == spec.shape;
        };
        auto line =
            std::find_if(lines.begin() + static_cast<std::ptrdiff_t>(first), lines.end(), same);
        if (line == lines.end()) {
          const std::string pattern =
              spec.is_scale ? ScaleName(row.pattern) : std::string(row.pattern);
          line = lines.insert(lines.end(), {pattern, spec, 0});
        }
        line->count += HasExperts(row) ? c.experts : 1;
      }
    };
    if (row.present == Present::kOnce) add(0);
    for (const Block& block : blocks) {
      if (IsPresent(row.present, block)) add(block.ratio);
    }
  }
  return lines;
}

// 1234567 -> "1,234,567".
std::string Grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

}  // namespace

std::span<const TensorRow> TensorTable() { return kTensors; }

void ForEachTensor(const ModelConfig& config, bool with_mtp, const Visit& visit) {
  for (const TensorRow& row : kTensors) {
    if (row.present == Present::kOnce && !VisitRow(row, config, Block{}, visit)) return;
  }
  for (const Block& block : AllBlocks(config, with_mtp)) {
    if (!VisitBlock(config, block, visit)) return;
  }
}

TensorTotals CountTensors(const ModelConfig& config, bool with_mtp) {
  TensorTotals totals;
  for (const Line& line : Lines(config, with_mtp)) {
    totals.tensors += line.count;
    totals.bytes += line.count * line.spec.bytes;
  }
  return totals;
}

std::string DescribeTensors(const ModelConfig& config) {
  std::string text = fmt::format("{:50} {:8} {:>16} {:>8} {:>18}  {}\n", "tensor", "dtype", "shape",
                                 "count", "bytes", "what it is");
  for (const Line& line : Lines(config, true)) {
    text += fmt::format("{:50} {:8} {:>16} {:>8} {:>18}  {}\n", line.pattern, Name(line.spec.dtype),
                        ShapeString(line.spec.shape), Grouped(line.count),
                        Grouped(line.count * line.spec.bytes),
                        line.spec.is_scale ? "scales of the weight" : line.spec.row->doc);
  }
  const TensorTotals trunk = CountTensors(config, false), all = CountTensors(config, true);
  const auto total = [&](std::string_view what, const TensorTotals& t) {
    text += fmt::format("{:76} {:>8} {:>18}\n", what, Grouped(t.tensors), Grouped(t.bytes));
  };
  total("layers and what is there once", trunk);
  if (config.mtp_layers > 0) {
    total("MTP blocks", {all.tensors - trunk.tensors, all.bytes - trunk.bytes});
  }
  total("total", all);
  text += fmt::format("{{block}}: layers.0 to layers.{}", config.layers - 1);
  if (config.mtp_layers > 0) text += fmt::format(", mtp.0 to mtp.{}", config.mtp_layers - 1);
  text += fmt::format("; {{expert}}: 0 to {}\n", config.experts - 1);
  return text;
}

}  // namespace seacliff
