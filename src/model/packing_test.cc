// Packing holds little more than one copy of the weights: the originals' memory is given back,
// whatever kind of memory it is.
#include "model/packing.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/catalogue.h"
#include "kernels/common/packing.h"
#include "model/rope.h"

namespace seacliff {
namespace {

using Json = nlohmann::json;

// One layer with every kind of matrix, and few words: Flash's, or one of half its width and a
// quarter of its heads.
ModelConfig OneLayer(int64_t experts, bool flash) {
  std::ifstream in(SEACLIFF_SOURCE_DIR "/tests/data/configs/flash.json");
  Json c = Json::parse(in);
  c["num_hidden_layers"] = 1;
  c["num_hash_layers"] = 0;
  c["num_nextn_predict_layers"] = 0;
  c["compress_ratios"] = {4};
  c["n_routed_experts"] = experts;
  c["vocab_size"] = 4096;
  if (!flash) {
    c["hidden_size"] = 2048;
    c["num_attention_heads"] = 16;
    c["o_groups"] = 4;
  }
  return ParseModelConfig(c.dump(), "test").value();
}

// A checkpoint with its matrices, and where they were before they were packed.
class Weights {
 public:
  Weights(const ModelConfig& config, Checkpoint checkpoint)
      : checkpoint_(std::move(checkpoint)),
        frequencies_{RopeFrequencies(config, 0), RopeFrequencies(config, 4)},
        weights_(BindWeights(checkpoint_, config, frequencies_)) {
    for (const Matrix* m : PackableOf(weights_)) originals_.push_back(*m);
  }

  void Pack(const std::string& cache_file = "", const LoadProgress& progress = {}) {
    ThreadPool pool(0);
    auto packed =
        PackedWeights::Load(PackableOf(weights_), checkpoint_, cache_file, pool, progress);
    ASSERT_TRUE(packed.ok()) << packed.status().message();
    packed_ = std::move(packed).value();
    ASSERT_TRUE(PackableOf(weights_).empty());
  }

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const std::vector<Matrix>& originals() const { return originals_; }

 private:
  Checkpoint checkpoint_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PackedWeights packed_;
  std::vector<Matrix> originals_;
};

// Bytes of the pages that lie whole in the range and are mapped in this process.
int64_t Resident(const void* data, int64_t bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t first = (reinterpret_cast<int64_t>(data) + page - 1) / page;
  const int64_t count = (reinterpret_cast<int64_t>(data) + bytes) / page - first;
  if (count <= 0) return 0;
  std::vector<uint64_t> entries(static_cast<size_t>(count));
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  const auto size = static_cast<ssize_t>(entries.size() * sizeof(uint64_t));
  EXPECT_EQ(pread(fd, entries.data(), static_cast<size_t>(size), first * 8), size);
  close(fd);
  return page * std::count_if(entries.begin(), entries.end(), [](uint64_t e) { return e >> 63; });
}

struct Sum {
  int64_t resident = 0, bytes = 0;
};
Sum SumOf(const std::vector<Matrix>& originals) {
  Sum sum;
  const auto add = [&](const void* data, int64_t bytes) {
    sum.resident += Resident(data, bytes);
    sum.bytes += bytes;
  };
  for (const Matrix& m : originals) {
    add(m.data, m.rows * m.row_bytes());
    if (m.format == WeightFormat::kMxfp4) add(m.scales, m.rows * m.scale_cols());
  }
  return sum;
}

// A page of a file that is read brings its neighbours along, if the system has them in memory:
// 64 KiB at either end of a matrix.
constexpr double kNeighbours = 0.1;

class PackingTest : public testing::Test {
 protected:
  PackingTest()
      : config_(OneLayer(6, false)),
        dir_(testing::TempDir() + "/seacliff_packing_" + std::to_string(getpid())) {
    std::filesystem::create_directories(dir_);
  }
  ~PackingTest() override { std::filesystem::remove_all(dir_); }

  Checkpoint Dummy() { return Checkpoint::Dummy(config_, false, 3, {}).value(); }
  Checkpoint Open() { return Checkpoint::Open(dir_, config_, false).value(); }
  std::string file() const { return dir_ + "/model.safetensors"; }

  void WriteFile() {
    const Checkpoint dummy = Dummy();
    std::vector<NamedTensor> tensors;
    ForEachTensor(config_, false, [&](const TensorSpec& spec) {
      tensors.push_back({spec.name, dummy.Get(spec.name)});
      return true;
    });
    ASSERT_TRUE(WriteSafetensors(file(), tensors).ok());
  }

