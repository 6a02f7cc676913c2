// Ranks that are threads of one process compute what one rank does, shapes that cannot be shared
// are refused, and what goes wrong on one rank ends the step on all.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "kernels/common/testing/host_device.h"
#include "model/model.h"
#include "model/parallel_model.h"
#include "model/rank.h"
#include "parallel/threads.h"
#include "tests/parallel/models.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using testing::HasSubstr;

std::vector<float> Logits(const std::string& dir, int32_t ranks, Numerics numerics) {
  auto model = Model::Load(SmallOptions(dir, ranks, numerics), {});
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? RunSmall(**model) : std::vector<float>();
}

TEST(Ranks, ComputeWhatOneDoes) {
  const std::string dir = SmallConfig("ranks");
  const std::vector<float> exact = Logits(dir, 1, Numerics::kExact);
  const std::vector<float> rounded = Logits(dir, 1, Numerics::kCheckpoint);
  const double rounding = RelativeDistance(exact, rounded);
  for (const int32_t ranks : {2, 4}) {
    EXPECT_LT(RelativeDistance(exact, Logits(dir, ranks, Numerics::kExact)), 1e-4)
        << ranks << " ranks";
    // Partial sums are rounded too, and some experts and blocks are then picked otherwise, as
    // rounding alone does; it may not come to more than twice that.
    const std::vector<float> shared = Logits(dir, ranks, Numerics::kCheckpoint);
    EXPECT_LT(RelativeDistance(exact, shared), 2 * rounding) << ranks << " ranks";
    std::printf("%d ranks: %.4f from exact numerics, one rank %.4f\n", ranks,
                RelativeDistance(exact, shared), rounding);
    EXPECT_EQ(Logits(dir, ranks, Numerics::kCheckpoint), shared) << "not the same bits again";
  }
}

TEST(Ranks, ShareFp8ExpertsAndAnFp8OutputProjection) {
  const std::string dir = SmallConfig("fp8", [](nlohmann::json& c) { c["expert_dtype"] = "fp8"; });
  const auto logits = [&](int32_t ranks) {
    ModelOptions options = SmallOptions(dir, ranks, Numerics::kCheckpoint);
    options.fp8_output_projection = true;
    return RunSmall(**Model::Load(options, {}));
  };
  const std::vector<float> exact = Logits(dir, 1, Numerics::kExact);
  EXPECT_LT(RelativeDistance(exact, Logits(dir, 4, Numerics::kExact)), 1e-4);
  EXPECT_LT(RelativeDistance(exact, logits(4)), 2 * RelativeDistance(exact, logits(1)));
}

TEST(Ranks, RefuseShapesThatCannotBeCut) {
  const auto error = [](const std::string& dir, int32_t ranks) {
    const auto model = Model::Load(SmallOptions(dir, ranks, Numerics::kExact), {});
    EXPECT_EQ(model.status().code(), Code::kInvalidArgument);
    return model.status().message();
  };
  const auto changed = [](const char* field, int64_t value) {
    return SmallConfig(field, [=](nlohmann::json& c) { c[field] = value; });
  };
  EXPECT_THAT(error(SmallConfig("eight"), 8),
              HasSubstr("tensor_parallel_size 8: o_groups (4) cannot be cut into 8 parts"));
  EXPECT_THAT(error(SmallConfig("three"), 3), HasSubstr("num_attention_heads (8)"));
  EXPECT_THAT(error(changed("moe_intermediate_size", 256), 4),
              HasSubstr("moe_intermediate_size (256) cannot be cut into 4 parts of whole 128s"));
  EXPECT_THAT(error(changed("vocab_size", 602), 4), HasSubstr("vocab_size (602)"));
  EXPECT_THAT(error(changed("o_lora_rank", 96), 4), HasSubstr("o_groups * o_lora_rank (384)"));
}

// A device that has no room, and a communicator that uses its device to the last.
class FullDevice : public HostDevice {
 public:
  explicit FullDevice(bool* there) : there_(there) {}
  ~FullDevice() override { *there_ = false; }
  Buffer Allocate(int64_t, const char*) override {
    error = Exhausted("no room");
    return {};
  }

 private:
  bool* const there_;
};

class OnADevice : public Communicator {
 public:
  OnADevice(int32_t rank, const bool* device_there)
      : Communicator(rank, 2), device_there_(device_there) {}
  ~OnADevice() override { EXPECT_TRUE(*device_there_); }
  void AllReduce(Context&, Act<2>) override {}
  void Gather(Context&, View<const float, 2>, View<float, 2>) override {}
  void Abort(const Status&) override {}
  Status error() const override { return OkStatus(); }

 private:
  const bool* const device_there_;
};

TEST(Ranks, RefuseEchoesThatStandForNothing) {
  const auto error = [](int32_t ranks, const std::function<void(ModelOptions&)>& change) {
    ModelOptions options = SmallOptions(SmallConfig("echo"), ranks, Numerics::kCheckpoint);
    options.echo_ranks = true;
    change(options);
    const auto model = Model::Load(options, {});
    EXPECT_EQ(model.status().code(), Code::kInvalidArgument);
    return std::string(model.status().message());
  };
  EXPECT_THAT(error(2, [](ModelOptions& o) { o.load_format = "auto"; }),
              HasSubstr("--load-format dummy"));
  EXPECT_THAT(error(1, [](ModelOptions&) {}), HasSubstr("two ranks or more"));
  EXPECT_THAT(error(2, [](ModelOptions& o) { o.nodes = 2; }), HasSubstr("of one host"));
  EXPECT_THAT(error(2, [](ModelOptions& o) { o.device = "cpu"; }), HasSubstr("needs a GPU"));
}

