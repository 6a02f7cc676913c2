// Configs that must be read and configs that must be refused, each with the message a user sees.
#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace seacliff {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

const std::string kConfigs = std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/configs/";

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}
Json Flash() { return ReadJson(kConfigs + "flash.json"); }

// Flash with `value` (JSON; "" removes) at a JSON pointer.
Json Patched(const std::string& pointer, const std::string& value) {
  Json json = Flash();
  const Json::json_pointer at(pointer);
  if (value.empty()) {
    json[at.parent_pointer()].erase(at.back());
  } else {
    json[at] = Json::parse(value);
  }
  return json;
}

Result<ModelConfig> Parse(const Json& json) { return ParseModelConfig(json.dump(), "config.json"); }

TEST(ModelConfig, ReadsFlash) {
  const auto c = Parse(Flash());
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->vocab_size, 129280);
  EXPECT_EQ(c->dim, 4096);
  EXPECT_EQ(c->layers, 43);
  EXPECT_EQ(c->hash_layers, 3);
  EXPECT_EQ(c->mtp_layers, 1);
  EXPECT_EQ(c->inter_dim, 2048);
  EXPECT_EQ(c->experts, 256);
  EXPECT_EQ(c->shared_experts, 1);
  EXPECT_EQ(c->picks, 6);
  EXPECT_EQ(c->route_scale, 1.5);
  EXPECT_EQ(c->swiglu_limit, 10);
  EXPECT_EQ(c->heads, 64);
  EXPECT_EQ(c->head_dim, 512);
  EXPECT_EQ(c->rope_dim, 64);
  EXPECT_EQ(c->q_rank, 1024);
  EXPECT_EQ(c->o_groups, 8);
  EXPECT_EQ(c->o_rank, 1024);
  EXPECT_EQ(c->window, 128);
  EXPECT_EQ(c->index_heads, 64);
  EXPECT_EQ(c->index_dim, 128);
  EXPECT_EQ(c->index_topk, 512);
  EXPECT_EQ(c->streams, 4);
  EXPECT_EQ(c->sinkhorn_iters, 20);
  EXPECT_EQ(c->hc_eps, 1e-6);
  EXPECT_EQ(c->norm_eps, 1e-6);
  EXPECT_EQ(c->rope_theta, 10000);
  EXPECT_EQ(c->compress_rope_theta, 160000);
  EXPECT_EQ(c->rope_factor, 16);
  EXPECT_EQ(c->rope_original_len, 65536);
  EXPECT_EQ(c->rope_beta_fast, 32);
  EXPECT_EQ(c->rope_beta_slow, 1);
  EXPECT_EQ(c->max_positions, 1048576);
  EXPECT_TRUE(c->experts_fp4);
  EXPECT_EQ(c->bos_token_id, 0);
  EXPECT_EQ(c->eos_token_id, 1);
  ASSERT_EQ(c->ratios.size(), 44u);
  EXPECT_EQ(c->ratios[1], 0);
  EXPECT_EQ(c->ratios[2], 4);
  EXPECT_EQ(c->ratios[41], 128);
  EXPECT_EQ(c->ratios[42], 4);
  EXPECT_EQ(c->ratios[43], 0);
}

