// The demo model says the same on the GPU as on the CPU: greedy replies, token by token.
//
// The two round alike but sum in different orders, so where two tokens are almost equally likely
// they may part. How near is near enough follows from the head's formats. Its input x is rounded to
// bf16, and a rounding that falls the other way moves x_i by one step of bf16 (the checks of the
// ops give a rounding as much); its sums are f32. So two logits of token j may stand apart by
//
//   tolerance_j = sum_i (step(x_i) + dim * 2^-24 * |x_i|) * |w_ij|
//
// with step(x) = 2^(floor(log2 |x|) - 7).
// Where the texts part, the two candidates must be less than twice the tolerance apart in both
// models' logits, given the same tokens before. What the layers before the head have added to the
// difference of x is not counted in.
#include <algorithm>
#include <cmath>

#include "checkpoint/checkpoint.h"
#include "kernels/mhc_head/op.h"
#include "model/rope.h"
#include "model/weights.h"
#include "seacliff/text.h"
#include "tests/gpu/models.h"

namespace seacliff {
namespace {

constexpr int64_t kNewTokens = 200, kMaxLen = 384;
constexpr TestModel kTiny = {"tiny", "/models/tiny"};

class Greedy : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    auto cpu = LoadTestModel(kTiny, "cpu", 1, kMaxLen),
         gpu = LoadTestModel(kTiny, "cuda", 1, kMaxLen);
    ASSERT_TRUE(cpu.ok()) << cpu.status().message();
    ASSERT_TRUE(gpu.ok()) << gpu.status().message();
    cpu_ = std::move(cpu).value();
    gpu_ = std::move(gpu).value();
  }

  // What the model says after `prompt`, the end of the text included.
  static std::vector<int32_t> Continue(Model& model, const std::vector<int32_t>& prompt,
                                       const std::vector<int32_t>& end_ids) {
    DirectRunner runner(model, 1, kMaxLen);
    std::vector<int32_t> text;
    std::vector<float> logits;
    std::vector<int32_t> next = prompt;
    while (static_cast<int64_t>(text.size()) < kNewTokens) {
      const DirectRunner::Piece piece{0, next};
      const auto last = static_cast<int32_t>(next.size() - 1);
      const Status status = runner.Step({&piece, 1}, {&last, 1}, logits);
      EXPECT_TRUE(status.ok()) << status.message();
      if (!status.ok()) break;
      text.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      if (std::binary_search(end_ids.begin(), end_ids.end(), text.back())) break;
      next = {text.back()};
    }
    return text;
  }

  // Logits of the token after `prompt` and `text`, read as Continue did: the prompt whole, then one
  // by one. `streams`: the residual streams of the last token after the last layer.
  static std::vector<float> LogitsAfter(Model& model, const std::vector<int32_t>& prompt,
                                        std::span<const int32_t> text,
                                        std::vector<float>* streams) {
    const ModelConfig& c = model.config();
    DirectRunner runner(model, 1, kMaxLen);
    std::vector<float> logits, layers(static_cast<size_t>(c.layers * c.streams * c.dim));
    const auto step = [&](std::span<const int32_t> ids) {
      const DirectRunner::Piece piece{0, ids};
      const auto last = static_cast<int32_t>(ids.size() - 1);
      ForwardTrace trace;
      trace.token = last;
      trace.layers = {layers.data(), {c.layers, c.streams, c.dim}};
      const Status status = runner.Step({&piece, 1}, {&last, 1}, logits, &trace);
      EXPECT_TRUE(status.ok()) << status.message();
    };
    step(prompt);
    for (const int32_t& id : text) step({&id, 1});
    if (streams != nullptr) streams->assign(layers.end() - c.streams * c.dim, layers.end());
    return logits;
  }

  std::unique_ptr<Model> cpu_, gpu_;
};

// tolerance_j of the head from the streams after the last layer.
class HeadTolerance {
 public:
  explicit HeadTolerance(const ModelConfig& config)
      : config_(config),
        checkpoint_(Checkpoint::Open(Repository() + kDemoModel, config, false).value()),
        frequencies_{RopeFrequencies(config, 0), RopeFrequencies(config, 4)},
        weights_(BindWeights(checkpoint_, config, frequencies_, false)) {}

