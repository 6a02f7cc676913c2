// Opening directories, good and broken, and dummy weights: the golden checkpoint and copies of it
// that lack or change one thing.
#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/numbers.h"
#include "checkpoint/catalogue.h"

namespace seacliff {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

const std::string kTiny = std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/golden/tiny-a";
constexpr const char* kIndex = "/model.safetensors.index.json";

ModelConfig TinyConfig() { return LoadModelConfig(kTiny).value(); }

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

bool SameData(const StoredTensor& a, const StoredTensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.bytes == b.bytes &&
         std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes)) == 0;
}

bool IsAligned(const StoredTensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % static_cast<size_t>(SizeOf(t.dtype)) == 0;
}

TEST(Checkpoint, OpensTheGoldenModel) {
  const ModelConfig config = TinyConfig();
  const auto checkpoint = Checkpoint::Open(kTiny, config, true);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Json index = ReadJson(kTiny + kIndex);
  EXPECT_EQ(checkpoint->bytes(), index["metadata"]["total_size"].get<int64_t>());
  EXPECT_EQ(checkpoint->tensors(), static_cast<int64_t>(index["weight_map"].size()));
  EXPECT_TRUE(checkpoint->has_mtp());
  EXPECT_EQ(checkpoint->Get("mtp.0.e_proj.weight").dtype, DType::kE4m3);
  EXPECT_EQ(checkpoint->Find("layers.0.attn.compressor.ape"), nullptr);
  ForEachTensor(config, true, [&](const TensorSpec& spec) {
    EXPECT_TRUE(IsAligned(checkpoint->Get(spec.name))) << spec.name;
    return true;
  });
}

TEST(Checkpoint, GivesTheBytesOfTheFile) {
  const auto checkpoint = Checkpoint::Open(kTiny, TinyConfig(), true);
  ASSERT_TRUE(checkpoint.ok());
  const auto shard = SafetensorsFile::Open(kTiny + "/model-00002-of-00002.safetensors");
  ASSERT_TRUE(shard.ok());
  for (const NamedTensor& t : shard->tensors()) {
    EXPECT_TRUE(SameData(checkpoint->Get(t.name), t.tensor)) << t.name;
  }
}

// A directory with the golden checkpoint as one file, to be changed before it is opened.
class BrokenTest : public ::testing::Test {
 protected:
  BrokenTest() : dir_(::testing::TempDir() + "/seacliff_broken_" + std::to_string(getpid())) {
    std::filesystem::create_directories(dir_);
    for (const char* name :
         {"/model-00001-of-00002.safetensors", "/model-00002-of-00002.safetensors"}) {
      files_.push_back(SafetensorsFile::Open(kTiny + name).value());
      const auto& tensors = files_.back().tensors();
      tensors_.insert(tensors_.end(), tensors.begin(), tensors.end());
    }
  }
  ~BrokenTest() override { std::filesystem::remove_all(dir_); }

  StoredTensor& At(const std::string& name) {
    for (NamedTensor& t : tensors_) {
      if (t.name == name) return t.tensor;
    }
    ADD_FAILURE() << "no " << name;
    return tensors_[0].tensor;
  }
  void Remove(const std::function<bool(const std::string&)>& condition) {
    std::erase_if(tensors_, [&](const NamedTensor& t) { return condition(t.name); });
  }
  Result<Checkpoint> Open(bool with_mtp = true) {
    EXPECT_TRUE(WriteSafetensors(dir_ + "/model.safetensors", tensors_).ok());
    return Checkpoint::Open(dir_, config_, with_mtp);
  }
  std::string Message(bool with_mtp = true) { return Open(with_mtp).status().message(); }

  // The published layout, with shards and index.
  void CopySharded() {
    for (const auto& entry : std::filesystem::directory_iterator(kTiny)) {
      std::filesystem::copy(entry.path(), dir_);
    }
  }
  void WriteIndex(const Json& index) { std::ofstream(dir_ + kIndex) << index.dump(); }