TEST(ModelConfig, ReadsWhatOthersWrite) {
  for (const char* name : {"pro.json", "cpu-mid.json"}) {
    const auto c = Parse(ReadJson(kConfigs + name));
    EXPECT_TRUE(c.ok()) << name << ": " << c.status().message();
  }
  const auto tiny = LoadModelConfig(std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/golden/tiny-a");
  ASSERT_TRUE(tiny.ok()) << tiny.status().message();
  EXPECT_EQ(tiny->swiglu_limit, 2.5);
  EXPECT_THAT(tiny->ratios, ElementsAre(0, 0, 4, 128, 4, 128, 0));
}

struct Case {
  std::string pointer, value, message;
};

TEST(ModelConfig, AcceptsOddShapes) {
  const Case cases[] = {
      {"/num_attention_heads", "24", ""},
      {"/head_dim", "128", ""},
      {"/head_dim", "192", ""},
      {"/hidden_size", "640", ""},
      {"/moe_intermediate_size", "384", ""},
      {"/n_routed_experts", "7", ""},
      {"/num_experts_per_tok", "256", ""},
      {"/num_hash_layers", "0", ""},
      {"/num_hash_layers", "43", ""},
      {"/q_lora_rank", "128", ""},
      {"/o_groups", "64", ""},
      {"/o_groups", "1", ""},
      {"/o_lora_rank", "48", ""},
      {"/index_n_heads", "3", ""},
      {"/index_head_dim", "64", ""},
      {"/index_topk", "5", ""},
      {"/hc_mult", "1", ""},
      {"/hc_mult", "8", ""},
      {"/swiglu_limit", "0.5", ""},
      {"/swiglu_limit", "1000", ""},
      {"/rms_norm_eps", "1e-20", ""},
      {"/compress_ratios/0", "128", ""},
      {"/compress_ratios/2", "0", ""},
      {"/vocab_size", "2", ""},
      {"/expert_dtype", "", ""},
      {"/attention_bias", "", ""},
      {"/some_new_field", "[1]", ""},
  };
  for (const Case& c : cases) {
    const auto config = Parse(Patched(c.pointer, c.value));
    EXPECT_TRUE(config.ok()) << c.pointer << " = " << c.value << ": " << config.status().message();
  }
}

TEST(ModelConfig, NamesTheFieldItRefuses) {
  const Case cases[] = {
      {"/hidden_size", "", "hidden_size: missing"},
      {"/hidden_size", "\"4096\"", "hidden_size: must be an integer"},
      {"/hidden_size", "4096.5", "hidden_size: must be an integer"},
      {"/hidden_size", "-4096", "hidden_size: must be between 128 and 131072, not -4096"},
      {"/hidden_size", "9223372036854775807", "hidden_size: must be between"},
      {"/hidden_size", "18446744073709551615", "hidden_size: must be an integer"},
      {"/hidden_size", "4064", "hidden_size: must be a multiple of 128, not 4064"},
      {"/vocab_size", "0", "vocab_size: must be between"},
      {"/num_hidden_layers", "0", "num_hidden_layers: must be between"},
      {"/num_hidden_layers", "50", "compress_ratios: has 44 entries for num_hidden_layers = 50"},
      {"/num_hash_layers", "44", "num_hash_layers: 44 of num_hidden_layers = 43"},
      {"/moe_intermediate_size", "2000", "moe_intermediate_size: must be a multiple of 128"},
      {"/n_routed_experts", "5", "num_experts_per_tok: 6 of n_routed_experts = 5"},
      {"/n_shared_experts", "2", "n_shared_experts: must be 1, not 2"},
      {"/routed_scaling_factor", "0", "routed_scaling_factor: must be above 0"},
      {"/routed_scaling_factor", "true", "routed_scaling_factor: must be a number"},
      {"/swiglu_limit", "-1", "swiglu_limit: must be above 0"},
      {"/swiglu_limit", "", "swiglu_limit: missing"},
      {"/head_dim", "500", "head_dim: must be a multiple of 64, not 500"},
      {"/head_dim", "64", "head_dim: must be between 128"},
      {"/qk_rope_head_dim", "32", "qk_rope_head_dim: must be 64, not 32"},
      {"/q_lora_rank", "1000", "q_lora_rank: must be a multiple of 128"},
      {"/o_groups", "7", "o_groups: 7 does not divide num_attention_heads = 64"},
      {"/o_lora_rank", "1000", "o_lora_rank: o_groups * o_lora_rank = 8000 is not a multiple"},
      {"/sliding_window", "256", "sliding_window: must be 128, not 256"},
      {"/index_head_dim", "96", "index_head_dim: must be a power of two"},
      {"/index_head_dim", "32", "index_head_dim: must be between 64"},
      {"/hc_mult", "9", "hc_mult: must be between 1 and 8, not 9"},
      {"/rms_norm_eps", "0", "rms_norm_eps: must be above 0"},
      {"/rope_theta", "1", "rope_theta: must be above 1"},
      {"/rope_scaling", "", "rope_scaling: missing"},
      {"/rope_scaling", "null", "rope_scaling: must be an object"},
      {"/rope_scaling/type", "\"linear\"", "rope_scaling.type: must be \"yarn\", not \"linear\""},
      {"/rope_scaling/type", "", "rope_scaling.type: missing"},
      {"/rope_scaling/factor", "", "rope_scaling.factor: missing"},
      {"/rope_scaling/beta_fast", "0.5", "rope_scaling.beta_fast: 0.5 is below beta_slow = 1"},
      {"/compress_ratios", "7", "compress_ratios: must be an array"},
      {"/compress_ratios/5", "8", "compress_ratios[5]: must be 0, 4 or 128, not 8"},
      {"/compress_ratios/5", "\"4\"", "compress_ratios[5]: must be 0, 4 or 128, not \"4\""},
      {"/compress_ratios/43", "4", "compress_ratios[43]: must be 0, not 4"},
      {"/model_type", "\"deepseek_v41\"", "model_type: \"deepseek_v41\" is not supported"},
      {"/model_type", "", "model_type: missing"},
      {"/scoring_func", "\"sigmoid\"", "scoring_func: must be \"sqrtsoftplus\", not \"sigmoid\""},
      {"/topk_method", "\"greedy\"", "topk_method: must be \"noaux_tc\""},
      {"/hidden_act", "\"gelu\"", "hidden_act: must be \"silu\""},
      {"/norm_topk_prob", "false", "norm_topk_prob: must be true, not false"},
      {"/attention_bias", "true", "attention_bias: must be false, not true"},
      {"/tie_word_embeddings", "true", "tie_word_embeddings: must be false"},
      {"/num_key_value_heads", "8", "num_key_value_heads: must be 1"},
      {"/expert_dtype", "\"int4\"", "expert_dtype: must be \"fp4\" or \"fp8\", not \"int4\""},
      {"/expert_dtype", "4", "expert_dtype: must be a string"},
      {"/eos_token_id", "129280", "eos_token_id: must be between 0 and vocab_size - 1 = 129279"},
      {"/quantization_config", "", "quantization_config: missing"},
      {"/quantization_config/fmt", "\"e5m2\"", "quantization_config.fmt: must be \"e4m3\""},
      {"/quantization_config/scale_fmt", "\"float\"", "scale_fmt: must be \"ue8m0\""},
      {"/quantization_config/weight_block_size", "[32, 32]",
       "weight_block_size: must be [128, 128], not [32,32]"},
      {"/quantization_config/weight_block_size", "128", "weight_block_size: must be an array"},
  };
  for (const Case& c : cases) {
    const auto config = Parse(Patched(c.pointer, c.value));
    ASSERT_FALSE(config.ok()) << c.pointer << " = " << c.value;
    EXPECT_THAT(config.status().message(), StartsWith("config.json: ")) << c.pointer;
    EXPECT_THAT(config.status().message(), HasSubstr(c.message)) << c.pointer;
  }
}

TEST(ModelConfig, RefusesWhatIsNoConfig) {
  for (const char* text : {"", "[]", "{", "7", "{\"hidden_size\": 99999999999999999999}"}) {
    const auto config = ParseModelConfig(text, "x/config.json");
    ASSERT_FALSE(config.ok());
    EXPECT_THAT(config.status().message(), StartsWith("x/config.json: "));
  }
  const auto absent = LoadModelConfig("/nonexistent");
  EXPECT_EQ(absent.status().code(), Code::kNotFound);
  EXPECT_THAT(absent.status().message(), HasSubstr("/nonexistent/config.json"));
}

TEST(ModelConfig, KeepsOneRatioForEachBlock) {
  Json longer = Flash();
  longer["compress_ratios"].insert(longer["compress_ratios"].end(), {0, 0});
  const auto with_drafter = Parse(longer);
  ASSERT_TRUE(with_drafter.ok()) << with_drafter.status().message();
  EXPECT_EQ(with_drafter->ratios.size(), 44u);

  Json shorter = Flash();
  shorter["compress_ratios"].erase(43);
  const auto without_mtp = Parse(shorter);
  ASSERT_TRUE(without_mtp.ok()) << without_mtp.status().message();
  EXPECT_EQ(without_mtp->ratios.size(), 44u);
  EXPECT_EQ(without_mtp->ratios[43], 0);
}

TEST(ModelConfig, ReadsTheExpertFormat) {
  EXPECT_TRUE(Parse(Patched("/expert_dtype", ""))->experts_fp4);
  EXPECT_FALSE(Parse(Patched("/expert_dtype", "\"fp8\""))->experts_fp4);
}

}  // namespace
}  // namespace seacliff
