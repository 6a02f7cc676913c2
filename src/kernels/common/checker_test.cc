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
  ASSERT_EQ(report.result_lines.size(), 1u);  // ref does not go along with several tokens
  simdjson::dom::parser parser;
  const simdjson::dom::element line = parser.parse(report.result_lines[0]);
  EXPECT_EQ(line["op"].get_string().value(), "rms_norm");
  EXPECT_EQ(line["row"].get_string().value(), "row");
  EXPECT_EQ(line["case"].get_string().value(), "test");
  EXPECT_EQ(line["tokens"].get_int64().value(), 3);
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

TEST(CheckMemory, MakesTheSameInputsOnAnyNumberOfThreads) {
  const auto bytes = [](ThreadPool* pool) {
    CheckMemory memory(pool);
    Random random(1);
    std::vector<std::byte> all;
    const auto add = [&](const void* data, int64_t count) {
      const auto* begin = static_cast<const std::byte*>(data);
      all.insert(all.end(), begin, begin + count);
    };
    const auto x = memory.Normals<2>("x", DType::kBf16, {300, 700}, Access::kRead, random);
    add(x.data, x.size() * 2);
    for (const WeightFormat format : {WeightFormat::kFp8, WeightFormat::kMxfp4}) {
      const Matrix w = memory.Weights("w", format, 3001, 768, random);
      add(w.data, w.rows * w.row_bytes());
    }
    return all;
  };
  ThreadPool pool(3);
  const std::vector<std::byte> alone = bytes(nullptr);
  EXPECT_TRUE(alone == bytes(&pool));
  // The two long parts of a matrix have numbers of their own.
  const auto* fp8 = alone.data() + 300 * 700 * 2;
  EXPECT_NE(std::memcmp(fp8, fp8 + (1 << 20), 1 << 20), 0);
  EXPECT_FALSE(std::any_of(fp8, fp8 + 3001 * 768, [](std::byte b) {
    return (b & std::byte{0x7f}) == std::byte{0x7f};  // NaN
  }));
}

TEST(CheckMemory, SeesWhatNoRowHasWritten) {
  CheckMemory memory;
  const auto x = memory.Activations<1>("x", DType::kBf16, {40}, Access::kWrite);
  const auto picks = memory.Array<int32_t, 1>("picks", {8}, Access::kWrite);
  memory.Seal();
  for (int64_t i = 0; i < 40; ++i) {
    if (i != 17) x.Store(i, 1);
  }
  EXPECT_EQ(memory.Unwritten(), "x is NaN at 17");
  x.Store(17, 1);
  EXPECT_EQ(memory.Unwritten(), "picks is not written at 0");
  for (int64_t i = 0; i < 8; ++i) picks(i) = -1;
  EXPECT_EQ(memory.Unwritten(), "");
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
  EXPECT_THAT(memory.Difference(image), HasSubstr("v differs at byte 1"));
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

// The sum of 32 products and `sum` with 13 bits below the largest of them.
double E4m3Sum(std::span<const double> products, double sum) {
  const auto unit_of = [](double v) { return std::exp2(std::floor(std::log2(v)) - 13); };
  double largest = std::fabs(sum);
  for (double p : products) largest = std::max(largest, std::fabs(p));
  const double unit = unit_of(largest);
  double exact = std::trunc(sum / unit);
  for (double p : products) exact += std::trunc(p / unit);
  const double last = unit_of(std::fabs(exact * unit) + 0x1p-100);
  return std::trunc(exact * unit / last) * last;
}

TEST(Expect, SumsOfE4m3UnitsMayLoseWhatTheyCutOff) {
  Random random(5);
  double worst = 0, worst_of_f32 = 0;
  for (int i = 0; i < 1000; ++i) {
    DotProduct dot;
    double sum = 0;
    for (int64_t block = 0; block < 8; ++block) {
      double part = 0;
      for (int64_t begin = 0; begin < 128; begin += 32) {
        std::vector<double> products;
        for (int64_t c = 0; c < 32; ++c) {
          const double x = ToGrid(random.Normal(), 4, -20), w = ToGrid(random.Normal(), 4, -20);
          dot.Add({x, 0}, w);
          products.push_back(x * w);
        }
        part = E4m3Sum(products, part);
      }
      sum += part;
    }
    const Approx allowed = dot.Total({true, true}, true), f32 = dot.Total({true, false}, true);
    const double error = std::fabs(sum - allowed.value);
    worst = std::max(worst, error / allowed.slack);
    worst_of_f32 = std::max(worst_of_f32, error / f32.slack);
    EXPECT_EQ(dot.Total({true, true}, false).slack, f32.slack);  // a product that is not quantised
  }
  EXPECT_LE(worst, 1);
  EXPECT_GE(worst, 0.1);
  EXPECT_GT(worst_of_f32, 2);  // f32's own tolerance would not do
}

TEST(TokensToCheck, AreAFewOfManyInARealSize) {
  Random random(1);
  for (int64_t tokens : {5, 6, 7, 8192}) {
    for (int i = 0; i < 100; ++i) {
      const std::vector<int64_t> sample = TokensToCheck(tokens, true, random);
      ASSERT_EQ(sample.size(), 4u);
      EXPECT_EQ(sample.front(), 0);
      EXPECT_EQ(sample.back(), tokens - 1);
      EXPECT_TRUE(std::adjacent_find(sample.begin(), sample.end(), std::greater_equal<int64_t>()) ==
                  sample.end());
    }
  }
  EXPECT_EQ(TokensToCheck(8192, false, random).size(), 8192u);
  EXPECT_EQ(TokensToCheck(3, true, random).size(), 3u);
}

TEST(RunChecks, KeepsToTheCasesThatAreAskedFor) {
  CheckOptions options;
  options.op = "rms_norm";
  options.name = "exact, in";
  const auto report = RunChecks(options);
  ASSERT_TRUE(report.ok());
  ASSERT_FALSE(report.value().outcomes.empty());
  for (const CheckOutcome& o : report.value().outcomes) {
    EXPECT_EQ(o.name, "dim 512, exact, in place");
  }
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
