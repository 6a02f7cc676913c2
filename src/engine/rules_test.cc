// Requests with rules of what they may say: theirs hold for them alone, in any company, and are
// told every token once; they end and fail by themselves.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "engine/loop_fixture.h"
#include "engine/token_masks.h"

namespace seacliff {
namespace {

void Allow(std::span<uint32_t> mask, int32_t id) {
  mask[static_cast<size_t>(id) / 32] |= 1u << id % 32;
}

// What may come next depends on all that came before, so a token that is told twice, late or never
// changes what follows. Sometimes everything may.
class HistoryRules : public TokenRules {
 public:
  explicit HistoryRules(uint64_t seed) : hash_(seed) {}

  bool Mask(std::span<uint32_t> mask) override {
    if (hash_ % 5 == 0) return false;
    std::fill(mask.begin(), mask.end(), 0);
    for (uint64_t i = 0; i < 8; ++i) Allow(mask, static_cast<int32_t>((hash_ >> 4 * i) % 90));
    mask.back() |= ~1u;  // no ids
    return true;
  }
  void Accept(int32_t id) override {
    hash_ = (hash_ ^ static_cast<uint64_t>(id + 1)) * 0x9E3779B97F4A7C15;
    hash_ ^= hash_ >> 29;
  }

 private:
  uint64_t hash_;
};

// Step n allows list n, and the last one is all that ever comes after it.
class ListRules : public TokenRules {
 public:
  explicit ListRules(std::vector<std::vector<int32_t>> lists) : lists_(std::move(lists)) {}
  ~ListRules() override {
    if (on_end) on_end();
  }

  bool Mask(std::span<uint32_t> mask) override {
    if (on_mask) on_mask();
    std::fill(mask.begin(), mask.end(), 0);
    for (const int32_t id : lists_[std::min(accepted.size(), lists_.size() - 1)]) Allow(mask, id);
    if (accepted.size() == fail_mask_at) error_ = Internal("no mask today");
    return true;
  }
  void Accept(int32_t id) override {
    accepted.push_back(id);
    if (accepted.size() == fail_accept_at) error_ = InvalidArgument("not this token");
  }
  bool done() const override { return accepted.size() >= done_at; }
  Status error() const override { return error_; }

  std::vector<int32_t> accepted;
  size_t done_at = ~size_t{0}, fail_accept_at = ~size_t{0}, fail_mask_at = ~size_t{0};
  std::function<void()> on_mask, on_end;