  std::string dir_;
  ModelConfig config_ = TinyConfig();
  std::vector<SafetensorsFile> files_;
  std::vector<NamedTensor> tensors_;
};

TEST_F(BrokenTest, OpensOneFile) {
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->bytes(), CountTensors(config_, true).bytes);
}

TEST_F(BrokenTest, NamesTheMissingTensor) {
  Remove([](const std::string& name) { return name == "layers.3.attn.wkv.scale"; });
  EXPECT_THAT(Message(), HasSubstr("model.safetensors: layers.3.attn.wkv.scale: missing"));
}

TEST_F(BrokenTest, NamesTheWrongDtype) {
  At("layers.2.attn.q_norm.weight").dtype = DType::kU8;
  At("layers.2.attn.q_norm.weight").shape = {256};
  EXPECT_THAT(Message(), HasSubstr("layers.2.attn.q_norm.weight: dtype must be BF16, not U8"));
}

TEST_F(BrokenTest, NamesTheWrongShape) {
  At("layers.2.ffn.gate.weight").shape = {256, 8};
  EXPECT_THAT(Message(), HasSubstr("layers.2.ffn.gate.weight: shape must be [8, 256] by "
                                   "config.json, not [256, 8]"));
}

TEST_F(BrokenTest, HintsAtTheExpertFormat) {
  config_.experts_fp4 = false;
  EXPECT_THAT(Message(), HasSubstr("layers.0.ffn.experts.0.w1.weight: dtype must be F8_E4M3, not "
                                   "I8; expert_dtype in config.json says fp8"));
}

TEST_F(BrokenTest, RefusesExpertsThatAreNot) {
  std::vector<int64_t> ids(1024 * 2, 3);
  ids[7] = 8;
  At("layers.1.ffn.gate.tid2eid").data = std::as_bytes(std::span(ids)).data();
  EXPECT_THAT(Message(), HasSubstr("layers.1.ffn.gate.tid2eid: row 3 has expert 8, but "
                                   "n_routed_experts is 8"));
  ids[7] = -1;
  EXPECT_THAT(Message(), HasSubstr("row 3 has expert -1"));
}

TEST_F(BrokenTest, IgnoresTensorsItDoesNotKnow) {
  tensors_.push_back({"layers.0.attn.novelty", tensors_[0].tensor});
  EXPECT_TRUE(Open().ok());
}

TEST_F(BrokenTest, NeedsMtpOnlyIfAskedTo) {
  Remove([](const std::string& name) { return name.starts_with("mtp."); });
  EXPECT_THAT(Message(true), HasSubstr("mtp.0.attn_norm.weight: missing"));
  const auto trunk = Open(false);
  ASSERT_TRUE(trunk.ok()) << trunk.status().message();
  EXPECT_FALSE(trunk->has_mtp());
  EXPECT_EQ(trunk->Find("mtp.0.norm.weight"), nullptr);
}

// spec/model.md 7.1: the later drafter has mtp.0 to mtp.2 and no e_proj.
TEST_F(BrokenTest, OpensTheTrunkBesideABlockDrafter) {
  Remove([](const std::string& name) {
    return name.starts_with("mtp.0.") && name.find("_proj") != std::string::npos;
  });
  tensors_.push_back({"mtp.0.main_proj.weight", tensors_[0].tensor});
  tensors_.push_back({"mtp.2.norm.weight", tensors_[0].tensor});
  const auto checkpoint = Open(true);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_FALSE(checkpoint->has_mtp());
  EXPECT_EQ(checkpoint->bytes(), CountTensors(config_, false).bytes);
}

