// Ranks on GPUs compute what one GPU does, in graphs too, and a rank that is lost ends all. Where
// there is one GPU, both ranks are on it.
#include <gmock/gmock.h>

#include <thread>

#include "kernels/shared_device.h"
#include "model/parallel_model.h"
#include "model/rank.h"
#include "parallel/device_group.h"
#include "tests/gpu/gpu.h"
#include "tests/parallel/models.h"

namespace seacliff {
namespace {

using testing::HasSubstr;

class RanksTest : public GpuTest {
 protected:
  static bool SeveralGpus(int32_t ranks) { return OpenDevice(ranks - 1, {}).ok(); }
  struct Group {
    std::vector<std::unique_ptr<Device>> devices;
    std::vector<std::unique_ptr<Communicator>> comms;
  };
  // On `ranks` GPUs, or as many devices of one.
  static Result<Group> MakeGroup(int32_t ranks, double timeout) {
    Group group;
    std::vector<Device*> open;
    for (int32_t r = 0; r < ranks; ++r) {
      SC_ASSIGN_OR_RETURN(auto device,
                          SeveralGpus(ranks) ? OpenDevice(r, {}) : OpenSharedDevice(0, ranks));
      open.push_back(device.get());
      group.devices.push_back(std::move(device));
    }
    DeviceGroupOptions options;
    options.timeout_seconds = timeout;
    SC_ASSIGN_OR_RETURN(group.comms, MakeDeviceGroup(open, options));
    return group;
  }
  static Result<std::unique_ptr<Model>> Load(ModelOptions options, int32_t ranks) {
    options.rank_timeout = 20;
    SC_ASSIGN_OR_RETURN(Group group, MakeGroup(ranks, options.rank_timeout));
    return LoadRanks(options, std::move(group.devices), std::move(group.comms), {});
  }
  // Of a model, or nothing and a failure.
  static std::vector<float> Logits(const Result<std::unique_ptr<Model>>& model) {
    EXPECT_TRUE(model.ok()) << model.status().message();
    return model.ok() ? RunSmall(**model) : std::vector<float>();
  }
  static std::vector<float> Logits(ModelOptions options, const char* device) {
    options.device = device;
    return Logits(Model::Load(options, {}));
  }
};

TEST_F(RanksTest, ComputeWhatOneDoes) {
  const std::string dir = SmallConfig("gpu");
  const std::vector<float> exact = Logits(SmallOptions(dir, 1, Numerics::kExact), "cpu");
  const ModelOptions options = SmallOptions(dir, 1, Numerics::kCheckpoint);
  const double rounding = RelativeDistance(exact, Logits(options, "cuda"));
  for (const int32_t ranks : {2, 4}) {
    if (ranks > 2 && !SeveralGpus(ranks)) continue;
    const std::vector<float> shared = Logits(Load(options, ranks));
    ASSERT_EQ(shared.size(), exact.size());
    std::printf("%d ranks: %.4f from exact numerics, one GPU %.4f\n", ranks,
                RelativeDistance(exact, shared), rounding);
    EXPECT_LT(RelativeDistance(exact, shared), 2 * rounding) << ranks << " ranks";
    EXPECT_EQ(Logits(Load(options, ranks)), shared) << "not the same bits again";
  }
}

// What is computed without the other rank's part means nothing, but it harms nothing either.
TEST_F(RanksTest, ARankAloneEndsItsStepAndTheGpuGoesOn) {
  auto group = MakeGroup(2, 0.5);
  ASSERT_TRUE(group.ok()) << group.status().message();
  const ModelOptions options = SmallOptions(SmallConfig("gpu"), 1, Numerics::kCheckpoint);
  Communicator& comm = *group->comms[0];
  Device& device = *group->devices[0];
  const auto model = LoadRank(options, std::move(group->devices[0]), comm, {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  DirectRunner runner(**model, 2, kSmallLength);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 140; ++i) ids.push_back(i * 37 % 600);
  const DirectRunner::Piece piece{0, ids};
  const int32_t row = 139;
  std::vector<float> logits;
  const Status status = runner.Step({&piece, 1}, {&row, 1}, logits);
  EXPECT_THAT(status.message(), testing::AnyOf("", HasSubstr("rank 1 did not come")));
  EXPECT_EQ(device.Synchronize().message(), "");
  EXPECT_EQ(comm.error().code(), Code::kUnavailable);
  EXPECT_THAT(comm.error().message(), HasSubstr("rank 1 did not come within 0.5 s"));
  group->comms.clear();
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
  const auto loaded = Load(options, 2);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  Model& model = **loaded;
  const std::vector<float> graphs = Decode(model, 40);
  EXPECT_EQ(Decode(model, 40), graphs) << "the first steps of a shape run as they are";
  const Result<double> time = model.TimeLastStep();
  ASSERT_TRUE(time.ok()) << time.status().message();
  std::printf("a step of two ranks: %.1f us\n", *time);
  EXPECT_GT(*time, 0);
}

// Logits of the part of the vocabulary that this rank has stand where the others' would too.
TEST_F(RanksTest, AnEchoStandsForTheOthers) {
  for (const int32_t ranks : {2, 4}) {
    ModelOptions options = SmallOptions(SmallConfig("gpu"), ranks, Numerics::kCheckpoint);
    options.device = "cuda";
    options.echo_ranks = true;
    const auto loaded = Model::Load(options, {});
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    const std::vector<float> logits = Decode(**loaded, 40);
    EXPECT_EQ(Decode(**loaded, 40), logits);
    const size_t vocab = 600, own = vocab / static_cast<size_t>(ranks);
    for (size_t i = 0; i < logits.size(); ++i) {
      const size_t row = i / vocab, column = i % vocab;
      ASSERT_EQ(logits[i], logits[row * vocab + column % own]) << "row " << row << ", " << column;
    }
  }
}

}  // namespace
}  // namespace seacliff