 private:
  const std::vector<std::vector<int32_t>> lists_;
  Status error_;
};

constexpr int32_t kEnd = 93;

class RulesTest : public EngineLoopTest {
 protected:
  // A request with ListRules, which `change` may change.
  template <typename F>
  Request Listed(std::vector<std::vector<int32_t>> lists, const F& change) {
    auto rules = std::make_unique<ListRules>(std::move(lists));
    change(*rules);
    Request request = MakeRequest({1, 2, 3}, 20, 1.0f);
    request.stop_token_ids = {kEnd};
    request.rules = std::move(rules);
    return request;
  }
  Request Listed(std::vector<std::vector<int32_t>> lists) {
    return Listed(std::move(lists), [](ListRules&) {});
  }
};

INSTANTIATE_TEST_SUITE_P(Models, RulesTest, testing::Bool(), ModeName);

// Few pages, prompts that share, in chunks; a third has no rules; some run in the background.
TEST_P(RulesTest, EveryRequestKeepsItsOwnInAnyCompanyAndThroughPreemption) {
  Start(6, 64, 900, /*pages=*/12);
  std::mt19937 random(29);
  const std::vector<int32_t> shared = RandomPrompt(random, 200);
  std::vector<Request> requests;
  std::vector<std::future<Answer>> answers;
  const auto gate = Hold();
  for (uint64_t i = 0; i < 30; ++i) {
    std::vector<int32_t> prompt(shared.begin(),
                                shared.begin() + static_cast<int64_t>(1 + random() % 199));
    if (i % 6 == 1) prompt = requests.back().prompt;  // as choices of one request have it
    Request request = MakeRequest(prompt, 300, i % 2 == 0 ? 0.0f : 1.0f);
    request.sampling.seed = random();
    request.sampling.frequency_penalty = i % 5 == 0 ? 0.4f : 0.0f;
    request.priority = static_cast<int32_t>(i % 4);
    request.background = i % 10 == 9;
    requests.push_back(Copy(request));
    if (i % 3 != 2) request.rules = std::make_unique<HistoryRules>(i);
    answers.push_back(Send(std::move(request)));
  }
  gate->set_value();
  for (uint64_t i = 0; i < requests.size(); ++i) {
    HistoryRules rules(i);
    EXPECT_EQ(
        Get(std::move(answers[i])).ids,
        Expected(requests[i].prompt, 300, requests[i].sampling, i % 3 != 2 ? &rules : nullptr))
        << "request " << i;
  }
  const EngineStats stats = engine_->stats();
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_GT(stats.rules_seconds, 0);
}

TEST_P(RulesTest, AListGivesExactlyItsIds) {
  Start(8, 64);
  std::vector<std::future<Answer>> answers;
  for (int32_t i = 0; i < 20; ++i) {
    answers.push_back(Send(Listed({{i}, {2 * i, 2 * i + 1}, {i, 60, 88}, {kEnd}})));
  }
  for (int32_t i = 0; i < 20; ++i) {
    const Answer answer = Get(std::move(answers[static_cast<size_t>(i)]));
    ASSERT_EQ(answer.ids.size(), 4u);
    EXPECT_EQ(answer.ids[0], i);
    EXPECT_EQ(answer.ids[1] / 2, i);
    EXPECT_TRUE((std::set<int32_t>{i, 60, 88}).contains(answer.ids[2])) << answer.ids[2];
    EXPECT_EQ(answer.ids[3], kEnd);
    EXPECT_EQ(answer.finish, Finish::kStop);
  }
}

// Each mask is asked for while the step that needs it is under way, and with all tokens told.
TEST_P(RulesTest, MasksAreMadeWhileTheModelRuns) {
  Start(2, 2);
  std::vector<int64_t> steps;
  std::vector<size_t> told;
  Request request = Listed({{5}}, [&](ListRules& rules) {
    rules.on_mask = [&, this] {
      steps.push_back(model_->steps);
      told.push_back(rules.accepted.size());
    };
  });
  request.max_tokens = 4;
  EXPECT_EQ(Get(Send(std::move(request))).ids, (std::vector<int32_t>{5, 5, 5, 5}));
  EXPECT_EQ(steps, (std::vector<int64_t>{2, 3, 4, 5}));  // the prompt takes two
  EXPECT_EQ(told, (std::vector<size_t>{0, 1, 2, 3}));
}

TEST_P(RulesTest, TheyWinOverMinTokensWhereTheyLeaveNothingElse) {
  Start(4, 64);
  Request only = Listed({{7}, {kEnd}});
  Request other = Listed({{7}, {kEnd, 8}});
  only.sampling.min_tokens = other.sampling.min_tokens = 10;
  EXPECT_EQ(Get(Send(std::move(only))).ids, (std::vector<int32_t>{7, kEnd}));
  const std::vector<int32_t> ids = Get(Send(std::move(other))).ids;
  ASSERT_GE(ids.size(), 10u);
  for (size_t i = 1; i < 10; ++i) EXPECT_EQ(ids[i], 8);
}

TEST_P(RulesTest, WhatMayNotGoOnEndsAsStopped) {
  Start(4, 64);
  auto without = Send(MakeRequest({4, 5}, 20));
  const Answer answer = Get(Send(Listed({{7}, {8}}, [](ListRules& rules) { rules.done_at = 3; })));
  EXPECT_EQ(answer.ids, (std::vector<int32_t>{7, 8, 8}));
  EXPECT_EQ(answer.finish, Finish::kStop);
  // As with an end token that does not stop the request.
  Request on = Listed({{7}, {kEnd}}, [](ListRules& rules) { rules.done_at = 2; });
  on.ignore_eos = true;
  EXPECT_EQ(Get(Send(std::move(on))).ids, (std::vector<int32_t>{7, kEnd}));
  // At once.
  const Answer nothing = Get(Send(Listed({{7}}, [](ListRules& rules) { rules.done_at = 0; })));
  EXPECT_TRUE(nothing.ids.empty());
  EXPECT_EQ(nothing.finish, Finish::kStop);
  EXPECT_EQ(nothing.events, 1);
  EXPECT_EQ(Get(std::move(without)).ids.size(), 20u);
  EXPECT_EQ(engine_->stats().cache_usage, 0);
}

// Where it ends at a block's boundary, what it leaves in the cache is whole.
TEST_P(RulesTest, AnEndedRequestLeavesARightPrefix) {
  Start(4, 64);
  std::mt19937 random(3);
  Request request = MakeRequest(RandomPrompt(random, 250), 100);
  auto rules = std::make_unique<ListRules>(std::vector<std::vector<int32_t>>{{7}, {8, 9}});
  rules->done_at = 6;
  std::vector<int32_t> prompt = request.prompt;
  request.rules = std::move(rules);
  const std::vector<int32_t> ids = Get(Send(std::move(request))).ids;
  ASSERT_EQ(ids.size(), 6u);
  prompt.insert(prompt.end(), ids.begin(), ids.end());
  prompt.push_back(3);
  const Request next = MakeRequest(prompt, 30);
  const Answer answer = Get(Send(next));
  EXPECT_EQ(answer.cached_tokens, 256);
  EXPECT_EQ(answer.ids, Expected(prompt, 30, next.sampling));
}

TEST_P(RulesTest, TheirErrorsAreOfTheirRequestsAlone) {
  Start(6, 64);
  const auto gate = Hold();
  const Request good = MakeRequest({9, 9}, 12);
  auto good_answer = Send(good);
  auto listed = Send(Listed({{5}}));
  auto mask = Send(Listed({{5}}, [](ListRules& rules) { rules.fail_mask_at = 2; }));
  auto accept = Send(Listed({{5}}, [](ListRules& rules) { rules.fail_accept_at = 3; }));
  auto empty = Send(Listed({{5}, {}}));
  gate->set_value();

  const Answer at_mask = Get(std::move(mask));
  EXPECT_EQ(at_mask.finish, Finish::kError);
  EXPECT_EQ(at_mask.error.message(), "no mask today");
  EXPECT_EQ(at_mask.ids.size(), 2u);
  const Answer at_accept = Get(std::move(accept));
  EXPECT_EQ(at_accept.finish, Finish::kError);
  EXPECT_EQ(at_accept.error.code(), Code::kInvalidArgument);
  EXPECT_EQ(at_accept.ids.size(), 3u);
  const Answer at_empty = Get(std::move(empty));
  EXPECT_EQ(at_empty.finish, Finish::kError);
  EXPECT_NE(at_empty.error.message().find("leave no token"), std::string::npos);
  EXPECT_EQ(Get(std::move(listed)).ids, std::vector<int32_t>(20, 5));
  EXPECT_EQ(Get(std::move(good_answer)).ids, Expected(good.prompt, 12, good.sampling));
  EXPECT_EQ(engine_->stats().cache_usage, 0);
}

TEST_P(RulesTest, TheyGoWithTheirRequests) {
  Start(1, 64, 2000, 0, /*max_waiting=*/2);
  std::atomic<int> alive = 0;
  const auto counted = [&](int32_t max_tokens) {
    Request request = Listed({{5}}, [&](ListRules& rules) {
      ++alive;
      rules.on_end = [&alive] { --alive; };
    });
    request.max_tokens = max_tokens;
    return request;
  };
  EXPECT_EQ(Get(Send(counted(3))).ids.size(), 3u);

  const auto gate = Hold();
  Request running = counted(1900), queued = counted(1900);
  const RequestId ids[] = {running.id, queued.id};
  auto first = Send(std::move(running));
  auto second = Send(std::move(queued));
  EXPECT_FALSE(engine_->Submit(counted(0), [](const Event&) { FAIL(); }).ok());
  for (int i = 0; alive != 2 && i < 1000; ++i) {  // the first one's end when its answer is out
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(alive, 2);
  for (const RequestId id : ids) engine_->Cancel(id);
  gate->set_value();
  EXPECT_EQ(Get(std::move(first)).finish, Finish::kCancelled);
  EXPECT_EQ(Get(std::move(second)).finish, Finish::kCancelled);

  auto last = Send(counted(1900));
  engine_.reset();
  EXPECT_EQ(Get(std::move(last)).finish, Finish::kCancelled);
  EXPECT_EQ(alive, 0);
}

TEST(TokenMasksTest, EveryMaskHasARoomOfItsOwn) {
  TokenMasks masks = TokenMasks::Make(nullptr, 3, 70).value();
  EXPECT_EQ(3 * MaskBytes(70), 36);
  for (int round = 0; round < 2; ++round) {
    masks.Clear();
    std::vector<std::span<const uint32_t>> taken;
    for (uint32_t i = 0; i < 3; ++i) {
      const std::span<uint32_t> mask = masks.Next();
      ASSERT_EQ(mask.size(), 3u);
      std::fill(mask.begin(), mask.end(), i);
      EXPECT_EQ(masks.Next().data(), mask.data());  // until it is taken
      taken.push_back(masks.Take());
    }
    EXPECT_TRUE(masks.Upload().ok());
    for (uint32_t i = 0; i < 3; ++i) {
      EXPECT_EQ(std::vector<uint32_t>(taken[i].begin(), taken[i].end()),
                std::vector<uint32_t>(3, i));
    }
  }
}

TEST(TokenMasksTest, AllowsOthersLooksAtIdsAlone) {
  std::vector<uint32_t> mask(3, 0);
  mask[2] = ~0u << 6;  // beyond 70 ids
  EXPECT_FALSE(AllowsOthers(mask, 70, {}));
  Allow(mask, 33);
  Allow(mask, 69);
  const std::vector<int32_t> both = {69, 33}, one = {33, 4};
  EXPECT_TRUE(AllowsOthers(mask, 70, {}));
  EXPECT_TRUE(AllowsOthers(mask, 70, one));
  EXPECT_FALSE(AllowsOthers(mask, 70, both));
}

}  // namespace
}  // namespace seacliff