TEST(Checkpoint, ReadsAllButWhatIsLeftOut) {
  const auto checkpoint = Checkpoint::Open(kTiny, TinyConfig(), true);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  int64_t last = -1, end = 0;
  const Progress progress = [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    last = done;
    end = total;
  };
  EXPECT_TRUE(checkpoint->Read({}, progress).ok());
  EXPECT_EQ(last, checkpoint->bytes());
  EXPECT_EQ(end, checkpoint->bytes());
  last = -1;
  const StoredTensor& embed = checkpoint->Get("embed.weight");
  EXPECT_TRUE(checkpoint->Read({embed.data}, progress).ok());
  EXPECT_EQ(last, checkpoint->bytes() - embed.bytes);
  EXPECT_EQ(end, last);
  EXPECT_THAT(checkpoint->ReadError(embed.data).message(), HasSubstr("tiny-a: embed.weight: "));
}

TEST(Checkpoint, OriginNamesEachFile) {
  const auto checkpoint = Checkpoint::Open(kTiny, TinyConfig(), true);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  int64_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kTiny)) {
    if (entry.path().extension() != ".safetensors") continue;
    if (checkpoint->origin().find(entry.path().filename()) != std::string::npos) ++files;
  }
  EXPECT_EQ(std::count(checkpoint->origin().begin(), checkpoint->origin().end(), '\n'), files);
  EXPECT_GT(files, 0);
  const auto dummy = Checkpoint::Dummy(TinyConfig(), false, 12, {});
  EXPECT_THAT(dummy->origin(), HasSubstr("seed 12"));
}

TEST_F(BrokenTest, NeedsAFile) {
  const Status status = Checkpoint::Open(dir_, config_, true).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(),
              HasSubstr("has neither model.safetensors.index.json nor model.safetensors"));
}

TEST_F(BrokenTest, NamesTheMissingShard) {
  CopySharded();
  std::filesystem::remove(dir_ + "/model-00002-of-00002.safetensors");
  const Status status = Checkpoint::Open(dir_, config_, true).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("model-00002-of-00002.safetensors: cannot open"));
  EXPECT_THAT(status.message(), HasSubstr("the shard of "));
}

TEST_F(BrokenTest, NamesTheTruncatedShard) {
  CopySharded();
  const std::string shard = dir_ + "/model-00001-of-00002.safetensors";
  std::filesystem::permissions(shard, std::filesystem::perms::owner_all);
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  EXPECT_THAT(Checkpoint::Open(dir_, config_, true).status().message(),
              HasSubstr("model-00001-of-00002.safetensors: "));
}

TEST_F(BrokenTest, NamesWhatIsWrongWithTheIndex) {
  CopySharded();
  std::filesystem::permissions(dir_ + kIndex, std::filesystem::perms::owner_all);
  const Json good = ReadJson(kTiny + kIndex);
  const auto message = [&](const Json& index) {
    WriteIndex(index);
    return Checkpoint::Open(dir_, config_, true).status().message();
  };
  EXPECT_EQ(message(good), "");
  EXPECT_THAT(message(Json::array()), HasSubstr("weight_map: must be an object"));
  Json index = good;
  index["weight_map"] = 3;
  EXPECT_THAT(message(index), HasSubstr("weight_map: must be an object"));
  index = good;
  index["weight_map"]["norm.weight"] = "../elsewhere.safetensors";
  EXPECT_THAT(message(index), HasSubstr("norm.weight: must be the name of a file beside it"));
  index = good;
  index["weight_map"]["norm.weight"] = 7;
  EXPECT_THAT(message(index), HasSubstr("norm.weight: must be the name of a file beside it"));
  index = good;
  index["weight_map"].erase("norm.weight");
  EXPECT_THAT(message(index), HasSubstr("index.json: norm.weight: missing"));
  index = good;
  index["weight_map"]["embed.weight"] = "model-00002-of-00002.safetensors";
  EXPECT_THAT(message(index), HasSubstr("embed.weight: missing, though"));
  std::ofstream(dir_ + kIndex) << "{";
  EXPECT_THAT(Checkpoint::Open(dir_, config_, true).status().message(),
              HasSubstr("index.json: not valid JSON"));
}

