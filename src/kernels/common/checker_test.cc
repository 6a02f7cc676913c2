// The harness itself: rows that break each promise must fail, by name of what they broke.
#include "kernels/common/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cmath>
#include <fstream>

#include "kernels/check_table.h"
#include "kernels/rms_norm/op.h"

namespace seacliff {
namespace {

using testing::HasSubstr;
using Verdict = CheckOutcome::Verdict;

void Good(Context& k, const RmsNormArgs& a) { rms_norm::Ref(k, a); }

float* Out(const RmsNormArgs& a) { return static_cast<float*>(a.out.data); }

void WritesBehind(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[a.out.size()] = 0;
}
void WritesBefore(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[-1] = 0;
}
void ChangesItsInput(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  a.x.Store(0, 7);
}
void LeavesAnOutput(Context& k, const RmsNormArgs& a) {
  const float last = Out(a)[a.out.size() - 1];
  Good(k, a);
  Out(a)[a.out.size() - 1] = last;
}
void ReadsBeyond(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[0] += 0 * static_cast<const float*>(a.x.data)[a.x.size()];
}
void IsSlightlyWrong(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  Out(a)[5] *= 1 + 0x1p-14f;
}
void DependsOnTheThreads(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  if (k.pool().threads() == 1) Out(a)[0] = std::nextafter(Out(a)[0], 100.0f);
}
void DependsOnCompany(Context& k, const RmsNormArgs& a) {
  Good(k, a);
  if (a.x.shape[0] > 1) Out(a)[0] = std::nextafter(Out(a)[0], 100.0f);
}
void ReportsAnError(Context& k, const RmsNormArgs&) { k.Fail(Internal("broken")); }
bool TakesNothing(const RmsNormArgs&) { return false; }

// The outcome of `row` beside a sound ref.
CheckOutcome RunOne(const Kernel<RmsNormArgs>& row, bool real = false,
                    CheckReport* report = nullptr, const CheckOptions& options = {}) {
  const Kernel<RmsNormArgs> rows[] = {row, {"ref", Target::kHost, "", nullptr, rms_norm::Ref}};
  Checker checker(options);
  checker.SetOp("rms_norm");
  Random random = checker.NewRandom("test");
  CheckMemory memory;
  const auto x = memory.Activations<2>("x", DType::kF32, {3, 40}, Access::kRead,
                                       [&](int64_t) { return random.Normal(); });
  const auto weight = memory.NormWeights(40, random);
  const auto out = memory.Activations<2>("out", DType::kF32, {3, 40}, Access::kWrite);
  Case c;
  c.name = "test";
  c.parts = 3;
  c.read = [=](const Place& at) { return Loaded(at(out)); };
  c.expect = [=](Allowance a) {
    Expect all;
    for (int64_t t = 0; t < 3; ++t) {
      Expect v = Values(x, t * 40, 40);
      RmsNorm(v, weight, 1e-6, a);
      Append(all, v);
    }
    Round(all, DType::kF32);
    return all;
  };
  c.cost = {1000, 2000};
  c.real = real;
  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? 3 : 1;
    return RmsNormArgs{at(x).Rows(begin, count), at(weight), 1e-6f, at(out).Rows(begin, count)};
  };
  checker.Run<RmsNormArgs>(memory, c, args, rows);
  if (report != nullptr) *report = checker.report();
  for (const CheckOutcome& outcome : checker.report().outcomes) {
    if (outcome.row == row.row) return outcome;
  }
  ADD_FAILURE() << "no outcome";
  return {};
}

CheckOutcome RunOne(void (*run)(Context&, const RmsNormArgs&)) {
  return RunOne({"row", Target::kHost, "", nullptr, run});
}

void ExpectFailure(void (*run)(Context&, const RmsNormArgs&), const char* what) {
  const CheckOutcome outcome = RunOne(run);
  EXPECT_EQ(outcome.verdict, Verdict::kFailed) << what;
  EXPECT_THAT(outcome.what, HasSubstr(what));
}

TEST(Checker, PassesASoundRow) {
  const CheckOutcome outcome = RunOne(Good);
  EXPECT_EQ(outcome.verdict, Verdict::kPassed) << outcome.what;
}

TEST(Checker, FailsRowsThatBreakAPromise) {
  ExpectFailure(WritesBehind, "wrote 0 bytes behind the end of out");
  ExpectFailure(WritesBefore, "bytes before out");
  ExpectFailure(ChangesItsInput, "changed its input x");
  ExpectFailure(LeavesAnOutput, "nan, not ");
  ExpectFailure(ReadsBeyond, "output 0 is");
  ExpectFailure(IsSlightlyWrong, "(1 of 120 are wrong)");
  ExpectFailure(DependsOnTheThreads, "a second run: out differs at byte 0");
  ExpectFailure(DependsOnCompany, "one at a time: out differs at byte 0");
  ExpectFailure(ReportsAnError, "error: broken");
}

TEST(Checker, SkipsRowsThatCannotRun) {
  EXPECT_EQ(RunOne({"row", Target::kHost, "nothing", TakesNothing, Good}).what,
            "does not take these arguments");
  EXPECT_EQ(RunOne({"row", Target::kHost, "", nullptr, nullptr}).what, "not built");
  const CheckOutcome device = RunOne({"row", Target::kSm90, "", nullptr, Good});
  EXPECT_EQ(device.verdict, Verdict::kSkipped);
  EXPECT_EQ(device.what, "no such device");
}

TEST(Checker, TimesRealCasesAsJsonLines) {
  CheckOptions options;
  options.bench = true;
  options.machine = "a \"quoted\" machine";
  options.command = "seacliff check --bench";
  CheckReport report;
  const Kernel<RmsNormArgs> row = {"row", Target::kHost, "", nullptr, Good};
  const CheckOutcome outcome = RunOne(row, true, &report, options);
  EXPECT_GT(outcome.timing.median_us, 0);
  EXPECT_GT(report.limits.read_gbps, 0);
  EXPECT_GT(report.limits.f32_gflops, 0);
  ASSERT_EQ(report.result_lines.size(), 2u);  // ref and the row
  simdjson::dom::parser parser;
  const simdjson::dom::element line = parser.parse(report.result_lines[1]);
  EXPECT_EQ(line["op"].get_string().value(), "rms_norm");
  EXPECT_EQ(line["row"].get_string().value(), "row");
  EXPECT_EQ(line["case"].get_string().value(), "test");
  EXPECT_EQ(line["bytes"].get_int64().value(), 1000);
  EXPECT_EQ(line["flops"].get_int64().value(), 2000);
  EXPECT_EQ(line["machine"].get_string().value(), options.machine);
  EXPECT_EQ(line["command"].get_string().value(), options.command);
  for (const char* number : {"median_us", "gbps", "tflops", "read_gbps", "peak_tflops", "of_read",
                             "of_peak", "fraction", "threads"}) {
    EXPECT_GE(line[number].get_double().value(), 0) << number;
  }
}

TEST(CheckMemory, GivesTheSameRandomNumbersEverywhere) {
  Random random(1);
  EXPECT_EQ(random.Next(), 10451216379200822465u);
  double sum = 0, square = 0;
  for (int i = 0; i < 100000; ++i) {
    const double v = random.Normal();
    sum += v;
    square += v * v;
  }
  EXPECT_NEAR(sum / 1e5, 0, 0.02);
  EXPECT_NEAR(square / 1e5, 1, 0.02);
}

TEST(CheckMemory, KnowsWhichBytesMayBeWritten) {
  CheckMemory memory;
  const auto v = memory.Array<float, 1>("v", {8}, Access::kUpdate, [](int64_t i) { return i; });
  memory.MayWrite(v.data + 2, 4);
  memory.MayWrite(v.data + 5, 8);
  memory.Seal();
  v(2) = v(5) = v(6) = -1;
  EXPECT_EQ(memory.Damage(), "");
  const CheckMemory::Image image = memory.Snapshot();
  v(3) = -1;
  EXPECT_THAT(memory.Damage(), HasSubstr("of v, which is not its own"));
  EXPECT_THAT(memory.Difference(image, memory.Snapshot()), HasSubstr("v differs at byte 1"));
  EXPECT_EQ(Place(memory, &image)(v)(3), 3);
  memory.Restore();
  EXPECT_EQ(memory.Damage(), "");
  EXPECT_EQ(v(2), 2);
  v(7) = -1;
  EXPECT_NE(memory.Damage(), "");
}

TEST(CheckMemory, BatchesHoldWhatQueriesSeeAndNoMore) {
  CheckMemory memory;
  Random random(3);
  const CheckBatch batch = MakeBatch(memory, random, {{300, 2}, {5, 0}, {0, 1}}, 128, 0);
  EXPECT_EQ(batch.all.tokens(), 3);
  EXPECT_EQ(batch.all.seqs(), 3);
  EXPECT_EQ(batch.window_pages, 4);  // two of the first, one of the last, one spare
  EXPECT_EQ(batch.all.window_pages(0, 0), -1);
  EXPECT_GE(batch.all.window_pages(0, 1), 0);
  EXPECT_GE(batch.all.window_pages(0, 2), 0);
  EXPECT_GT(batch.all.window_pages(0, 3), 1 << 20);
  EXPECT_EQ(batch.all.compressed_pages(0, 1), -1);
  ASSERT_EQ(batch.single.size(), 3u);
  EXPECT_EQ(batch.single[1].positions(0), 301);
  EXPECT_EQ(batch.single[2].window_pages(0, 0), batch.all.window_pages(2, 0));
  EXPECT_EQ(batch.single[2].slots(0), batch.all.slots(2));
  EXPECT_EQ(batch.single[2].seq_begin(1), 1);
}

TEST(Expect, GridsAreTheFormats) {
  for (int code = 0; code < 0x7f; ++code) {
    const double v = DecodeE4m3(static_cast<uint8_t>(code));
    EXPECT_EQ(v, ToFloat(E4m3{static_cast<uint8_t>(code)}));
    EXPECT_EQ(ToGrid(v, 4, -6), v);
  }
  for (int code = 0; code < 16; ++code) {
    EXPECT_EQ(DecodeE2m1(static_cast<uint8_t>(code)), kE2m1Table[static_cast<size_t>(code)]);
  }
  Random random(5);
  for (int i = 0; i < 100000; ++i) {
    const auto v = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
    if (std::fabs(v) < 1e38f) {
      ASSERT_EQ(ToGrid(v, 8, -126), RoundToBf16(v));
    }
  }
}

TEST(Expect, ARoundingGivesWayOnlyNextToATie) {
  const Approx clear = Round(Approx{1.001, 1e-5}, DType::kBf16);
  EXPECT_EQ(clear.value, 1);
  EXPECT_EQ(clear.slack, 0);
  const Approx near = Round(Approx{1.00390624, 1e-5}, DType::kBf16);  // half a step above 1
  EXPECT_EQ(near.value, 1);
  EXPECT_EQ(near.slack, 0x1p-7);
}

TEST(RunChecks, NamesUnknownOpsRowsAndFiles) {
  CheckOptions options;
  options.op = "nope";
  auto report = RunChecks(options);
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(report.status().message(), HasSubstr("unknown op 'nope'; valid are: embed"));
  options.op = "embed";
  options.row = "fast";
  report = RunChecks(options);
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(report.status().message(), HasSubstr("has a row 'fast'"));
  options.row = "ref";
  options.results = "/nonexistent/folder/results.jsonl";
  report = RunChecks(options);
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(report.status().message(), HasSubstr(options.results));
  options.results = "";
  report = RunChecks(options);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report.value().failures(), 0);
  EXPECT_THAT(report.value().Describe(), HasSubstr("embed             ref"));
}

}  // namespace
}  // namespace seacliff
