// config.json -> ModelConfig: tables of fields with their limits, then what must hold between them.
//
// A config is refused only for what the formulas, the stored formats or the cache pages cannot do.
// Upper limits are far above any model and keep every product of sizes within 64 bits.
#include "config/model_config.h"

#include <fmt/format.h>

#include <bit>
#include <string_view>
#include <utility>

#include "base/file_map.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"

namespace seacliff {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr int64_t kMaxDim = int64_t{1} << 17;
// Activations are quantised to e4m3 in groups of 128 along what a linear sums over.
constexpr int64_t kFp8Group = 128;
constexpr int64_t kPageTokens = 128;

struct IntegerField {
  std::string_view section, key;  // section: the object inside config.json, "" for the root
  int64_t ModelConfig::*field;
  int64_t low, high, multiple;
};

using C = ModelConfig;
constexpr IntegerField kIntegers[] = {
    {"", "vocab_size", &C::vocab_size, 1, int64_t{1} << 24, 1},
    {"", "hidden_size", &C::dim, kFp8Group, kMaxDim, kFp8Group},
    {"", "num_hidden_layers", &C::layers, 1, 1024, 1},
    {"", "num_hash_layers", &C::hash_layers, 0, 1024, 1},
    {"", "num_nextn_predict_layers", &C::mtp_layers, 0, 16, 1},
    {"", "moe_intermediate_size", &C::inter_dim, kFp8Group, kMaxDim, kFp8Group},
    {"", "n_routed_experts", &C::experts, 1, int64_t{1} << 14, 1},
    {"", "n_shared_experts", &C::shared_experts, 1, 1, 1},
    {"", "num_experts_per_tok", &C::picks, 1, int64_t{1} << 14, 1},
    {"", "num_attention_heads", &C::heads, 1, 4096, 1},
    {"", "head_dim", &C::head_dim, 128, 4096, 64},
    {"", "qk_rope_head_dim", &C::rope_dim, 64, 64, 64},
    {"", "q_lora_rank", &C::q_rank, kFp8Group, kMaxDim, kFp8Group},
    {"", "o_groups", &C::o_groups, 1, 4096, 1},
    {"", "o_lora_rank", &C::o_rank, 1, kMaxDim, 1},
    {"", "sliding_window", &C::window, kPageTokens, kPageTokens, kPageTokens},
    {"", "index_n_heads", &C::index_heads, 1, 4096, 1},
    {"", "index_head_dim", &C::index_dim, 64, 4096, 32},
    {"", "index_topk", &C::index_topk, 1, int64_t{1} << 24, 1},
    {"", "hc_mult", &C::streams, 1, 8, 1},
    {"", "hc_sinkhorn_iters", &C::sinkhorn_iters, 1, 1000, 1},
    {"", "max_position_embeddings", &C::max_positions, 1, int64_t{1} << 30, 1},
    {"rope_scaling", "original_max_position_embeddings", &C::rope_original_len, 1, int64_t{1} << 30,
     1},
};

struct RealField {
  std::string_view section, key;
  double ModelConfig::*field;
  double above, at_most;
};

constexpr RealField kReals[] = {
    {"", "routed_scaling_factor", &C::route_scale, 0, 1e6},
    {"", "swiglu_limit", &C::swiglu_limit, 0, 1e30},
    {"", "hc_eps", &C::hc_eps, 0, 1},
    {"", "rms_norm_eps", &C::norm_eps, 0, 1},
    // YaRN divides by the logarithm of the base.
    {"", "rope_theta", &C::rope_theta, 1, 1e15},
    {"", "compress_rope_theta", &C::compress_rope_theta, 1, 1e15},
    {"rope_scaling", "factor", &C::rope_factor, 0, 1e6},
    {"rope_scaling", "beta_fast", &C::rope_beta_fast, 0, 1e6},
    {"rope_scaling", "beta_slow", &C::rope_beta_slow, 0, 1e6},
};

// Fields with one value that this engine computes; anything else would run and be wrong. What every
// Hugging Face config has by inheritance may be left out, the rest is the model's own.
enum class Absent : uint8_t { kError, kFine };

struct TextField {
  std::string_view section, key, value;
  Absent absent;
};
constexpr TextField kTexts[] = {
    {"", "scoring_func", "sqrtsoftplus", Absent::kError},
    {"", "topk_method", "noaux_tc", Absent::kError},
    {"", "hidden_act", "silu", Absent::kError},
    {"quantization_config", "quant_method", "fp8", Absent::kError},
    {"quantization_config", "fmt", "e4m3", Absent::kError},
    {"quantization_config", "scale_fmt", "ue8m0", Absent::kError},
    {"quantization_config", "activation_scheme", "dynamic", Absent::kFine},
};

struct FlagField {
  std::string_view key;
  bool value;
  Absent absent;
};
constexpr FlagField kFlags[] = {
    {"norm_topk_prob", true, Absent::kError},
    {"attention_bias", false, Absent::kFine},
    {"tie_word_embeddings", false, Absent::kFine},
};

std::string Path(std::string_view section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

// A value as the file has it, cut short for a message.
std::string Quote(std::string text) {
  if (text.size() > 60) text.replace(60, std::string::npos, "...");
  return text;
}

bool Has(object from, std::string_view key) {
  element e;
  return from.at_key(key).get(e) == simdjson::SUCCESS && !e.is_null();
}

Result<object> Section(object root, std::string_view section) {
  if (section.empty()) return root;
  return JsonGet<object>(root, section);
}

Status ReadIntegers(object root, ModelConfig& config) {
  for (const IntegerField& f : kIntegers) {
    SC_ASSIGN_OR_RETURN(const object from, Section(root, f.section));
    SC_ASSIGN_OR_RETURN(const int64_t v, JsonGet<int64_t>(from, f.key, f.section));
    const std::string path = Path(f.section, f.key);
    if (f.low == f.high && v != f.low) {
      return InvalidArgument(fmt::format("{}: must be {}, not {}", path, f.low, v));
    }
    if (v < f.low || v > f.high) {
      return InvalidArgument(
          fmt::format("{}: must be between {} and {}, not {}", path, f.low, f.high, v));
    }
    if (v % f.multiple != 0) {
      return InvalidArgument(
          fmt::format("{}: must be a multiple of {}, not {}", path, f.multiple, v));
    }
    config.*f.field = v;
  }
  return OkStatus();
}

Status ReadReals(object root, ModelConfig& config) {
  for (const RealField& f : kReals) {
    SC_ASSIGN_OR_RETURN(const object from, Section(root, f.section));
    SC_ASSIGN_OR_RETURN(const double v, JsonGet<double>(from, f.key, f.section));
    if (!(v > f.above && v <= f.at_most)) {
      return InvalidArgument(fmt::format("{}: must be above {} and at most {}, not {}",
                                         Path(f.section, f.key), f.above, f.at_most, v));
    }
    config.*f.field = v;
  }
  return OkStatus();
}

Status CheckConstants(object root) {
  for (const TextField& f : kTexts) {
    SC_ASSIGN_OR_RETURN(const object from, Section(root, f.section));
    if (f.absent == Absent::kFine && !Has(from, f.key)) continue;
    SC_ASSIGN_OR_RETURN(const auto v, JsonGet<std::string_view>(from, f.key, f.section));
    if (v != f.value) {
      return InvalidArgument(
          fmt::format("{}: must be \"{}\", not \"{}\"", Path(f.section, f.key), f.value, v));
    }
  }
  for (const FlagField& f : kFlags) {
    if (f.absent == Absent::kFine && !Has(root, f.key)) continue;
    SC_ASSIGN_OR_RETURN(const bool v, JsonGet<bool>(root, f.key));
    if (v != f.value) {
      return InvalidArgument(fmt::format("{}: must be {}, not {}", f.key, f.value, v));
    }
  }
  if (Has(root, "num_key_value_heads")) {
    SC_ASSIGN_OR_RETURN(const int64_t v, JsonGet<int64_t>(root, "num_key_value_heads"));
    if (v != 1) {
      return InvalidArgument(
          fmt::format("num_key_value_heads: must be 1 (one latent for all heads), not {}", v));
    }
  }
  return OkStatus();
}

Status CheckModelType(object root) {
  SC_ASSIGN_OR_RETURN(const auto type, JsonGet<std::string_view>(root, "model_type"));
  if (type == "deepseek_v4") return OkStatus();
  return Unimplemented(
      fmt::format("model_type: \"{}\" is not supported, only \"deepseek_v4\" is", type));
}

Status CheckRopeType(object root) {
  SC_ASSIGN_OR_RETURN(const object rope, JsonGet<object>(root, "rope_scaling"));
  // Newer writers of Hugging Face configs call it rope_type.
  const std::string_view key = Has(rope, "type") ? "type" : "rope_type";
  if (!Has(rope, key)) return InvalidArgument("rope_scaling.type: missing");
  SC_ASSIGN_OR_RETURN(const auto type, JsonGet<std::string_view>(rope, key, "rope_scaling"));
  if (type == "yarn") return OkStatus();
  return InvalidArgument(fmt::format("rope_scaling.{}: must be \"yarn\", not \"{}\"", key, type));
}

Status CheckBlockSize(object root) {
  constexpr std::string_view kName = "weight_block_size";
  SC_ASSIGN_OR_RETURN(const object quantization, JsonGet<object>(root, "quantization_config"));
  SC_ASSIGN_OR_RETURN(const array size, JsonGet<array>(quantization, kName, "quantization_config"));
  bool good = size.size() == 2;
  for (element e : size) {
    int64_t v = 0;
    good = good && e.get<int64_t>().get(v) == simdjson::SUCCESS && v == 128;
  }
  if (good) return OkStatus();
  return InvalidArgument(fmt::format("quantization_config.{}: must be [128, 128], not {}", kName,
                                     Quote(simdjson::minify(size))));
}

Status ReadExpertDtype(object root, ModelConfig& config) {
  // The first published configs have no such field and MXFP4 experts (spec/model.md 0.2).
  SC_ASSIGN_OR_RETURN(const auto dtype,
                      JsonGetOr<std::string_view>(root, "expert_dtype", std::string_view("fp4")));
  if (dtype != "fp4" && dtype != "fp8") {
    return InvalidArgument(
        fmt::format("expert_dtype: must be \"fp4\" or \"fp8\", not \"{}\"", dtype));
  }
  config.experts_fp4 = dtype == "fp4";
  return OkStatus();
}

Status ReadTokenIds(object root, ModelConfig& config) {
  constexpr std::pair<std::string_view, int64_t ModelConfig::*> kIds[] = {
      {"bos_token_id", &C::bos_token_id}, {"eos_token_id", &C::eos_token_id}};
  for (const auto& [key, field] : kIds) {
    SC_ASSIGN_OR_RETURN(const int64_t id, JsonGetOr<int64_t>(root, key, config.*field));
    if (id < 0 || id >= config.vocab_size) {
      return InvalidArgument(fmt::format("{}: must be between 0 and vocab_size - 1 = {}, not {}",
                                         key, config.vocab_size - 1, id));
    }
    config.*field = id;
  }
  return OkStatus();
}

// One entry for each layer and MTP layer. Checkpoints with a drafter of several stages list more
// entries than layers and MTP layers (spec/model.md 7.1), and configs without MTP keep its entry.
Status ReadRatios(object root, const std::string& source, ModelConfig& config) {
  constexpr std::string_view kName = "compress_ratios";
  SC_ASSIGN_OR_RETURN(const array list, JsonGet<array>(root, kName));
  const auto wanted = static_cast<size_t>(config.layers + config.mtp_layers);
  size_t count = 0;
  for (element e : list) {
    int64_t ratio = 0;
    if (e.get<int64_t>().get(ratio) != simdjson::SUCCESS ||
        (ratio != 0 && ratio != 4 && ratio != 128)) {
      return InvalidArgument(fmt::format("{}[{}]: must be 0, 4 or 128, not {}", kName, count,
                                         Quote(simdjson::minify(e))));
    }
    if (count < wanted) config.ratios.push_back(ratio);
    ++count;
  }
  if (count < static_cast<size_t>(config.layers)) {
    return InvalidArgument(
        fmt::format("{}: has {} entries for num_hidden_layers = {}", kName, count, config.layers));
  }
  if (count > wanted) {
    SC_LOG_INFO("{}: {} has {} entries for {} layers and {} MTP layers; unused at the end: {}",
                source, kName, count, config.layers, config.mtp_layers, count - wanted);
  }
  config.ratios.resize(wanted, 0);
  for (size_t i = static_cast<size_t>(config.layers); i < wanted; ++i) {
    if (config.ratios[i] != 0) {
      return InvalidArgument(fmt::format("{}[{}]: must be 0, not {}: MTP layers have no compressor",
                                         kName, i, config.ratios[i]));
    }
  }
  return OkStatus();
}

Status CheckCombinations(const ModelConfig& c) {
  if (c.picks > c.experts) {
    return InvalidArgument(
        fmt::format("num_experts_per_tok: {} of n_routed_experts = {}", c.picks, c.experts));
  }
  if (c.hash_layers > c.layers) {
    return InvalidArgument(
        fmt::format("num_hash_layers: {} of num_hidden_layers = {}", c.hash_layers, c.layers));
  }
  if (c.heads % c.o_groups != 0) {
    return InvalidArgument(
        fmt::format("o_groups: {} does not divide num_attention_heads = {}", c.o_groups, c.heads));
  }
  if (c.heads_per_group() * c.head_dim % kFp8Group != 0) {
    return InvalidArgument(fmt::format(
        "o_groups: {} heads of head_dim {} in a group are {} values, not a multiple of {}",
        c.heads_per_group(), c.head_dim, c.heads_per_group() * c.head_dim, kFp8Group));
  }
  if (c.o_groups * c.o_rank % kFp8Group != 0) {
    return InvalidArgument(
        fmt::format("o_lora_rank: o_groups * o_lora_rank = {} is not a multiple "
                    "of {}",
                    c.o_groups * c.o_rank, kFp8Group));
  }
  if (!std::has_single_bit(static_cast<uint64_t>(c.index_dim))) {
    return InvalidArgument(fmt::format(
        "index_head_dim: must be a power of two (Hadamard transform), not {}", c.index_dim));
  }
  if (c.rope_beta_fast < c.rope_beta_slow) {
    return InvalidArgument(fmt::format("rope_scaling.beta_fast: {} is below beta_slow = {}",
                                       c.rope_beta_fast, c.rope_beta_slow));
  }
  return OkStatus();
}

Status Read(object root, const std::string& source, ModelConfig& config) {
  SC_RETURN_IF_ERROR(CheckModelType(root));  // first: other models have other fields
  SC_RETURN_IF_ERROR(ReadIntegers(root, config));
  SC_RETURN_IF_ERROR(ReadReals(root, config));
  SC_RETURN_IF_ERROR(CheckConstants(root));
  SC_RETURN_IF_ERROR(CheckRopeType(root));
  SC_RETURN_IF_ERROR(CheckBlockSize(root));
  SC_RETURN_IF_ERROR(ReadExpertDtype(root, config));
  SC_RETURN_IF_ERROR(ReadTokenIds(root, config));
  SC_RETURN_IF_ERROR(CheckCombinations(config));
  return ReadRatios(root, source, config);
}

}  // namespace

Result<ModelConfig> ParseModelConfig(const std::string& json, const std::string& source) {
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, source));
  object root;
  if (document.root().get<object>().get(root) != simdjson::SUCCESS) {
    return InvalidArgument(source + ": must be a JSON object");
  }
  ModelConfig config;
  const Status status = Read(root, source, config);
  if (!status.ok()) return Status(status.code(), source + ": " + status.message());
  return config;
}

Result<ModelConfig> LoadModelConfigFile(const std::string& path) {
  SC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseModelConfig(text, path);
}

Result<ModelConfig> LoadModelConfig(const std::string& dir) {
  return LoadModelConfigFile(dir + "/config.json");
}

}  // namespace seacliff