TEST(Dummy, DependsOnSeedAndNameAlone) {
  const ModelConfig config = TinyConfig();
  const auto a = Checkpoint::Dummy(config, true, 1, {});
  const auto same = Checkpoint::Dummy(config, true, 1, {});
  const auto trunk = Checkpoint::Dummy(config, false, 1, {});
  const auto other = Checkpoint::Dummy(config, true, 2, {});
  ASSERT_TRUE(a.ok() && same.ok() && trunk.ok() && other.ok());
  EXPECT_EQ(a->bytes(), CountTensors(config, true).bytes);
  EXPECT_TRUE(a->has_mtp());
  EXPECT_FALSE(trunk->has_mtp());
  ForEachTensor(config, true, [&](const TensorSpec& spec) {
    const StoredTensor& t = a->Get(spec.name);
    EXPECT_EQ(t.dtype, spec.dtype) << spec.name;
    EXPECT_EQ(t.shape, spec.shape) << spec.name;
    EXPECT_TRUE(IsAligned(t)) << spec.name;
    EXPECT_TRUE(SameData(t, same->Get(spec.name))) << spec.name;
    const bool drawn = spec.row->fill != Fill::kZeros && spec.row->fill != Fill::kOnes;
    // A handful of scales may agree by chance.
    if (t.bytes > 64) {
      EXPECT_EQ(SameData(t, other->Get(spec.name)), !drawn) << spec.name;
    }
    const StoredTensor* in_trunk = trunk->Find(spec.name);
    EXPECT_EQ(in_trunk != nullptr, !spec.name.starts_with("mtp.")) << spec.name;
    if (in_trunk != nullptr) {
      EXPECT_TRUE(SameData(t, *in_trunk)) << spec.name;
    }
    return true;
  });
  EXPECT_FALSE(SameData(a->Get("layers.0.attn.wkv.weight"), a->Get("layers.1.attn.wkv.weight")));
}

// The root mean square of a dequantised weight, times the root of its columns: 1 for a linear that
// keeps the size of what goes through it.
double Gain(const Checkpoint& checkpoint, const std::string& name, bool packed) {
  const StoredTensor& weight = checkpoint.Get(name + ".weight");
  const StoredTensor& scale = checkpoint.Get(name + ".scale");
  const int64_t rows = weight.shape[0], cols = weight.shape[1] * (packed ? 2 : 1);
  const auto* codes = reinterpret_cast<const uint8_t*>(weight.data);
  const auto* scales = reinterpret_cast<const E8m0*>(scale.data);
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t at = r * cols + c;
      float v = 0;
      if (packed) {
        v = kE2m1Table[(codes[at / 2] >> (at % 2 * 4)) & 15] *
            ToFloat(scales[r * scale.shape[1] + c / 32]);
      } else {
        v = ToFloat(E4m3{codes[at]}) * ToFloat(scales[r / 128 * scale.shape[1] + c / 128]);
      }
      sum += static_cast<double>(v) * v;
    }
  }
  return std::sqrt(sum / static_cast<double>(rows));
}

TEST(Dummy, KeepsActivationsSane) {
  const ModelConfig config = TinyConfig();
  const auto dummy = Checkpoint::Dummy(config, false, 5, {});
  ASSERT_TRUE(dummy.ok());
  // A small weight has few scales, each of two values; mxfp4 gains are rounded to a power of two.
  EXPECT_NEAR(std::log2(Gain(*dummy, "layers.0.attn.wo_a", false)), 0, 0.5);
  EXPECT_NEAR(std::log2(Gain(*dummy, "layers.0.attn.wq_b", false)), 0, 0.5);
  EXPECT_NEAR(std::log2(Gain(*dummy, "layers.0.ffn.experts.3.w1", true)), 0, 0.6);
  EXPECT_NEAR(std::log2(Gain(*dummy, "layers.0.ffn.experts.3.w2", true)), 0, 0.6);
  const StoredTensor& embed = dummy->Get("embed.weight");
  double sum = 0, squares = 0;
  const int64_t count = ElementCount(embed.shape);
  for (int64_t i = 0; i < count; ++i) {
    const double v = ToFloat(reinterpret_cast<const Bf16*>(embed.data)[i]);
    sum += v;
    squares += v * v;
  }
  EXPECT_NEAR(sum / static_cast<double>(count), 0, 0.01);
  EXPECT_NEAR(squares / static_cast<double>(count), 1, 0.02);
}

