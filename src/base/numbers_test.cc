// The number formats against brute force: the nearest of all values of the format, ties to even.
#include "base/numbers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace seacliff {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The code whose value is nearest to x among codes 0 .. count - 1 (values ascending from 0), ties
// to the even code.
template <typename F>
int Nearest(double x, int count, F value) {
  int best = 0;
  for (int code = 1; code < count; ++code) {
    const double better = std::fabs(value(best) - x) - std::fabs(value(code) - x);
    if (better > 0 || (better == 0 && code % 2 == 0)) best = code;
  }
  return best;
}

TEST(Bf16, RoundsToNearestEven) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000000; ++i) {
    // Every other time a tie or next to one, where only the low half decides.
    uint32_t bits = static_cast<uint32_t>(random());
    if (i % 2 == 0) bits = (bits & 0xffff0000u) | (0x7fffu + static_cast<uint32_t>(i / 2 % 3));
    const float x = std::bit_cast<float>(bits);
    if (!std::isfinite(x)) continue;
    const uint32_t low = bits & 0xffff0000u;
    // The next value away from zero, or what would be it beyond the largest.
    const double below = std::bit_cast<float>(low);
    const double step = std::ldexp(1.0, std::max<int>(static_cast<int>(bits >> 23 & 255), 1) - 134);
    const double above = below + std::copysign(step, x);
    const double to_below = std::fabs(x - below), to_above = std::fabs(above - x);
    const bool up = to_above < to_below || (to_above == to_below && (low >> 16) % 2 == 1);
    const auto want = static_cast<uint16_t>((low >> 16) + (up ? 1 : 0));
    ASSERT_EQ(ToBf16(x).bits, want) << std::hex << bits;
  }
}

TEST(Bf16, KeepsItsOwnValuesInfinitiesAndNaN) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float x = ToFloat(Bf16{static_cast<uint16_t>(i)});
    if (x == x) {
      EXPECT_EQ(ToBf16(x).bits, i);
    } else {
      EXPECT_TRUE(std::isnan(RoundToBf16(x)));
    }
  }
  EXPECT_TRUE(std::isnan(RoundToBf16(std::bit_cast<float>(0x7f800001u))));
  EXPECT_EQ(RoundToBf16(std::numeric_limits<float>::max()), kInf);
}

// The definition: sign, 4 exponent bits of bias 7, 3 mantissa bits; no infinities.
double E4m3Value(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  return exponent == 0 ? mantissa * 0x1p-9 : (8 + mantissa) * std::exp2(exponent - 10);
}

TEST(E4m3, All256ValuesRoundTrip) {
  for (int i = 0; i < 256; ++i) {
    const float x = ToFloat(E4m3{static_cast<uint8_t>(i)});
    if ((i & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(x));
      EXPECT_EQ(ToE4m3(x).bits & 0x7f, 0x7f);
      continue;
    }
    EXPECT_EQ(x, (i & 0x80) != 0 ? -E4m3Value(i & 0x7f) : E4m3Value(i));
    EXPECT_EQ(ToE4m3(x).bits, i);
  }
  EXPECT_EQ(ToFloat(E4m3{0x7e}), 448.0f);
}

TEST(E4m3, RoundsToNearestEvenAndSaturates) {
  std::vector<float> inputs = {448.0f, 463.9f, 464.0f, 1e30f, kInf, 0x1p-10f, 0x1p-9f, 1e-40f};
  for (int code = 0; code < 0x7e; ++code) {  // ties, and the floats next to them
    const auto tie = static_cast<float>((E4m3Value(code) + E4m3Value(code + 1)) / 2);
    inputs.insert(inputs.end(), {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, kInf)});
  }
  std::mt19937 random(2);
  std::uniform_real_distribution<double> exponent(-12, 10);
  for (int i = 0; i < 20000; ++i) inputs.push_back(static_cast<float>(std::exp2(exponent(random))));
  for (float x : inputs) {
    const int want = Nearest(std::min(x, 448.0f), 0x7f, E4m3Value);
    EXPECT_EQ(ToE4m3(x).bits, want) << x;
    EXPECT_EQ(ToE4m3(-x).bits, want | 0x80) << -x;
  }
}

TEST(E2m1, RoundsToNearestEvenAndSaturates) {
  const auto value = [](int code) { return static_cast<double>(kE2m1Table[code]); };
  for (int i = 0; i <= 8 * 256; ++i) {
    const float x = static_cast<float>(i) / 256.0f;
    const int want = Nearest(std::min(x, 6.0f), 8, value);
    EXPECT_EQ(ToE2m1(x), want) << x;
    EXPECT_EQ(ToE2m1(-x), want | 8) << -x;
  }
  EXPECT_EQ(ToE2m1(1e30f), 7);
}

// spec/model.md 2.10.
TEST(E2m1, TiesOfTheSpecification) {
  const std::vector<std::pair<float, float>> ties = {{0.25f, 0}, {0.75f, 1}, {1.25f, 1}, {1.75f, 2},
                                                     {2.5f, 2},  {3.5f, 4},  {5, 4}};
  for (const auto& [x, y] : ties) EXPECT_EQ(kE2m1Table[ToE2m1(x)], y) << x;
}

// spec/model.md chapter 8.
TEST(Scales, BytesOfTheSpecification) {
  const std::vector<std::pair<float, int>> fp8 = {{0.4375f, 117}, {0.875f, 118}, {1.0f, 119},
                                                  {3.5f, 120},    {3.6f, 121},   {448, 127},
                                                  {450, 128},     {1e-4f, 105},  {0, 105}};
  for (const auto& [amax, byte] : fp8) EXPECT_EQ(E4m3Scale(amax).bits, byte) << amax;
  const std::vector<std::pair<float, float>> fp4 = {{0.75f, 0.125f}, {1, 0.25f}, {6, 1}, {6.1f, 2}};
  for (const auto& [amax, scale] : fp4) EXPECT_EQ(ToFloat(E2m1Scale(amax)), scale) << amax;
  EXPECT_EQ(E2m1Scale(0).bits, 1);
}

TEST(Scales, AreTheSmallestPowerOfTwoThatFits) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> exponent(-12, 30);
  for (int i = 0; i < 100000; ++i) {
    const float amax = RoundToBf16(static_cast<float>(std::exp2(exponent(random))));
    const double scale = ToFloat(E4m3Scale(amax));
    EXPECT_LE(amax, 448 * scale);
    EXPECT_GT(amax, 448 * scale / 2);
  }
}

TEST(E8m0, IsAPowerOfTwo) {
  for (int i = 0; i < 255; ++i) {
    EXPECT_EQ(ToFloat(E8m0{static_cast<uint8_t>(i)}), std::ldexp(1.0, i - 127)) << i;
  }
  for (int i = 1; i < 254; ++i) {
    const auto power = std::ldexp(1.0f, i - 127);
    EXPECT_EQ(Pow2Ceil(power).bits, i);
    EXPECT_EQ(Pow2Ceil(std::nextafter(power, kInf)).bits, i + 1);
  }
}

}  // namespace
}  // namespace seacliff
