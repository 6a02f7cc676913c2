// Weights that are made up on the device: the bytes that the host makes, whole and in parts, for
// every way of making them and every format. And weights that go there through pinned memory.
#include "kernels/common/make_up.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/catalogue.h"
#include "checkpoint/checkpoint.h"
#include "config/model_config.h"
#include "model/device_weights.h"
#include "model/rope.h"
#include "model/slice.h"
#include "model/testing/weight_bytes.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

class MakeUpTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    auto config = LoadModelConfig(Repository() + kTinyA);
    ASSERT_TRUE(config.ok()) << config.status().message();
    config_ = std::move(config).value();
  }
  // The device's bytes of these rows of a tensor.
  std::vector<std::byte> Made(const FillRule& rule, const TensorRows& rows) {
    std::vector<std::byte> bytes(static_cast<size_t>(rows.rows * rows.bytes));
    const Buffer memory = device().Allocate(static_cast<int64_t>(bytes.size()));
    MakeUp(device(), rule, rows, memory.data());
    device().Download(bytes.data(), memory.data(), static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(device().Synchronize().message(), "");
    return bytes;
  }
  static std::vector<std::byte> Part(const std::byte* tensor, const TensorRows& rows) {
    std::vector<std::byte> part;
    for (int64_t r = 0; r < rows.rows; ++r) {
      const std::byte* const row = tensor + rows.begin + r * rows.pitch;
      part.insert(part.end(), row, row + rows.bytes);
    }
    return part;
  }

  ModelConfig config_;
};

TEST_F(MakeUpTest, EveryKindAsTheHostMakesIt) {
  std::set<std::tuple<Fill, DType, bool>> seen;
  for (const bool fp4 : {false, true}) {
    config_.experts_fp4 = fp4;
    const bool with_mtp = config_.mtp_layers > 0;
    const Checkpoint host = Checkpoint::Dummy(config_, with_mtp, 7, {}).value();
    const Checkpoint nowhere = Checkpoint::DummyOnDemand(config_, with_mtp, 7).value();
    EXPECT_EQ(host.bytes(), nowhere.bytes());
    ForEachTensor(config_, with_mtp, [&](const TensorSpec& spec) {
      if (!seen.emplace(spec.row->fill, spec.dtype, fp4).second) return true;
      const std::byte* const tensor = host.Get(spec.name).data;
      const std::byte* const place = nowhere.Get(spec.name).data;
      const auto [rule, begin] = nowhere.FindMadeUp(place);
      EXPECT_EQ(begin, 0);
      // All of it; columns from its middle, of rows that are short and odd; a part from an odd byte
      // on.
      const int64_t bytes = spec.bytes, row = bytes / spec.shape[0];
      std::vector<TensorRows> parts = {{0, 1, bytes, bytes}};
      if (row >= 2) parts.push_back({row / 2, spec.shape[0], row / 2, row});
      if (row >= 8) parts.push_back({3, spec.shape[0], row / 4 + 1, row});
      if (bytes > 40) parts.push_back({5, 1, bytes - 12, bytes});
      for (const TensorRows& rows : parts) {
        EXPECT_TRUE(Made(*rule, rows) == Part(tensor, rows))
            << spec.name << ": " << rows.rows << " rows of " << rows.bytes << " bytes from "
            << rows.begin;
      }
      return true;
    });
  }
  EXPECT_GE(seen.size(), 8u);
}

// What a rank of two gets by making it up is what it gets by reading the same bytes.
TEST_F(MakeUpTest, ReadOrMadeUpARanksWeightsAreTheSame) {
  config_.inter_dim = 256;  // 128 a rank
  ASSERT_TRUE(RankConfig(config_, 2).ok());
  for (const Slice slice : {Slice{0, 1}, Slice{0, 2}, Slice{1, 2}}) {
    std::vector<std::vector<std::byte>> got[2];
    for (const bool made_up : {false, true}) {
      const Checkpoint checkpoint = (made_up ? Checkpoint::DummyOnDemand(config_, false, 3)
                                             : Checkpoint::Dummy(config_, false, 3, {}))
                                        .value();
      const std::vector<float> frequencies[2] = {RopeFrequencies(config_, 0),
                                                 RopeFrequencies(config_, 4)};
      ModelWeights weights = BindWeights(checkpoint, config_, frequencies, false, slice);
      auto uploaded = DeviceWeights::Upload(weights, checkpoint, device(), {});
      ASSERT_TRUE(uploaded.ok()) << uploaded.status().message();
      got[made_up] = BytesOf(weights, &device());
      EXPECT_EQ(device().Synchronize().message(), "");
    }
    EXPECT_GT(got[0].size(), 20u);
    EXPECT_TRUE(got[0] == got[1]) << "rank " << slice.rank << " of " << slice.size;
  }
}

// From the files of a checkpoint: of $SEACLIFF_CHECKPOINT too, which may be large.
TEST_F(MakeUpTest, FilesArriveAsTheyAre) {
  std::vector<std::string> folders = {Repository() + kTinyA, Repository() + kDemoModel};
  if (const char* folder = std::getenv("SEACLIFF_CHECKPOINT")) folders.emplace_back(folder);
  for (const std::string& folder : folders) {
    const auto config = LoadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status().message();
    const std::vector<float> frequencies[2] = {RopeFrequencies(*config, 0),
                                               RopeFrequencies(*config, 4)};
    for (const Slice slice : {Slice{0, 1}, Slice{0, 2}, Slice{1, 2}}) {
      if (!RankConfig(*config, slice.size).ok()) continue;
      auto checkpoint = Checkpoint::Open(folder, *config, false);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
      // What is uploaded is given back: what it was is read before.
      ModelWeights host = BindWeights(*checkpoint, *config, frequencies, false, slice);
      const auto closed = CloseGaps(host);
      ASSERT_TRUE(closed.ok()) << closed.status().message();
      const auto want = BytesOf(host);

      ModelWeights weights = BindWeights(*checkpoint, *config, frequencies, false, slice);
      int64_t done = 0, all = 0;
      const LoadProgress progress = [&](std::string_view, int64_t now, int64_t total) {
        EXPECT_GE(now, done);
        done = now, all = total;
      };
      const auto begin = std::chrono::steady_clock::now();
      auto uploaded = DeviceWeights::Upload(weights, *checkpoint, device(), progress);
      ASSERT_TRUE(uploaded.ok()) << uploaded.status().message();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
      std::printf("%s, rank %d of %d: %.2f GB in %.2f s\n", folder.c_str(),
                  static_cast<int>(slice.rank), static_cast<int>(slice.size),
                  static_cast<double>(uploaded->bytes()) * 1e-9, seconds.count());
      EXPECT_EQ(done, all);
      EXPECT_EQ(all, uploaded->bytes());
      const auto got = BytesOf(weights, &device());
      EXPECT_EQ(device().Synchronize().message(), "");
      EXPECT_TRUE(got == want) << folder << ", rank " << slice.rank << " of " << slice.size;
    }
  }
}

}  // namespace
}  // namespace seacliff
