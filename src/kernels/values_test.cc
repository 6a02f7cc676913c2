// The check values of spec/model.md chapter 8 that an op gives as a whole.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/mhc_boundary/op.h"
#include "kernels/router/op.h"

namespace seacliff {
namespace {

// m_i = 0.1 (i - 12), base_i = 0.05 (i mod 5), scale = (0.5, 1, 2): streams of ones, whose root
// mean square is sqrt(1 + eps), and fn that gives m from the first of them.
TEST(CheckValues, Sinkhorn) {
  std::vector<float> streams(4, 1.0f), mix(20), fn(24 * 4), base(24), x(1);
  for (size_t i = 0; i < 24; ++i) {
    fn[4 * i] = static_cast<float>(0.1 * (static_cast<double>(i) - 12) * std::sqrt(1 + 1e-6));
    base[i] = 0.05f * static_cast<float>(i % 5);
  }
  const float scale[] = {0.5f, 1, 2};
  const Bf16 weight = ToBf16(1);
  MhcBoundaryArgs a{};
  a.streams = {streams.data(), DType::kF32, {1, 4, 1}};
  a.mix = {mix.data(), {1, 20}};
  a.hc = {{WeightFormat::kF32, 24, 4, fn.data(), nullptr},
          View<float, 1>(base.data(), {24}),
          View<const float, 1>(scale, {3})};
  a.weight = View<const Bf16, 1>(&weight, {1});
  a.norm_eps = a.hc_eps = 1e-6f;
  a.iters = 20;
  a.x = {x.data(), DType::kF32, {1, 1}};
  Context k(1);
  MhcBoundary(k, a);
  ASSERT_TRUE(k.ok());
  const std::vector<float> want = {.7086874f, .6636245f, .7317288f, .8026247f,  // post
                                   .2696203f, .2696203f, .2232982f, .2374602f,  // comb
                                   .2535403f, .2535403f, .2696203f, .2232981f,
                                   .2384192f, .2384192f, .2535402f, .2696203f,
                                   .2384192f, .2384192f, .2535402f, .2696203f};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(mix[i], want[i], 2e-7) << i;

  // pre shows only as the sum of the collapsed streams, through a norm with a large eps.
  const std::vector<float> pre = {.3543447f, .3775417f, .4013133f, .4255585f};
  a.norm_eps = 1;                    // x = s / sqrt(s^2 + 1)
  for (size_t i = 0; i < 24; ++i) {  // streams of ones again: rms sqrt(2)
    fn[4 * i] = static_cast<float>(0.1 * (static_cast<double>(i) - 12) * std::sqrt(2.0));
  }
  MhcBoundary(k, a);
  double sum = 0;
  for (float p : pre) sum += p;
  EXPECT_NEAR(x[0], sum / std::sqrt(sum * sum + 1), 1e-6);
}

TEST(CheckValues, SqrtSoftplus) {
  const std::vector<float> logits = {-5, -1, 0, 1, 5, 25};
  const std::vector<float> want = {.0819472f, .5596979f, .8325546f, 1.1459763f, 2.2375691f, 5};
  float sum = 0;
  for (float v : want) sum += v;
  float one = 1;
  const std::vector<float> bias(6, 0.0f);
  std::vector<int32_t> picks(6);
  std::vector<float> weights(6);
  RouterArgs a{};
  a.x = {&one, DType::kF32, {1, 1}};
  a.gate = {WeightFormat::kF32, 6, 1, logits.data(), nullptr};
  a.bias = View<const float, 1>(bias.data(), {6});
  a.route_scale = sum;  // so that the weights are the affinities
  a.picks = {picks.data(), {1, 6}};
  a.weights = {weights.data(), {1, 6}};
  Context k(1);
  Router(k, a);
  ASSERT_TRUE(k.ok());
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(weights[i], want[picks[i]], 1e-6) << i;
}

}  // namespace
}  // namespace seacliff
