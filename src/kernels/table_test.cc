// The dispatch table: the override, its errors, and the printed table.
#include "kernels/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/check_table.h"
#include "kernels/machine.h"
#include "kernels/rms_norm/op.h"

namespace seacliff {
namespace {

using testing::HasSubstr;

TEST(Rows, ParsesOverrides) {
  const auto rows = Rows::Parse("rms_norm=ref,linear=ref");
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  EXPECT_EQ(rows.value().forced(Op::kRmsNorm), "ref");
  EXPECT_EQ(rows.value().forced(Op::kLinear), "ref");
  EXPECT_EQ(rows.value().forced(Op::kRouter), "");
  EXPECT_TRUE(Rows::Parse("").ok());
}

TEST(Rows, AnUnknownRowListsThoseOfItsOp) {
  const auto rows = Rows::Parse("linear=ref,rms_norm=fast");
  ASSERT_FALSE(rows.ok());
  EXPECT_EQ(rows.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(rows.status().message(), HasSubstr("unknown 'rms_norm=fast'"));
  EXPECT_THAT(rows.status().message(), HasSubstr("rms_norm=ref"));
  EXPECT_THAT(rows.status().message(), testing::Not(HasSubstr("router=ref")));
}

TEST(Rows, AnUnknownOpListsAll) {
  for (const char* text : {"nope=ref", "linear", "=", "linear=ref,,", "linear=ref=ref"}) {
    const auto rows = Rows::Parse(text);
    ASSERT_FALSE(rows.ok()) << text;
    EXPECT_THAT(rows.status().message(), HasSubstr("valid are: ")) << text;
  }
  EXPECT_THAT(Rows::Parse("nope=ref").status().message(), HasSubstr("sparse_attention=ref"));
}

TEST(Rows, PortableIsForAllOps) {
  const auto rows = Rows::Parse("portable,linear=ref");
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  EXPECT_TRUE(rows.value().portable());
  EXPECT_EQ(rows.value().forced(Op::kLinear), "ref");
  EXPECT_FALSE(Rows::Parse("linear=ref").value().portable());
  EXPECT_THAT(Rows::Parse("portables").status().message(), HasSubstr("valid are: portable, "));
}

Gpu GpuOf(int32_t sm) {
  Gpu gpu;
  gpu.sm = sm;
  gpu.shared_memory = sm == 90 ? 227 * 1024 : 99 * 1024;
  return gpu;
}

TEST(WhyNot, KnowsWhereARowRuns) {
  const RowInfo ref = {"ref", Target::kHost, "", true}, cuda = {"cuda", Target::kSm80, "", true};
  const RowInfo sm90 = {"sm90", Target::kSm90, "", true},
                sm120 = {"sm120", Target::kSm120, "", true};
  const Gpu a100 = GpuOf(80), h200 = GpuOf(90), b200 = GpuOf(100), gb10 = GpuOf(121);
  const auto why = [](const RowInfo& row, const Gpu* gpu) {
    return WhyNot(row, Op::kLinear, Rows(), gpu);
  };
  EXPECT_EQ(why(ref, nullptr), "");
  EXPECT_EQ(why(ref, &h200), "needs the CPU");
  EXPECT_EQ(why(cuda, nullptr), "needs a GPU");
  for (const Gpu* gpu : {&a100, &h200, &b200, &gb10}) EXPECT_EQ(why(cuda, gpu), "") << gpu->sm;
  for (const Gpu* gpu : {&a100, &b200, &gb10}) EXPECT_EQ(why(sm90, gpu), "another GPU") << gpu->sm;
  EXPECT_EQ(why(sm90, &h200), "");
  EXPECT_EQ(why(sm120, &gb10), "");
  EXPECT_EQ(why(sm120, &b200), "another GPU");
  EXPECT_EQ(why({"cuda", Target::kSm80, "", false}, &h200), "not built");
}

TEST(WhyNot, PortableLeavesOutOneArchitecturesRowsUnlessForced) {
  const RowInfo ref = {"ref", Target::kHost, "", true}, cuda = {"cuda", Target::kSm80, "", true};
  const RowInfo sm90 = {"sm90", Target::kSm90, "", true};
  const Gpu h200 = GpuOf(90);
  const Rows portable = Rows::Parse("portable").value();
  EXPECT_EQ(WhyNot(sm90, Op::kLinear, portable, &h200), "not portable");
  EXPECT_EQ(WhyNot(cuda, Op::kLinear, portable, &h200), "");
  EXPECT_EQ(WhyNot(ref, Op::kLinear, portable, nullptr), "");

  const Rows forced = Rows::Parse("portable,linear=ref").value();
  EXPECT_EQ(WhyNot(cuda, Op::kLinear, forced, &h200), "another row is forced");
  EXPECT_EQ(WhyNot(ref, Op::kLinear, forced, nullptr), "");
}

// linear's own rows: the best one of a machine, and what takes its place.
std::string RowOf(std::string_view text, const char* op, const char* row) {
  size_t at = text.find(std::string("\n") + op + " ");
  for (; at != text.npos; at = text.find('\n', at + 1)) {
    const std::string_view line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
    const std::string_view name = line.substr(std::min<size_t>(line.size(), 18));
    if (name.starts_with(std::string(row) + " ")) return std::string(line);
  }
  return "";
}

TEST(DescribeKernels, SaysWhyLinearsRowOfSm90IsLeftOut) {
  const Gpu h200 = GpuOf(90), a100 = GpuOf(80), b200 = GpuOf(100);
  Gpu limited = h200;
  limited.shared_memory = 99 * 1024;
  const Rows portable = Rows::Parse("portable").value();
  const auto sm90 = [](const Rows& rows, const Gpu* gpu) {
    return RowOf(DescribeKernels(rows, gpu), "linear", "sm90");
  };
  EXPECT_THAT(sm90(Rows(), nullptr), HasSubstr("needs a GPU"));
  if (sm90(Rows(), &h200).find("not built") != std::string::npos) return;
  EXPECT_THAT(sm90(Rows(), &h200), HasSubstr("CHOSEN"));
  EXPECT_THAT(RowOf(DescribeKernels(Rows(), &h200), "linear", "cuda"),
              HasSubstr("where sm90 does not take it"));
  for (const Gpu* gpu : std::initializer_list<const Gpu*>{&a100, &b200, &limited}) {
    EXPECT_THAT(sm90(Rows(), gpu), HasSubstr("another GPU"));
    EXPECT_THAT(RowOf(DescribeKernels(Rows(), gpu), "linear", "cuda"), HasSubstr("CHOSEN"));
  }
  EXPECT_THAT(sm90(portable, &h200), HasSubstr("not portable"));
  EXPECT_THAT(RowOf(DescribeKernels(portable, &h200), "linear", "cuda"), HasSubstr("CHOSEN"));
  EXPECT_THAT(sm90(Rows::Parse("linear=cuda").value(), &h200), HasSubstr("another row is forced"));
}

size_t Count(std::string_view text, std::string_view word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST(DescribeKernels, ChoosesARowOfTheCpuForEveryOp) {
  const std::string text = DescribeKernels(Rows(), nullptr);
  for (const OpCheck& check : OpChecks()) EXPECT_THAT(text, HasSubstr(check.op));
  EXPECT_EQ(Count(text, "CHOSEN"), OpChecks().size());
  EXPECT_THAT(text, HasSubstr("needs a GPU"));
  EXPECT_THAT(text, testing::Not(HasSubstr("not built")));  // the same in every build
}

TEST(DescribeKernels, ChoosesAmongTheRowsOfAGpuToo) {
  const Gpu h200 = GpuOf(90);
  const std::string text = DescribeKernels(Rows(), &h200);
  EXPECT_THAT(text, testing::Not(HasSubstr("needs a GPU")));
  // One of the CPU each, and where they are built one of the GPU.
  if (text.find("not built") == text.npos) {
    EXPECT_EQ(Count(text, "CHOSEN"), 2 * OpChecks().size());
  } else {
    EXPECT_EQ(Count(text, "CHOSEN"), OpChecks().size());
  }
}

TEST(Context, KnowsWhichRowsRan) {
  Context k(1);
  EXPECT_EQ(RowsRun(k), "");
  std::vector<float> memory(64, 1);
  const std::vector<Bf16> weight(32, ToBf16(1));
  const Act<2> x(memory.data(), DType::kF32, {1, 32}),
      out(memory.data() + 32, DType::kF32, {1, 32});
  const RmsNormArgs a{x, View<const Bf16, 1>(weight.data(), {32}), 1e-6f, out};
  RmsNorm(k, a);
  EXPECT_EQ(RowsRun(k), "rms_norm=ref");  // f32: the cpu row takes bf16

  Profile profile;
  k.set_profile(&profile);
  RmsNorm(k, a);
  RmsNorm(k, a);
  k.set_profile(nullptr);
  RmsNorm(k, a);
  EXPECT_EQ(profile.total().calls, 2);
  EXPECT_EQ(profile.total().work.bytes, 2 * 64);
  EXPECT_THAT(profile.Describe(1), HasSubstr("rms_norm=ref"));
}

TEST(Context, KeepsTheFirstErrorAndSkipsWhatFollows) {
  Context k(1);
  k.Fail(Internal("first"));
  k.Fail(Internal("second"));
  float memory[2] = {1, 1};
  const Bf16 weight = ToBf16(1);
  const Act<2> x(memory, DType::kF32, {1, 1}), out(memory + 1, DType::kF32, {1, 1});
  RmsNorm(k, {x, View<const Bf16, 1>(&weight, {1}), 1e-6f, out});
  EXPECT_EQ(memory[1], 1);  // not run
  EXPECT_EQ(k.TakeError().message(), "first");
  EXPECT_TRUE(k.ok());
  memory[0] = 2;
  RmsNorm(k, {x, View<const Bf16, 1>(&weight, {1}), 1e-6f, out});
  EXPECT_NEAR(memory[1], 1, 1e-6);
}

}  // namespace
}  // namespace seacliff