  double Of(const std::vector<float>& streams, int32_t token) {
    std::vector<Bf16> rounded, x(static_cast<size_t>(config_.dim));
    for (const float v : streams) rounded.push_back(ToBf16(v));
    const int32_t row = 0;
    MhcHead(k_, {Act<2>(),
                 {rounded.data(), DType::kBf16, {1, config_.streams, config_.dim}},
                 {},
                 weights_.hc_head,
                 weights_.norm,
                 static_cast<float>(config_.norm_eps),
                 static_cast<float>(config_.hc_eps),
                 {&row, {1}},
                 {x.data(), DType::kBf16, {1, config_.dim}}});
    EXPECT_TRUE(k_.TakeError().ok());
    EXPECT_EQ(weights_.head.format, WeightFormat::kBf16);
    const Bf16* w = static_cast<const Bf16*>(weights_.head.data) + token * config_.dim;
    double tolerance = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double value = std::fabs(ToFloat(x[i]));
      const double step = value == 0 ? 0 : std::ldexp(1, std::ilogb(value) - 7);
      const double summed = static_cast<double>(config_.dim) * 0x1p-24 * value;
      tolerance += (step + summed) * std::fabs(ToFloat(w[i]));
    }
    return tolerance;
  }

 private:
  const ModelConfig& config_;
  Checkpoint checkpoint_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  Context k_{1};
};

TEST_F(Greedy, TextsAreThoseOfTheCpu) {
  const Tokenizer tokenizer = Tokenizer::Load(Repository() + kDemoModel).value();
  HeadTolerance tolerance(cpu_->config());
  std::ifstream in(Repository() + "/tests/gpu/prompts.json");
  const std::vector<std::string> prompts = nlohmann::json::parse(in);
  ASSERT_EQ(prompts.size(), 20u);
  int64_t same = 0, tokens = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::vector<int32_t> prompt = tokenizer.Encode(prompts[i], true);
    const std::vector<int32_t> want = Continue(*cpu_, prompt, tokenizer.end_ids());
    const std::vector<int32_t> got = Continue(*gpu_, prompt, tokenizer.end_ids());
    tokens += std::ssize(want);
    if (want == got) {
      ++same;
      continue;
    }
    const auto at = static_cast<size_t>(
        std::mismatch(want.begin(), want.end(), got.begin(), got.end()).first - want.begin());
    ASSERT_LT(at, std::min(want.size(), got.size()));  // none is the other's beginning
    std::vector<float> streams;
    const std::span<const int32_t> before(want.data(), at);
    const std::vector<float> on_cpu = LogitsAfter(*cpu_, prompt, before, &streams);
    const std::vector<float> on_gpu = LogitsAfter(*gpu_, prompt, before, nullptr);
    const auto a = static_cast<size_t>(want[at]), b = static_cast<size_t>(got[at]);
    const double cpu_gap = on_cpu[a] - on_cpu[b], gpu_gap = on_gpu[b] - on_gpu[a];
    const double bar =
        2 * std::max(tolerance.Of(streams, want[at]), tolerance.Of(streams, got[at]));
    std::printf(
        "prompt %zu: the texts part at token %zu: \"%s\" on the CPU (by %.4f), \"%s\" on the GPU "
        "(by %.4f); the bar is %.4f\n",
        i, at, tokenizer.Decode({&want[at], 1}).c_str(), cpu_gap,
        tokenizer.Decode({&got[at], 1}).c_str(), gpu_gap, bar);
    EXPECT_LT(cpu_gap, bar) << "prompt " << i;
    EXPECT_LT(gpu_gap, bar) << "prompt " << i;
  }
  std::printf("%d of %zu texts (%d tokens in all) are the CPU's\n", static_cast<int>(same),
              prompts.size(), static_cast<int>(tokens));
}

}  // namespace
}  // namespace seacliff
