// The engine when things go wrong: a step that fails or hangs, and cancels, at each moment of a
// run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "engine/loop_fixture.h"

namespace seacliff {
namespace {

class FaultTest : public EngineLoopTest {
 protected:
  // Six requests of which three run at once, on few pages; `during(k)` is called in step k. Those
  // that end well have the right tokens, the others a beginning of them, and nothing is left.
  // Returns how many ended in which way.
  std::map<Finish, int> RunSix(const std::function<void(int64_t)>& during) {
    Start(/*seqs=*/3, 100, 900, /*pages=*/9);
    if (late_) model_->late_faults = true;
    std::mt19937 random(23);
    const std::vector<int32_t> shared = RandomPrompt(random, 140);
    std::vector<Request> requests;
    for (int i = 0; i < 6; ++i) {
      std::vector<int32_t> prompt = RandomPrompt(random, 30 + 40 * static_cast<size_t>(i));
      if (i % 2 == 0) prompt.insert(prompt.begin(), shared.begin(), shared.end());
      requests.push_back(MakeRequest(std::move(prompt), 20));
    }
    ids_.clear();
    for (const Request& request : requests) ids_.push_back(request.id);
    model_->before_step = [&] { during(model_->steps); };
    std::vector<std::future<Answer>> answers;
    for (const Request& request : requests) answers.push_back(Send(request));
    std::map<Finish, int> ends;
    for (size_t i = 0; i < requests.size(); ++i) {
      const Answer answer = Get(std::move(answers[i]));
      ++ends[answer.finish];
      std::vector<int32_t> right = Expected(requests[i].prompt, 20, requests[i].sampling);
      if (answer.finish != Finish::kLength) {
        EXPECT_LT(answer.ids.size(), right.size());
        right.resize(answer.ids.size());
      }
      if (answer.finish == Finish::kError) {
        EXPECT_NE(answer.error.message().find("injected"), std::string::npos);
      }
      EXPECT_EQ(answer.ids, right) << "request " << i;
    }
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.running + stats.waiting, 0);
    EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.pages);
    steps_ = model_->steps;
    engine_.reset();
    return ends;
  }

  void WaitDescribed(const char* text) const {
    while (engine_->Describe().find(text) == std::string::npos) std::this_thread::yield();
  }

  bool late_ = false;
  int64_t steps_ = 0;
  std::vector<RequestId> ids_;
};
INSTANTIATE_TEST_SUITE_P(Models, FaultTest, testing::Bool(), ModeName);

TEST_P(FaultTest, AStepThatFailsEndsItsRequestsAlone) {
  const std::map<Finish, int> well = RunSix([](int64_t) {});
  EXPECT_EQ(well.at(Finish::kLength), 6);
  const int64_t steps = steps_;
  for (const bool late : {false, true}) {
    late_ = late;
    for (int64_t bad = 0; bad < steps; ++bad) {
      SCOPED_TRACE(bad);
      std::map<Finish, int> ends = RunSix([&](int64_t step) {
        model_->fault = [=] { return step == bad ? Internal("injected") : OkStatus(); };
      });
      // A run is shorter without those that ended.
      if (bad < steps / 2) {
        EXPECT_GE(ends[Finish::kError], 1);
      }
      EXPECT_LE(ends[Finish::kError], 3);
      EXPECT_EQ(ends[Finish::kError] + ends[Finish::kLength], 6);
      if (HasFailure()) return;
    }
  }
}

TEST_P(FaultTest, CancelsAtEachMoment) {
  (void)RunSix([](int64_t) {});
  const int64_t steps = steps_;
  for (int64_t moment = 0; moment < steps; ++moment) {
    SCOPED_TRACE(moment);
    std::map<Finish, int> ends = RunSix([&](int64_t step) {
      if (step != moment) return;
      engine_->Cancel(ids_[0]);
      engine_->Cancel(ids_[3]);
    });
    EXPECT_EQ(ends[Finish::kCancelled] + ends[Finish::kLength], 6);
    EXPECT_LE(ends[Finish::kCancelled], 2);
    if (moment == 0) {
      EXPECT_EQ(ends[Finish::kCancelled], 2);
    }
    if (HasFailure()) return;
  }
}

TEST_P(FaultTest, AStepThatHangsIsDescribed) {
  Start(4, 64);
  auto gate = Hold();
  const Request request = MakeRequest({1, 2, 3}, 3);
  auto answer = Send(request);
  WaitDescribed(GetParam() ? "launching a step" : "running a step");
  const std::string described = engine_->Describe();
  EXPECT_NE(described.find(fmt::format("request {}: 3 tokens from position 0", request.id)),
            std::string::npos)
      << described;
  EXPECT_EQ(engine_->stats().steps, 0u);
  EXPECT_TRUE(engine_->stats().first_of_size);
  gate->set_value();
  EXPECT_EQ(Get(std::move(answer)).ids, Expected(request.prompt, 3, request.sampling));
  WaitDescribed("no step is under way");
  EXPECT_FALSE(engine_->stats().first_of_size);

  // A size that has run is not the first of its size.
  gate = Hold();
  answer = Send(MakeRequest({1, 2, 3}, 3));
  while (engine_->stats().running == 0) std::this_thread::yield();
  WaitDescribed(GetParam() ? "launching a step" : "running a step");
  EXPECT_FALSE(engine_->stats().first_of_size);
  gate->set_value();
  (void)Get(std::move(answer));
}

// Who comes while a step runs is queued, and told apart from who runs.
TEST_P(FaultTest, RequestsThatComeWhileAStepHangsAreServedAfterIt) {
  Start(/*seqs=*/1, 64);
  const auto gate = Hold();
  const Request first = MakeRequest({5}, 4), second = MakeRequest({6}, 4);
  auto first_answer = Send(first);
  WaitDescribed(GetParam() ? "launching a step" : "running a step");
  auto second_answer = Send(second);
  EXPECT_EQ(engine_->stats().waiting + engine_->stats().running, 2);
  gate->set_value();
  EXPECT_EQ(Get(std::move(first_answer)).ids, Expected(first.prompt, 4, first.sampling));
  EXPECT_EQ(Get(std::move(second_answer)).ids, Expected(second.prompt, 4, second.sampling));
}

}  // namespace
}  // namespace seacliff
