// Memory plans against what is really bound and allocated, their monotony, and advice that helps
// when it is followed.
#include "model/memory_plan.h"

#include <gtest/gtest.h>

#include <string>

#include "cache/storages.h"
#include "cache/store.h"
#include "checkpoint/catalogue.h"
#include "checkpoint/checkpoint.h"
#include "kernels/common/packing.h"
#include "kernels/sample/op.h"
#include "model/device_weights.h"
#include "model/memory_report.h"
#include "model/packing.h"
#include "model/rope.h"
#include "model/scratch.h"
#include "model/slice.h"
#include "model/weight_arrays.h"

namespace seacliff {
namespace {

constexpr int64_t kGibi = int64_t{1} << 30;

ModelConfig ConfigOf(const std::string& file) {
  return LoadModelConfigFile(std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/" + file).value();
}
ModelConfig TinyA() { return ConfigOf("golden/tiny-a/config.json"); }
ModelConfig Flash() { return ConfigOf("configs/flash.json"); }
// Flash cut to its first layers.
ModelConfig Flash(int64_t layers) {
  ModelConfig c = Flash();
  c.layers = layers;
  c.mtp_layers = 0;
  c.ratios.resize(static_cast<size_t>(layers));
  return c;
}

MemoryRequest On(int64_t gibi, const ModelConfig& config) {
  MemoryRequest request;
  request.config = config;
  request.device_memory = gibi * kGibi;
  request.limits.max_num_seqs = 16;
  request.limits.max_num_batched_tokens = 512;
  return request;
}

MemoryPlan PlanOf(const MemoryRequest& request) {
  const Result<MemoryPlan> plan = PlanMemory(request);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  return plan.value();
}

// ---- the plan counts what is there ----

struct Tiny {
  ModelConfig config = TinyA();
  Checkpoint checkpoint = Checkpoint::Dummy(config, false, 0, nullptr).value();
  std::vector<float> frequencies[2] = {RopeFrequencies(config, 0), RopeFrequencies(config, 4)};
  ModelWeights weights = BindWeights(checkpoint, config, frequencies);
};

TEST(MemoryPlanTest, CountsTheWeightsOfADevice) {
  Tiny tiny;
  EXPECT_EQ(PlanOf(On(80, tiny.config)).weight_bytes(), DeviceWeights::BytesOf(tiny.weights));
}

TEST(MemoryPlanTest, CountsThePackedWeightsOfAHost) {
  Tiny tiny;
  int64_t bytes = 0;
  for (LayerWeights& layer : tiny.weights.layers) layer.attn.frequencies = {};  // not stored
  ForEachArray(tiny.weights, [&](const WeightArray& array) { bytes += array.size(); });
  int64_t packed = 0;
  for (const Matrix* m : PackableOf(tiny.weights)) {
    packed += PackedBytes(*m);
    bytes += PackedBytes(*m) - m->rows * m->row_bytes();
    if (m->format == WeightFormat::kMxfp4) bytes -= m->scale_rows() * m->scale_cols();
  }
  MemoryRequest request = On(80, tiny.config);
  request.gpu = false;
  EXPECT_EQ(PlanOf(request).weight_bytes(), bytes);
  EXPECT_LT(packed, bytes);

  request.exact = true;  // nothing is packed
  EXPECT_EQ(PlanOf(request).weight_bytes(), CountTensors(tiny.config, false).bytes);
}

TEST(MemoryPlanTest, FlashWeighsWhatItsCheckpointDoes) {
  const MemoryPlan plan = PlanOf(On(400, Flash()));
  // spec/model.md 6.1; arrays begin at multiples of 256 bytes on a device.
  EXPECT_EQ(plan.weights[static_cast<size_t>(WeightKind::kExperts)], 147'169'738'752);
  EXPECT_EQ(plan.weights[static_cast<size_t>(WeightKind::kEmbedding)], 2 * 1'059'061'760);
  EXPECT_NEAR(static_cast<double>(plan.weight_bytes()), 156'015'698'140.0, 1e6);
}

TEST(MemoryPlanTest, CountsActivationsAndCacheAsTheyAreAllocated) {
  const ModelConfig config = TinyA();
  const MemoryRequest request = On(1, config);
  const MemoryPlan plan = PlanOf(request);
  int64_t bytes = 0;
  const Allocate count = [&](int64_t size) {
    bytes += size;
    return Buffer(nullptr, size, std::free);
  };
  const Scratch scratch(config, DType::kBf16, 512, count);
  EXPECT_EQ(plan.activations, bytes + 512 * config.dim * 2);
  EXPECT_EQ(plan.logits, 16 * (config.vocab_size * 4 + MaskBytes(config.vocab_size)));

  const CacheSize& size = plan.cache.size;
  const CacheStore store(config, false, config.layers, size.window_pages + plan.spare,
                         size.compressed_pages + plan.spare, size.slots + plan.spare, count,
                         size.snapshots);
  EXPECT_EQ(plan.cache.bytes, store.bytes());
  EXPECT_EQ(plan.spare, 1);
}

// ---- the cache takes what is left ----

// The most that one compressed page more can add.
int64_t LargestUnit(const MemoryPlan& plan) {
  return plan.unit.compressed_page + plan.unit.snapshot + plan.unit.window_page;
}

TEST(MemoryPlanTest, TheCacheTakesWhatUtilizationLeaves) {
  const MemoryRequest request = On(141, Flash(30));
  const MemoryPlan plan = PlanOf(request);
  ASSERT_TRUE(plan.fits());
  EXPECT_EQ(plan.allowed, 141 * kGibi / 10 * 9 + 141 * kGibi % 10 * 9 / 10);
  EXPECT_EQ(plan.cache.max_model_len, 1 << 20);
  // Less than a page of every layer, and the snapshot it may bring, is left over.
  EXPECT_LT(plan.allowed - plan.bytes(), LargestUnit(plan));
  EXPECT_GE(plan.SequencesOf(1 << 20), 1);
  EXPECT_EQ(plan.SequencesOf(8192), plan.cache.size.compressed_pages / 64);
}

TEST(MemoryPlanTest, TheLengthIsTheLongestThatFits) {
  MemoryRequest request = On(141, Flash(36));
  request.device_memory = PlanOf(request).weight_bytes() + 2 * kGibi;
  request.utilization = 1000;
  const MemoryPlan plan = PlanOf(request);
  ASSERT_TRUE(plan.fits());
  ASSERT_LT(plan.cache.max_model_len, 1 << 20);
  EXPECT_EQ(plan.SequencesOf(plan.cache.max_model_len), 1);
  request.limits.max_model_len = plan.cache.max_model_len;
  EXPECT_TRUE(PlanOf(request).fits());
  request.limits.max_model_len += kPageTokens;
  EXPECT_FALSE(PlanOf(request).fits());
}

TEST(MemoryPlanTest, AGivenCacheIsTakenAsItIs) {
  MemoryRequest request = On(24, TinyA());
  request.limits.kv_cache_memory = 64 << 20;
  const MemoryPlan plan = PlanOf(request);
  EXPECT_LE(plan.cache.bytes, 64 << 20);
  EXPECT_GT(plan.cache.bytes, (64 << 20) - LargestUnit(plan));
  EXPECT_TRUE(plan.fits());

  request.pages = CacheSize{10, 20, 3, 5};
  request.limits.max_model_len = 2560;
  const MemoryPlan pages = PlanOf(request);
  EXPECT_EQ(pages.cache.bytes, 11 * plan.unit.window_page + 21 * plan.unit.compressed_page +
                                   4 * plan.unit.slot + 5 * plan.unit.snapshot);
}

TEST(MemoryPlanTest, AHostKeepsItsOwnRule) {
  MemoryRequest request = On(64, TinyA());
  request.gpu = false;
  const MemoryPlan plan = PlanOf(request);
  EXPECT_EQ(plan.cache.size.compressed_pages, 16 * kDefaultTokensPerSequence / kPageTokens);
  EXPECT_EQ(plan.allowed, 64 * kGibi);
  EXPECT_EQ(plan.workspace, 0);
  EXPECT_EQ(plan.spare, 0);
}

TEST(MemoryPlanTest, SettingsWithoutSenseAreNamed) {
  MemoryRequest request = On(24, TinyA());
  request.limits.max_num_batched_tokens = 3;
  EXPECT_NE(PlanMemory(request).status().message().find("max_num_batched_tokens"),
            std::string::npos);
  request = On(24, TinyA());
  request.limits.kv_cache_memory = 1;
  EXPECT_NE(PlanMemory(request).status().message().find("kv_cache_memory"), std::string::npos);
  request = On(24, TinyA());
  request.limits.max_model_len = 2 << 20;
  EXPECT_NE(PlanMemory(request).status().message().find("max_model_len"), std::string::npos);
}

// ---- ranks ----

TEST(MemoryPlanTest, RanksShareWhatIsCut) {
  MemoryRequest request = On(141, Flash());
  EXPECT_FALSE(PlanOf(request).fits());
  const MemoryPlan whole = PlanOf(request);
  request.ranks = 2;
  const MemoryPlan half = PlanOf(request);
  EXPECT_TRUE(half.fits());
  const auto of = [](const MemoryPlan& plan, WeightKind kind) {
    return plan.weights[static_cast<size_t>(kind)];
  };
  EXPECT_EQ(of(half, WeightKind::kExperts) * 2, of(whole, WeightKind::kExperts));
  EXPECT_EQ(of(half, WeightKind::kShared) * 2, of(whole, WeightKind::kShared));
  EXPECT_EQ(of(half, WeightKind::kEmbedding) * 2, of(whole, WeightKind::kEmbedding));
  EXPECT_EQ(of(half, WeightKind::kOther), of(whole, WeightKind::kOther));
  // What all ranks have is not cut: wq_a, wkv, compressors, indexers (spec/model.md 6.1).
  const int64_t kept = 180'366'080 + 90'183'040 + 525'722'624 + 275'353'344;
  EXPECT_NEAR(static_cast<double>(of(half, WeightKind::kAttention)),
              static_cast<double>(kept + (of(whole, WeightKind::kAttention) - kept) / 2), 1e6);
  // The latent is that of all heads, so every rank has the whole cache.
  EXPECT_EQ(half.unit.compressed_page, whole.unit.compressed_page);

  EXPECT_EQ(RanksThatFit(On(141, Flash())), 2);
  EXPECT_EQ(RanksThatFit(On(80, Flash())), 4);  // 2 have 144 GiB together; 3 cannot share 64 heads
  EXPECT_NE(RankConfig(Flash(), 3).status().message().find("num_attention_heads"),
            std::string::npos);
  EXPECT_NE(RankConfig(Flash(), 16).status().message().find("o_groups"), std::string::npos);
  EXPECT_NE(RankConfig(TinyA(), 2).status().message().find("moe_intermediate_size"),
            std::string::npos);
}

// ---- more asks for no less ----

TEST(MemoryPlanTest, WorkspaceNeverFalls) {
  for (const ModelConfig& config : {TinyA(), Flash(), ConfigOf("configs/pro.json")}) {
    for (int64_t pages = 1; pages <= 8192; pages *= 8) {
      for (const int64_t seqs : {1, 2, 16, 40, 256}) {
        int64_t before = 0;
        for (int64_t tokens = 1; tokens <= 8192; tokens += tokens < 1100 ? 1 : 97) {
          const int64_t bytes = WorkspaceOf(config, config.vocab_size, tokens, seqs, pages).bytes;
          ASSERT_GE(bytes, before) << tokens << " tokens, " << seqs << " sequences, " << pages;
          ASSERT_GE(WorkspaceOf(config, config.vocab_size, tokens, seqs + 1, pages).bytes, bytes);
          ASSERT_GE(WorkspaceOf(config, config.vocab_size, tokens, seqs, pages + 1).bytes, bytes);
          before = bytes;
        }
      }
    }
  }
}

// ---- advice ----

// Every remedy makes the plan fit, and its figure is the largest (or least) that does.
void ExpectGoodAdvice(const MemoryRequest& request, size_t count) {
  ASSERT_FALSE(PlanOf(request).fits());
  const std::vector<Remedy> remedies = RemediesFor(request);
  EXPECT_EQ(remedies.size(), count);
  for (const Remedy& remedy : remedies) {
    EXPECT_TRUE(PlanOf(remedy.request).fits()) << remedy.flags;
    const std::string text = CheckFits("a GPU", request, PlanOf(request)).message();
    EXPECT_NE(text.find(remedy.flags), std::string::npos) << text;
  }
}

TEST(MemoryAdviceTest, EachSettingAloneIfThatIsEnough) {
  MemoryRequest request = On(141, Flash(36));
  request.limits.max_num_batched_tokens = 8192;
  request.limits.max_num_seqs = 64;
  request.limits.max_model_len = 1 << 20;
  ExpectGoodAdvice(request, 3);
  for (const Remedy& remedy : RemediesFor(request)) {
    MemoryRequest beyond = remedy.request;
    CacheLimits& limits = beyond.limits;
    if (limits.max_model_len != 1 << 20) limits.max_model_len += 128;
    if (limits.max_num_seqs != 64) limits.max_num_seqs += 1;
    if (limits.max_num_batched_tokens != 8192) limits.max_num_batched_tokens += 128;
    if (beyond.utilization != 900) beyond.utilization -= 10;
    EXPECT_FALSE(PlanOf(beyond).fits()) << remedy.flags;
  }
}

TEST(MemoryAdviceTest, AGivenCacheIsLowered) {
  MemoryRequest request = On(24, TinyA());
  request.limits.kv_cache_memory = 30 * kGibi;
  ExpectGoodAdvice(request, 1);
  EXPECT_NE(RemediesFor(request)[0].flags.find("--kv-cache-memory "), std::string::npos);
}

TEST(MemoryAdviceTest, SeveralTogetherWhereOneIsNotEnough) {
  MemoryRequest request = On(24, Flash(5));
  request.device_memory = PlanOf(request).weight_bytes() + kGibi;
  request.utilization = 1000;
  request.limits.max_num_batched_tokens = 8192;
  request.limits.max_num_seqs = 512;
  request.limits.max_model_len = 1 << 20;
  ExpectGoodAdvice(request, 1);
  const std::string flags = RemediesFor(request)[0].flags;
  for (const char* flag : {"--max-num-seqs", "--max-num-batched-tokens"}) {
    EXPECT_NE(flags.find(flag), std::string::npos) << flags;
  }
}

TEST(MemoryAdviceTest, WeightsThatDoNotFitWantMoreGpus) {
  const MemoryRequest request = On(141, Flash());
  EXPECT_TRUE(RemediesFor(request).empty());
  const Status status = CheckFits("a GPU", request, PlanOf(request));
  EXPECT_EQ(status.code(), Code::kExhausted);
  EXPECT_NE(status.message().find("the weights alone need 145.30 GiB"), std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("--tensor-parallel-size 2"), std::string::npos)
      << status.message();
}

}  // namespace
}  // namespace seacliff