  // Puts one byte before all data, so that nothing is aligned.
  void MakeOdd() {
    std::ifstream in(file(), std::ios::binary);
    uint64_t length = 0;
    in.read(reinterpret_cast<char*>(&length), sizeof(length));
    std::string text(length, ' ');
    in.read(text.data(), static_cast<std::streamsize>(length));
    const std::string data((std::istreambuf_iterator<char>(in)), {});
    Json header = Json::parse(text);
    for (auto& [name, tensor] : header.items()) {
      for (Json& offset : tensor["data_offsets"]) offset = offset.get<int64_t>() + 1;
    }
    header["odd"] = {{"dtype", "U8"}, {"shape", {1}}, {"data_offsets", {0, 1}}};
    text = header.dump();
    text.resize((text.size() + 63) / 64 * 64 + 56, ' ');
    length = text.size();
    std::ofstream out(file(), std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), sizeof(length));
    out << text << 'x' << data;
  }

  ModelConfig config_;
  std::string dir_;
};

TEST_F(PackingTest, GivesBackDummyWeights) {
  Weights w(config_, Dummy());
  const Sum before = SumOf(w.originals());
  EXPECT_GT(before.resident, before.bytes * 0.99);
  w.Pack();
  EXPECT_EQ(SumOf(w.originals()).resident, 0);
  // A huge page goes back only when none of its pages is left, so none may belong to two matrices.
  for (const Matrix& m : w.originals()) {
    if (m.rows * m.row_bytes() < sysconf(_SC_PAGESIZE)) continue;
    EXPECT_EQ(reinterpret_cast<intptr_t>(m.data) % sysconf(_SC_PAGESIZE), 0);
  }
}

TEST_F(PackingTest, GivesBackMappedFiles) {
  WriteFile();
  Weights w(config_, Open());
  w.Pack();
  const Sum after = SumOf(w.originals());
  EXPECT_LT(after.resident, after.bytes * kNeighbours);
}

TEST_F(PackingTest, GivesBackWhatWasCopiedToBeAligned) {
  WriteFile();
  MakeOdd();
  Weights w(config_, Open());
  std::vector<Matrix> copied = w.originals();
  std::erase_if(copied, [](const Matrix& m) { return m.format != WeightFormat::kBf16; });
  ASSERT_FALSE(copied.empty());
  const Sum before = SumOf(copied);
  EXPECT_GT(before.resident, before.bytes * 0.99);
  w.Pack();
  EXPECT_EQ(SumOf(copied).resident, 0);
  const Sum after = SumOf(w.originals());
  EXPECT_LT(after.resident, after.bytes * kNeighbours);
}

TEST_F(PackingTest, ACacheIsReadInsteadOfTheOriginals) {
  WriteFile();
  Weights(config_, Open()).Pack(dir_ + "/cache");
  Weights w(config_, Open());
  w.Pack(dir_ + "/cache",
         [](std::string_view phase, int64_t, int64_t) { EXPECT_EQ(phase, "verifying"); });
  const Sum after = SumOf(w.originals());
  EXPECT_LT(after.resident, after.bytes * kNeighbours);
}

int64_t AnonymousBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kilobytes = 0;
  while (status >> word && word != "RssAnon:") continue;
  status >> kilobytes;
  return kilobytes * 1024;
}

// The bound: the weights as stored, the largest matrix, and 64 MiB.
void ExpectBounded(const ModelConfig& config) {
  const int64_t before = AnonymousBytes();
  Weights w(config, Checkpoint::Dummy(config, false, 3, {}).value());
  int64_t most = 0, largest = 0;
  for (const Matrix& m : w.originals()) largest = std::max(largest, PackedBytes(m));
  w.Pack("", [&](std::string_view, int64_t, int64_t) { most = std::max(most, AnonymousBytes()); });
  const int64_t bytes = w.checkpoint().bytes();
  std::printf("weights %.1f MB, at most %.1f MB held, largest matrix %.1f MB\n",
              static_cast<double>(bytes) * 1e-6, static_cast<double>(most - before) * 1e-6,
              static_cast<double>(largest) * 1e-6);
  EXPECT_LT(most - before, bytes + largest + (int64_t{64} << 20));
}

TEST(PackedMemory, IsBounded) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "skipped: most of the memory is the thread sanitizer's";
#endif
  ExpectBounded(OneLayer(64, false));
}

// All 256 experts: 3.6 GB.
TEST(PackedMemory, SlowOneWholeFlashLayerIsBounded) { ExpectBounded(OneLayer(256, true)); }

}  // namespace
}  // namespace seacliff
