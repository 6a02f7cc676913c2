// The model's shape and constants, read from config.json (Hugging Face names) and validated. Field
// names follow spec/model.md chapter 1; derived sizes are functions, never stored.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace seacliff {

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t dim = 0;             // hidden_size
  int64_t layers = 0;          // num_hidden_layers
  int64_t hash_layers = 0;     // num_hash_layers
  int64_t mtp_layers = 0;      // num_nextn_predict_layers
  int64_t inter_dim = 0;       // moe_intermediate_size
  int64_t experts = 0;         // n_routed_experts
  int64_t shared_experts = 0;  // n_shared_experts
  int64_t picks = 0;           // num_experts_per_tok
  double route_scale = 1;      // routed_scaling_factor
  double swiglu_limit = 10;
  int64_t heads = 0;  // num_attention_heads
  int64_t head_dim = 0;
  int64_t rope_dim = 0;  // qk_rope_head_dim
  int64_t q_rank = 0;    // q_lora_rank
  int64_t o_groups = 0;
  int64_t o_rank = 0;           // o_lora_rank
  int64_t window = 0;           // sliding_window
  std::vector<int64_t> ratios;  // compress_ratios: layers, then one for each MTP layer
  int64_t index_heads = 0;      // index_n_heads
  int64_t index_dim = 0;        // index_head_dim
  int64_t index_topk = 0;
  int64_t streams = 0;         // hc_mult
  int64_t sinkhorn_iters = 0;  // hc_sinkhorn_iters
  double hc_eps = 1e-6;
  double norm_eps = 1e-6;  // rms_norm_eps
  double rope_theta = 10000;
  double compress_rope_theta = 160000;
  double rope_factor = 16;            // rope_scaling.factor
  int64_t rope_original_len = 65536;  // rope_scaling.original_max_position_embeddings
  double rope_beta_fast = 32, rope_beta_slow = 1;
  int64_t max_positions = 0;  // max_position_embeddings
  bool experts_fp4 = true;    // expert_dtype "fp4"; false: "fp8" ("-Base" checkpoints)
  int64_t bos_token_id = 0, eos_token_id = 1;

  int64_t nope_dim() const { return head_dim - rope_dim; }
  int64_t heads_per_group() const { return heads / o_groups; }
  int64_t mix_dim() const { return (2 + streams) * streams; }
  // Width multiple of a compressor's projections (2 for the overlapping ratio 4).
  static int64_t Overlap(int64_t ratio) { return ratio == 4 ? 2 : 1; }
};

// Parses and validates; errors name the field. `source` names the file in messages.
Result<ModelConfig> ParseModelConfig(const std::string& json, const std::string& source);

Result<ModelConfig> LoadModelConfigFile(const std::string& path);
// Reads DIR/config.json.
Result<ModelConfig> LoadModelConfig(const std::string& dir);

}  // namespace seacliff