TEST(Dummy, LooksUpDistinctExperts) {
  ModelConfig config = TinyConfig();
  for (int64_t picks : {config.picks, config.experts}) {
    config.picks = picks;
    const auto dummy = Checkpoint::Dummy(config, false, 5, {});
    ASSERT_TRUE(dummy.ok());
    const StoredTensor& table = dummy->Get("layers.0.ffn.gate.tid2eid");
    const auto* ids = reinterpret_cast<const int64_t*>(table.data);
    for (int64_t row = 0; row < table.shape[0]; ++row) {
      const std::set<int64_t> distinct(ids + row * picks, ids + (row + 1) * picks);
      ASSERT_EQ(static_cast<int64_t>(distinct.size()), picks);
      ASSERT_GE(*distinct.begin(), 0);
      ASSERT_LT(*distinct.rbegin(), config.experts);
    }
  }
}

// Its addresses are not to be read; each stands for a place in a tensor.
TEST(Dummy, IsOnDemandWhereItIsMade) {
  const ModelConfig config = TinyConfig();
  const auto all = Checkpoint::Dummy(config, true, 1, {});
  const auto nowhere = Checkpoint::DummyOnDemand(config, true, 1);
  ASSERT_TRUE(all.ok() && nowhere.ok());
  EXPECT_EQ(nowhere->bytes(), all->bytes());
  EXPECT_EQ(nowhere->origin(), all->origin());
  const FillRule* last = nullptr;
  ForEachTensor(config, true, [&](const TensorSpec& spec) {
    const StoredTensor& t = nowhere->Get(spec.name);
    const auto first_byte = nowhere->FindMadeUp(t.data);
    const auto last_byte = nowhere->FindMadeUp(t.data + t.bytes - 1);
    EXPECT_NE(first_byte.rule, nullptr) << spec.name;
    EXPECT_EQ(first_byte.rule, last_byte.rule) << spec.name;
    EXPECT_NE(first_byte.rule, last) << spec.name;
    EXPECT_EQ(last_byte.begin - first_byte.begin, t.bytes - 1) << spec.name;
    EXPECT_EQ(all->FindMadeUp(all->Get(spec.name).data).rule, nullptr) << spec.name;
    last = first_byte.rule;
    return true;
  });
  EXPECT_EQ(nowhere->FindMadeUp(&last).rule, nullptr);
}

TEST(Dummy, RefusesWhatNoMachineHolds) {
  ModelConfig config = TinyConfig();
  config.layers = 1024;
  config.ratios.assign(1025, 4);
  config.experts = 1 << 14;
  config.dim = config.inter_dim = 1 << 17;
  const auto dummy = Checkpoint::Dummy(config, true, 1, {});
  EXPECT_EQ(dummy.status().code(), Code::kExhausted);
}

// What a saved dummy says of itself is what a published checkpoint would.
TEST(Dummy, CanBeWrittenAndOpened) {
  ModelConfig config = TinyConfig();
  config.experts_fp4 = false;
  const auto dummy = Checkpoint::Dummy(config, true, 3, {});
  ASSERT_TRUE(dummy.ok());
  std::vector<NamedTensor> tensors;
  ForEachTensor(config, true, [&](const TensorSpec& spec) {
    tensors.push_back({spec.name, dummy->Get(spec.name)});
    return true;
  });
  const std::string dir = ::testing::TempDir() + "/seacliff_dummy_" + std::to_string(getpid());
  std::filesystem::create_directories(dir);
  EXPECT_TRUE(WriteSafetensors(dir + "/model.safetensors", tensors).ok());
  const auto opened = Checkpoint::Open(dir, config, true);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace seacliff
