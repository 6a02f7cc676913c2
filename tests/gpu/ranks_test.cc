// Ranks on GPUs compute what one GPU does, in graphs too, and a rank that is lost ends all. Where
// there is one GPU, both ranks are on it.
#include <gmock/gmock.h>

#include <thread>

#include "model/parallel_model.h"
#include "parallel/device_group.h"
#include "tests/gpu/gpu.h"
#include "tests/parallel/models.h"

namespace seacliff {
namespace {

class RanksTest : public GpuTest {
 protected:
  static bool SeveralGpus(int32_t ranks) { return OpenDevice(ranks - 1, {}).ok(); }
  // The model on `ranks` GPUs, or as many devices of one.
  static std::unique_ptr<Model> Load(ModelOptions options, int32_t ranks, double timeout = 20) {
    std::vector<std::unique_ptr<Device>> devices;
    std::vector<Device*> open;
    for (int32_t r = 0; r < ranks; ++r) {
      // Kernels whose blocks wait for one another must leave room for those of the other ranks.
      auto device = SeveralGpus(ranks)
                        ? OpenDevice(r, {})
                        : OpenDevice(0, DeviceLimits{.multiprocessors = 120 / ranks});
      devices.push_back(std::move(device).value());
      open.push_back(devices.back().get());
    }
    DeviceGroupOptions group;
    group.timeout_seconds = options.rank_timeout = timeout;
    auto comms = MakeDeviceGroup(open, group);
    EXPECT_TRUE(comms.ok()) << comms.status().message();
    auto model = LoadRanks(options, std::move(devices), std::move(comms).value(), {});
    EXPECT_TRUE(model.ok()) << model.status().message();
    return std::move(model).value();
  }
  static std::vector<float> Logits(ModelOptions options, const char* device) {
    options.device = device;
    return RunSmall(**Model::Load(options, {}));
  }
};

TEST_F(RanksTest, ComputeWhatOneDoes) {
  const std::string dir = SmallConfig("gpu");
  const std::vector<float> exact = Logits(SmallOptions(dir, 1, Numerics::kExact), "cpu");
  const ModelOptions options = SmallOptions(dir, 1, Numerics::kCheckpoint);
  const double rounding = RelativeDistance(exact, Logits(options, "cuda"));
  for (const int32_t ranks : {2, 4}) {
    if (ranks > 2 && !SeveralGpus(ranks)) continue;
    const std::vector<float> shared = RunSmall(*Load(options, ranks));
    std::printf("%d ranks: %.4f from exact numerics, one GPU %.4f\n", ranks,
                RelativeDistance(exact, shared), rounding);
    EXPECT_LT(RelativeDistance(exact, shared), 2 * rounding) << ranks << " ranks";
    EXPECT_EQ(RunSmall(*Load(options, ranks)), shared) << "not the same bits again";
  }
}

// One token a step, which runs as a graph from the second step on.
std::vector<float> Decode(Model& model, int32_t steps) {
  DirectRunner runner(model, 2, kSmallLength);
  const int32_t row = 0;
  std::vector<float> all, logits;
  for (int32_t i = 0; i < steps; ++i) {
    const int32_t id = i * 31 % 600;
    const DirectRunner::Piece piece{0, {&id, 1}};
    const Status status = runner.Step({&piece, 1}, {&row, 1}, logits);
    EXPECT_TRUE(status.ok()) << status.message();
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

TEST_F(RanksTest, DecodeInGraphs) {
  const ModelOptions options = SmallOptions(SmallConfig("gpu"), 1, Numerics::kCheckpoint);
  const auto model = Load(options, 2);
  const std::vector<float> graphs = Decode(*model, 40);
  EXPECT_EQ(Decode(*model, 40), graphs) << "the first steps of a shape run as they are";
  const Result<double> time = model->TimeLastStep();
  ASSERT_TRUE(time.ok()) << time.status().message();
  std::printf("a step of two ranks: %.1f us\n", *time);
  EXPECT_GT(*time, 0);
}

}  // namespace
}  // namespace seacliff
