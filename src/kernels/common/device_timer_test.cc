// Timing on a device and the checks of real sizes there, on a device that is host memory.
#include "kernels/common/device_timer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cmath>

#include "kernels/common/checker.h"
#include "kernels/common/testing/host_device.h"
#include "kernels/rms_norm/op.h"

namespace seacliff {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Verdict = CheckOutcome::Verdict;

constexpr double kCallUs = 100;

struct FakeGraph : DeviceGraph {
  int64_t calls = 0;
};

// Runs what is launched at once; a call that was recorded takes kCallUs.
class FakeDevice : public HostDevice {
 public:
  FakeDevice() : HostDevice({0, "fake", 90, 4, 1 << 30, 99 << 10, 60'000'000}) {}

  std::unique_ptr<DeviceGraph> Record(const std::function<void()>& launches) override {
    if (!error.ok()) return nullptr;
    launched = 0;
    launches();
    auto graph = std::make_unique<FakeGraph>();
    graph->calls = launched;
    return graph;
  }
  void Run(const DeviceGraph& graph) override {
    clock_us += kCallUs * static_cast<double>(static_cast<const FakeGraph&>(graph).calls);
    ++replays;
  }
  double Time(const std::function<void()>& launches) override {
    const double before = clock_us;
    launches();
    return clock_us - before;
  }
  int64_t FreeBytes() override { return 1 << 30; }

  int64_t launched = 0, replays = 0;
  double clock_us = 0;
};

TEST(DeviceTimer, OperandsPassTheCacheTwiceBeforeTheyComeAgain) {
  constexpr int64_t kMost = 1 << 20;
  for (int64_t l2 : {int64_t{4} << 20, int64_t{60'000'000}, int64_t{126'000'000}}) {
    for (int64_t bytes : {int64_t{1000}, int64_t{33'600'000}, int64_t{85'000'001}}) {
      const int64_t others = RotationCopies(bytes, l2, kMost) - 1;
      EXPECT_GT(others * bytes, 2 * l2);
      EXPECT_GE(others * bytes, 170'000'000);
      EXPECT_LT((others - 1) * bytes, std::max<int64_t>(170'000'000, 2 * l2 + 1));
    }
  }
  EXPECT_EQ(RotationCopies(int64_t{3} << 30, 60'000'000, kMost), 2);
  EXPECT_EQ(RotationCopies(1000, 60'000'000, 30), 30);
  EXPECT_EQ(RotationCopies(0, 60'000'000, 1), 2);
}

TEST(DeviceTimer, AReplayLastsOneAndAHalfMilliseconds) {
  EXPECT_EQ(ListRepeats(1500), 1);
  EXPECT_EQ(ListRepeats(1499), 2);
  EXPECT_EQ(ListRepeats(2), 750);
  EXPECT_EQ(ListRepeats(1e6), 1);
}

TEST(DeviceTimer, TakesTheMedian) {
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 4}), 4);
  EXPECT_EQ(Median({9, 1, 4, 7}), 4);
}

TEST(DeviceTimer, CallsGoRoundTheCopies) {
  FakeDevice device;
  std::vector<int64_t> called;
  const auto timing = TimeCalls(device, 3, [&](int64_t copy) {
    called.push_back(copy);
    ++device.launched;
  });
  ASSERT_TRUE(timing.ok());
  EXPECT_DOUBLE_EQ(timing->median_us, kCallUs);
  EXPECT_EQ(timing->calls, 15);  // five times three calls of 100 us
  ASSERT_EQ(called.size(), 3u + 15u);
  called.erase(called.begin(), called.begin() + 3);
  called.resize(5);
  EXPECT_THAT(called, ElementsAre(0, 1, 2, 0, 1));
  // Two of the first list, 60 ms of warming up, 11 that count.
  EXPECT_EQ(device.replays, 2 + 40 + 11);
}

TEST(DeviceTimer, TellsTheDevicesError) {
  FakeDevice device;
  device.error = Internal("broken");
  EXPECT_EQ(TimeCalls(device, 2, [](int64_t) {}).status().message(), "broken");
}

constexpr int64_t kTokens = 9, kDim = 40;

