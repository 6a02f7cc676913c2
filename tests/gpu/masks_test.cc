// Masks of what requests may say on a device: they come whole while it works, and requests that
// share steps keep to their own.
#include <algorithm>
#include <future>
#include <memory>
#include <vector>

#include "base/random.h"
#include "engine/token_masks.h"
#include "seacliff/engine.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

using Masks = GpuTest;

TEST_F(Masks, ComeWholeBesideTheDevicesWork) {
  constexpr int64_t kRows = 5, kVocab = 129280, kBusy = int64_t{256} << 20;
  auto made = TokenMasks::Make(&device(), kRows, kVocab);
  ASSERT_TRUE(made.ok()) << made.status().message();
  TokenMasks masks = std::move(made).value();
  const Buffer from = device().Allocate(kBusy), to = device().Allocate(kBusy);
  for (uint64_t round = 0; round < 20; ++round) {
    masks.Clear();
    std::vector<std::vector<uint32_t>> written;
    std::vector<std::span<const uint32_t>> there;
    device().Copy(to.data(), from.data(), kBusy);
    for (uint64_t row = 0; row < 1 + round % kRows; ++row) {
      const std::span<uint32_t> mask = masks.Next();
      for (size_t i = 0; i < mask.size(); ++i) {
        mask[i] = static_cast<uint32_t>(RandomBits(round * kRows + row, i, Draw::kToken));
      }
      written.emplace_back(mask.begin(), mask.end());
      there.push_back(masks.Take());
    }
    const Status status = masks.Upload();
    ASSERT_TRUE(status.ok()) << status.message();
    for (size_t row = 0; row < written.size(); ++row) {
      std::vector<uint32_t> read(written[row].size());
      device().Download(read.data(), there[row].data(), static_cast<int64_t>(4 * read.size()));
      EXPECT_EQ(read, written[row]) << "round " << round << ", row " << row;
    }
  }
  EXPECT_TRUE(device().Synchronize().ok());
}

// Allows three ids at each step, which depend on all tokens before it.
class ThreeIds : public TokenRules {
 public:
  explicit ThreeIds(uint64_t seed) : hash_(seed) {}
  static bool MayFollow(uint64_t hash, int32_t id) {
    for (uint64_t i = 0; i < 3; ++i) {
      if (IdOf(hash, i) == id) return true;
    }
    return false;
  }
  static uint64_t Next(uint64_t hash, int32_t id) {
    return RandomBits(hash, static_cast<uint64_t>(id), Draw::kToken);
  }

  bool Mask(std::span<uint32_t> mask) override {
    std::fill(mask.begin(), mask.end(), 0);
    for (uint64_t i = 0; i < 3; ++i) {
      const auto id = static_cast<uint32_t>(IdOf(hash_, i));
      mask[id / 32] |= 1u << id % 32;
    }
    return true;
  }
  void Accept(int32_t id) override { hash_ = Next(hash_, id); }

 private:
  static int32_t IdOf(uint64_t hash, uint64_t i) {
    return static_cast<int32_t>(300 + RandomBits(hash, i, Draw::kSeed) % 3000);
  }
  uint64_t hash_;
};

std::future<std::vector<int32_t>> Send(Engine& engine, Request request) {
  auto ids = std::make_shared<std::vector<int32_t>>();
  auto done = std::make_shared<std::promise<std::vector<int32_t>>>();
  request.id = engine.NextId();
  const Status status = engine.Submit(std::move(request), [ids, done](const Event& event) {
    for (const Token& token : event.tokens) ids->push_back(token.id);
    EXPECT_NE(event.finish, Finish::kError) << event.error.message();
    if (event.finish != Finish::kNone) done->set_value(*ids);
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return done->get_future();
}

Request RequestOf(int32_t number) {
  Request request;
  request.prompt = {0, 300 + number, 400 + 2 * number};
  request.max_tokens = 40;
  request.ignore_eos = true;
  request.sampling.temperature = number % 2 == 0 ? 0.0f : 1.0f;
  request.sampling.top_p = number % 4 == 1 ? 0.9f : 1.0f;
  request.sampling.top_k = number % 4 == 3 ? 2 : 0;
  request.sampling.seed = static_cast<uint64_t>(number);
  return request;
}

TEST_F(Masks, HoldForTheirRequestsAlone) {
  EngineOptions options;
  options.model_dir = Repository() + kDemoModel;
  options.device = "cuda";
  options.kv_cache_memory = int64_t{64} << 20;
  auto engine = Engine::Load(options, {});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  std::vector<std::future<std::vector<int32_t>>> answers;
  constexpr int32_t kRequests = 24;
  for (int32_t i = 0; i < kRequests; ++i) {
    Request request = RequestOf(i);
    if (i % 3 != 0) request.rules = std::make_unique<ThreeIds>(static_cast<uint64_t>(i));
    answers.push_back(Send(**engine, std::move(request)));
  }
  for (int32_t i = 0; i < kRequests; ++i) {
    const std::vector<int32_t> ids = answers[static_cast<size_t>(i)].get();
    EXPECT_EQ(ids.size(), 40u);
    if (i % 3 == 0) continue;
    auto hash = static_cast<uint64_t>(i);
    for (const int32_t id : ids) {
      ASSERT_TRUE(ThreeIds::MayFollow(hash, id)) << "request " << i << " said " << id;
      hash = ThreeIds::Next(hash, id);
    }
  }
}

}  // namespace
}  // namespace seacliff