TEST(Ranks, CommunicatorsGoBeforeDevicesThatAModelDoesNotFit) {
  bool there[2] = {true, true};
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::unique_ptr<Communicator>> comms;
  for (int32_t r = 0; r < 2; ++r) {
    devices.push_back(std::make_unique<FullDevice>(&there[r]));
    comms.push_back(std::make_unique<OnADevice>(r, &there[r]));
  }
  const ModelOptions options = SmallOptions(SmallConfig("full"), 1, Numerics::kCheckpoint);
  const auto model = LoadRanks(options, std::move(devices), std::move(comms), {});
  EXPECT_EQ(model.status().code(), Code::kExhausted);
  EXPECT_EQ(model.status().message(), "no room");
  EXPECT_FALSE(there[0] || there[1]);
}

// A rank whose step `bad_step` goes wrong in some way.
class FaultyRank final : public Model {
 public:
  FaultyRank(std::unique_ptr<Model> model, int64_t bad_step, std::function<Status(Context&)> fault)
      : model_(std::move(model)), bad_step_(bad_step), fault_(std::move(fault)) {}

  const ModelConfig& config() const override { return model_->config(); }
  Context& context() override { return model_->context(); }
  Status Forward(const Batch& batch, const ForwardTrace* trace) override {
    if (step_++ == bad_step_) SC_RETURN_IF_ERROR(fault_(context()));
    return model_->Forward(batch, trace);
  }
  void CopyRows(std::span<const RowCopy> copies) override { model_->CopyRows(copies); }
  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) override {
    return model_->ForwardMtp(batch, next_ids);
  }
  Result<double> TimeLastStep() override { return model_->TimeLastStep(); }
  View<const float, 2> logits() const override { return model_->logits(); }

 private:
  std::unique_ptr<Model> model_;
  int64_t step_ = 0, bad_step_;
  std::function<Status(Context&)> fault_;
};

// Two ranks of which number `bad` has a fault in its second step.
std::unique_ptr<Model> WithFault(size_t bad, std::chrono::milliseconds timeout,
                                 const std::function<Status(Context&)>& fault) {
  const std::string dir = SmallConfig("fault", [](nlohmann::json& c) {
    c["num_hidden_layers"] = 2;
    c["compress_ratios"] = {4, 128, 0};
  });
  auto comms = MakeThreadGroup(2, timeout);
  auto group = std::make_unique<RankGroup>();
  for (size_t r = 0; r < 2; ++r) {
    ParallelRank rank;
    rank.comm = std::move(comms[r]);
    rank.model =
        LoadRank(SmallOptions(dir, 1, Numerics::kCheckpoint), nullptr, *rank.comm, {}).value();
    if (r == bad) rank.model = std::make_unique<FaultyRank>(std::move(rank.model), 1, fault);
    group->ranks.push_back(std::move(rank));
  }
  return MakeParallelModel(std::move(group), timeout);
}

class Steps {
 public:
  explicit Steps(Model& model) : runner_(model, 1, 128) {}
  Status Next() {
    const int32_t id = 5, row = 0;
    const DirectRunner::Piece piece{0, {&id, 1}};
    std::vector<float> logits;
    return runner_.Step({&piece, 1}, {&row, 1}, logits);
  }

 private:
  DirectRunner runner_;
};

TEST(Ranks, AnErrorInTheMiddleOfAStepEndsItOnAll) {
  for (const size_t bad : {0, 1}) {
    const auto model = WithFault(bad, std::chrono::seconds(20), [](Context& k) {
      k.Fail(InvalidArgument("an op says no"));
      return OkStatus();
    });
    Steps steps(*model);
    EXPECT_TRUE(steps.Next().ok());
    const Status error = steps.Next();
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_EQ(error.message(), "an op says no");
    EXPECT_TRUE(steps.Next().ok()) << "rank " << bad << ": the ranks must go on";
  }
}

TEST(Ranks, ALostRankEndsAll) {
  for (const size_t bad : {0, 1}) {
    const Clock::time_point begin = Clock::now();
    const auto model = WithFault(bad, std::chrono::seconds(20),
                                 [](Context&) { return Unavailable("the card fell off the bus"); });
    Steps steps(*model);
    EXPECT_TRUE(steps.Next().ok());
    for (int again = 0; again < 2; ++again) {
      const Status error = steps.Next();
      EXPECT_EQ(error.code(), Code::kUnavailable);
      EXPECT_THAT(error.message(), HasSubstr("the card fell off the bus"));
      if (bad == 1) {
        EXPECT_THAT(error.message(), HasSubstr("rank 1"));
      }
    }
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(15));
  }
}

TEST(Ranks, AHungRankEndsAll) {
  std::atomic<bool> wake = false, woken = false;
  {
    const auto model = WithFault(1, std::chrono::milliseconds(300), [&](Context&) {
      while (!wake) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      woken = true;
      return Unavailable("too late");
    });
    Steps steps(*model);
    EXPECT_TRUE(steps.Next().ok());
    const Clock::time_point begin = Clock::now();
    const Status error = steps.Next();
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(error.code(), Code::kUnavailable);
    EXPECT_THAT(error.message(), HasSubstr("rank 1 of 2 did not come within 300 ms"));
    EXPECT_EQ(model->CheckRanks().message(), error.message());
  }  // the model ends though the rank hangs
  EXPECT_FALSE(woken);
  wake = true;
  while (!woken) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // what it held goes with it
}

}  // namespace
}  // namespace seacliff