// A row of a device beside ref on a real size of nine tokens, of which four are looked at.
CheckOutcome RunReal(void (*run)(Context&, const RmsNormArgs&), bool bench = false,
                     CheckReport* report = nullptr) {
  FakeDevice device;
  CheckOptions options;
  options.full = true;
  options.bench = bench;
  options.device = &device;
  const Kernel<RmsNormArgs> rows[] = {{"row", Target::kSm80, "", nullptr, run},
                                      {"ref", Target::kHost, "", nullptr, rms_norm::Ref}};
  Checker checker(options);
  checker.SetOp("rms_norm");
  Random random(1);
  CheckMemory memory(&checker.pool());
  const auto x = memory.Normals<2>("x", DType::kF32, {kTokens, kDim}, Access::kRead, random);
  const auto weight = memory.NormWeights(kDim, random);
  const auto out = memory.Activations<2>("out", DType::kF32, {kTokens, kDim}, Access::kWrite);
  const std::vector<int64_t> sample = TokensToCheck(kTokens, true, random);
  Case c;
  c.name = "test";
  c.parts = kTokens;
  c.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : sample) Append(all, Loaded(at(out).Rows(t, 1)));
    return all;
  };
  c.expect = [=](Allowance a) {
    Expect all;
    for (int64_t t : sample) {
      Expect v = Values(x, t * kDim, kDim);
      RmsNorm(v, weight, 1e-6, a);
      Append(all, v);
    }
    Round(all, DType::kF32);
    return all;
  };
  c.cost = {50'000'000, 2000};
  c.real = true;
  checker.Run<RmsNormArgs>(
      memory, c,
      [=](const Place& at, int64_t) {
        return RmsNormArgs{at(x), at(weight), 1e-6f, at(out)};
      },
      rows);
  if (report != nullptr) *report = checker.report();
  EXPECT_EQ(checker.report().outcomes.size(), 1u);
  return checker.report().outcomes.front();
}

float* Out(const RmsNormArgs& a) { return static_cast<float*>(a.out.data); }

void Good(Context& k, const RmsNormArgs& a) {
  rms_norm::Ref(k, a);
  if (k.device() != nullptr) ++static_cast<FakeDevice*>(k.device())->launched;
}
void IsWrong(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[a.out.size() - 3] *= 1.001f;
}
void LeavesATokenAlone(Context& k, const RmsNormArgs& a) {
  RmsNormArgs less = a;
  less.x = a.x.Rows(0, 2);
  less.out = a.out.Rows(0, 2);
  Good(k, less);
  less.x = a.x.Rows(3, kTokens - 3);
  less.out = a.out.Rows(3, kTokens - 3);
  Good(k, less);
}
void DependsOnThePlace(Context& k, const RmsNormArgs& a) {
  static const void* first = nullptr;
  Good(k, a);
  if (first == nullptr) first = a.x.data;
  if (first != a.x.data) Out(a)[2 * kDim] += 0x1p-22f;
}
void WritesBehind(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[a.out.size()] = 0;
}
void ReportsAnError(Context& k, const RmsNormArgs&) { k.Fail(Internal("broken")); }

TEST(RealSizesOnADevice, PassASoundRow) {
  const CheckOutcome outcome = RunReal(Good);
  EXPECT_EQ(outcome.verdict, Verdict::kPassed) << outcome.what;
  EXPECT_EQ(outcome.row, "row");
}

TEST(RealSizesOnADevice, FailRowsThatBreakAPromise) {
  EXPECT_THAT(RunReal(IsWrong).what, HasSubstr("(1 of 160 are wrong)"));
  EXPECT_THAT(RunReal(LeavesATokenAlone).what, HasSubstr("NaN"));
  EXPECT_THAT(RunReal(DependsOnThePlace).what, HasSubstr("a second run: out differs at byte"));
  EXPECT_THAT(RunReal(WritesBehind).what, HasSubstr("behind the end of out"));
  EXPECT_EQ(RunReal(ReportsAnError).what, "error: broken");
}

TEST(RealSizesOnADevice, AreTimedAsJsonLines) {
  CheckReport report;
  const CheckOutcome outcome = RunReal(Good, true, &report);
  EXPECT_EQ(outcome.verdict, Verdict::kPassed) << outcome.what;
  ASSERT_EQ(report.result_lines.size(), 1u);
  simdjson::dom::parser parser;
  const simdjson::dom::element line = parser.parse(report.result_lines[0]);
  EXPECT_EQ(line["machine"].get_string().value(), "fake");
  EXPECT_EQ(line["isa"].get_string().value(), "sm_90");
  EXPECT_EQ(line["tokens"].get_int64().value(), kTokens);
  EXPECT_EQ(line["median_us"].get_double().value(), kCallUs);
  EXPECT_EQ(line["copies"].get_int64().value(), 5);  // 4 x 50 MB pass between
  EXPECT_EQ(line["calls"].get_int64().value(), 15);
}

}  // namespace
}  // namespace seacliff
