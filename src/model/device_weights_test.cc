// Weights on their way to a device: from files through pinned buffers, whole and in a rank's part.
// The device is played by host memory whose background copies happen as late as they may.
#include "model/device_weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/model_config.h"
#include "model/rope.h"
#include "model/slice.h"

namespace seacliff {
namespace {

class LateDevice : public Device {
 public:
  LateDevice() : Device(Gpu()) {}

  Buffer Allocate(int64_t bytes, const char*) override { return Buffer::Host(bytes); }
  void Upload(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void Download(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void Copy(void* to, const void* from, int64_t bytes) override {
    Finish();
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  Buffer AllocatePinned(int64_t bytes) override {
    pinned += bytes;
    return Buffer::Host(bytes);
  }
  void UploadLater(void* to, const void* pinned_memory, int64_t bytes) override {
    later_.push_back({to, pinned_memory, bytes});
  }
  void DownloadLater(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void* Workspace(int64_t) override { return nullptr; }
  void* Pinned(int64_t) override { return nullptr; }
  int64_t workspace_moves() const override { return 0; }
  uint32_t* counters() const override { return nullptr; }
  std::unique_ptr<DeviceGraph> Record(const std::function<void()>&) override { return nullptr; }
  void Run(const DeviceGraph&) override {}
  double Time(const std::function<void()>&) override { return 0; }
  bool overlaps() const override { return false; }
  int64_t FreeBytes() override { return 0; }
  bool lost() const override { return false; }
  Status Synchronize() override {
    Finish();
    return OkStatus();
  }
  Status TakeError() override { return OkStatus(); }
  void* stream() const override { return nullptr; }

  int64_t pinned = 0;  // bytes asked for

 private:
  struct Later {
    void* to;
    const void* from;
    int64_t bytes;
  };
  void Finish() {
    for (const Later& copy : later_) {
      std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
    }
    later_.clear();
  }
  std::vector<Later> later_;
};

// Every array of the weights, which have no gaps.
struct Reader {
  std::vector<std::vector<std::byte>>& all;

  void operator()(Matrix& m) const {
    if (!m) return;
    EXPECT_EQ(m.pitch, 0);
    Get(m.data, m.rows * m.row_bytes());
    if (m.scales != nullptr) Get(m.scales, m.scale_rows() * m.scale_cols());
  }
  template <typename T, int N>
  void operator()(View<const T, N>& v) const {
    if (v.data != nullptr) Get(v.data, v.size() * static_cast<int64_t>(sizeof(T)));
  }

 private:
  void Get(const void* data, int64_t bytes) const {
    const auto* const begin = static_cast<const std::byte*>(data);
    all.emplace_back(begin, begin + bytes);
  }
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
    std::vector<std::vector<std::byte>> want, got;
    VisitWeights(host, Reader{want});

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
    VisitWeights(weights, Reader{got});
    EXPECT_EQ(uploaded->bytes(), bytes);
    EXPECT_EQ(done, bytes);
    EXPECT_EQ(all, bytes);
    EXPECT_GT(want.size(), 20u);
    EXPECT_TRUE(want == got) << "rank " << slice.rank << " of " << slice.size;
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
