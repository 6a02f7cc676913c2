// The tensor table against the published totals, and against the list of names it expands to.
#include "checkpoint/catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/file_map.h"

namespace seacliff {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig Config(const std::string& name) {
  auto text = ReadFile(std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/configs/" + name);
  auto config = ParseModelConfig(text.value(), name);
  return std::move(config).value();
}

std::map<std::string, TensorSpec> Expand(const ModelConfig& config, bool with_mtp) {
  std::map<std::string, TensorSpec> specs;
  ForEachTensor(config, with_mtp, [&](const TensorSpec& spec) {
    EXPECT_TRUE(specs.emplace(spec.name, spec).second) << spec.name << " is there twice";
    return true;
  });
  return specs;
}

// spec/model.md 6 and 8: what the published files have.
TEST(Catalogue, GivesThePublishedTotals) {
  const TensorTotals flash = CountTensors(Config("flash.json"), true);
  EXPECT_EQ(flash.tensors, 69'187);
  EXPECT_EQ(flash.bytes, 159'609'485'896);
  const TensorTotals pro = CountTensors(Config("pro.json"), true);
  EXPECT_EQ(pro.tensors, 145'116);
  EXPECT_EQ(pro.bytes, 864'704'792'696);
  const TensorTotals flash_trunk = CountTensors(Config("flash.json"), false);
  EXPECT_EQ(flash_trunk.tensors, 69'187 - 1'575);
  EXPECT_EQ(flash_trunk.bytes, 156'015'698'140);
  EXPECT_EQ(CountTensors(Config("pro.json"), false).bytes, 850'748'205'004);
}

TEST(Catalogue, ExpandsToWhatItCounts) {
  ModelConfig fp8 = Config("cpu-mid.json");
  fp8.experts_fp4 = false;
  for (const ModelConfig& config : {Config("flash.json"), Config("cpu-mid.json"), fp8}) {
    for (bool with_mtp : {false, true}) {
      TensorTotals sum;
      for (const auto& [name, spec] : Expand(config, with_mtp)) {
        sum.tensors += 1;
        sum.bytes += spec.bytes;
      }
      EXPECT_EQ(sum.tensors, CountTensors(config, with_mtp).tensors);
      EXPECT_EQ(sum.bytes, CountTensors(config, with_mtp).bytes);
    }
  }
}

TEST(Catalogue, HasTheShapesOfTheSpec) {
  const auto specs = Expand(Config("flash.json"), true);
  const auto shape = [&](const std::string& name) { return specs.at(name).shape; };
  EXPECT_THAT(shape("layers.0.attn.wo_a.weight"), ElementsAre(8192, 4096));
  EXPECT_THAT(shape("layers.0.attn.wo_a.scale"), ElementsAre(64, 32));
  EXPECT_THAT(shape("layers.2.attn.compressor.ape"), ElementsAre(4, 1024));
  EXPECT_THAT(shape("layers.3.attn.compressor.ape"), ElementsAre(128, 512));
  EXPECT_THAT(shape("layers.3.attn.compressor.wkv.weight"), ElementsAre(512, 4096));
  EXPECT_THAT(shape("layers.2.attn.indexer.wq_b.scale"), ElementsAre(64, 8));
  EXPECT_THAT(shape("layers.2.attn.indexer.compressor.wgate.weight"), ElementsAre(256, 4096));
  EXPECT_THAT(shape("layers.42.ffn.experts.255.w2.weight"), ElementsAre(4096, 1024));
  EXPECT_THAT(shape("layers.42.ffn.experts.255.w2.scale"), ElementsAre(4096, 64));
  EXPECT_THAT(shape("layers.2.ffn.gate.tid2eid"), ElementsAre(129280, 6));
  EXPECT_THAT(shape("mtp.0.e_proj.scale"), ElementsAre(32, 32));
  EXPECT_EQ(specs.at("layers.2.ffn.gate.tid2eid").dtype, DType::kI64);
  EXPECT_EQ(specs.at("layers.0.hc_attn_fn").dtype, DType::kF32);
  for (const char* absent :
       {"layers.0.attn.compressor.ape", "layers.3.attn.indexer.wq_b.weight",
        "layers.2.ffn.gate.bias", "layers.3.ffn.gate.tid2eid", "mtp.0.embed.weight",
        "mtp.0.ffn.gate.tid2eid", "layers.0.attn.attn_sink.scale", "layers.0.e_proj.weight"}) {
    EXPECT_FALSE(specs.contains(absent)) << absent;
  }
}

// Ragged scale blocks: a head_dim that is no multiple of 128.
TEST(Catalogue, RoundsScaleBlocksUp) {
  ModelConfig config = Config("flash.json");
  config.head_dim = 192;
  const auto specs = Expand(config, false);
  EXPECT_THAT(specs.at("layers.0.attn.wkv.scale").shape, ElementsAre(2, 32));
}

TEST(Catalogue, StopsWhenToldTo) {
  int seen = 0;
  ForEachTensor(Config("flash.json"), true, [&](const TensorSpec&) { return ++seen < 100; });
  EXPECT_EQ(seen, 100);
}

TEST(Catalogue, DescribesItself) {
  const std::string text = DescribeTensors(Config("flash.json"));
  EXPECT_THAT(text, HasSubstr("159,609,485,896"));
  EXPECT_THAT(text, HasSubstr("69,187"));
  EXPECT_THAT(text, HasSubstr("{block}.ffn.experts.{expert}.w1.scale"));
  EXPECT_THAT(DescribeTensors(Config("pro.json")), HasSubstr("864,704,792,696"));
  for (const TensorRow& row : TensorTable()) {
    EXPECT_THAT(text, HasSubstr(row.pattern));
    EXPECT_FALSE(row.doc.empty());
  }
}

}  // namespace
}  // namespace seacliff
