// Weights on their way to a device: from files through pinned buffers, whole and in a rank's part.
// The device is played by host memory whose background copies happen as late as they may.
#include "model/device_weights.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/model_config.h"
#include "kernels/common/testing/host_device.h"
#include "model/rope.h"
#include "model/slice.h"
#include "model/testing/weight_bytes.h"

namespace seacliff {
namespace {

class LateDevice : public HostDevice {
 public:
  void Copy(void* to, const void* from, int64_t bytes) override {
    Finish();
    HostDevice::Copy(to, from, bytes);
  }
  Buffer AllocatePinned(int64_t bytes) override {
    pinned += bytes;
    return HostDevice::AllocatePinned(bytes);
  }
  void UploadLater(void* to, const void* pinned_memory, int64_t bytes) override {
    later_.push_back({to, pinned_memory, bytes});
  }
  Status Synchronize() override {
    Finish();
    return OkStatus();
  }

  int64_t pinned = 0;  // bytes asked for

 private:
  struct Later {
    void* to;
    const void* from;
    int64_t bytes;
  };
  void Finish() {
    for (const Later& copy : later_) HostDevice::Copy(copy.to, copy.from, copy.bytes);
    later_.clear();
  }
  std::vector<Later> later_;
};

// What arrives is what the host has, in every rank's part.
void ExpectArrival(const std::function<Checkpoint()>& open, const ModelConfig& config) {
  const std::vector<float> frequencies[2] = {RopeFrequencies(config, 0),
                                             RopeFrequencies(config, 4)};
  for (const Slice slice : {Slice{0, 1}, Slice{0, 2}, Slice{1, 2}}) {
    if (!RankConfig(config, slice.size).ok()) continue;
    const Checkpoint original = open();
    ModelWeights host = BindWeights(original, config, frequencies, false, slice);
    const auto closed = CloseGaps(host);
    ASSERT_TRUE(closed.ok()) << closed.status().message();
    const auto want = BytesOf(host);

    const Checkpoint checkpoint = open();
    LateDevice device;
    ModelWeights weights = BindWeights(checkpoint, config, frequencies, false, slice);
    const int64_t bytes = DeviceWeights::BytesOf(weights);
    int64_t done = 0, all = 0;
    const LoadProgress progress = [&](std::string_view, int64_t now, int64_t total) {
      EXPECT_GE(now, done);
      done = now, all = total;
    };
    auto uploaded = DeviceWeights::Upload(weights, checkpoint, device, progress);
    ASSERT_TRUE(uploaded.ok()) << uploaded.status().message();
    EXPECT_EQ(uploaded->bytes(), bytes);
    EXPECT_EQ(done, bytes);
    EXPECT_EQ(all, bytes);
    EXPECT_GT(want.size(), 20u);
    EXPECT_TRUE(BytesOf(weights) == want) << "rank " << slice.rank << " of " << slice.size;
    EXPECT_LE(device.pinned, int64_t{128} << 20);
  }
}

TEST(DeviceWeightsTest, FilesArriveAsTheyAre) {
  const std::string folder = std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/golden/tiny-a";
  const ModelConfig config = LoadModelConfig(folder).value();
  ExpectArrival([&] { return Checkpoint::Open(folder, config, false).value(); }, config);
}

// Arrays of several buffers, and more than all buffers hold, so that they are used again.
TEST(DeviceWeightsTest, LargeArraysTakeSeveralBuffers) {
  const std::string folder = std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/golden/tiny-a";
  ModelConfig config = LoadModelConfig(folder).value();
  config.layers = 3;
  config.ratios = {4, 128, 0, 0};
  config.mtp_layers = 0;
  config.inter_dim = 256;
  config.vocab_size = 40000;  // 82 MB of embedding
  config.experts = 16;
  config.dim = 1024;
  config.o_rank = 2560;
  ExpectArrival([&] { return Checkpoint::Dummy(config, false, 3, {}).value(); }, config);
}

}  // namespace
}  // namespace seacliff
