// The engine over a fake model: what a request gets must not depend on its company, on chunks, on
// other requests' errors or on when they are cancelled.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <future>
#include <random>

#include "engine/loop_fixture.h"

namespace seacliff {
namespace {

// Launching the prompt's step may take long.
TEST_P(EngineLoopTest, TokensDoNotWaitForALaunchWithPrompts) {
  Start(4, 64);
  std::atomic<int> told = 0;
  std::promise<void> ended;
  int steps = 0;
  std::future<Answer> prompt;
  model_->before_step = [&] {
    ++steps;
    if (steps == 5) prompt = Send(MakeRequest({4, 5, 6, 7, 8}, 1));  // it is in the sixth step
    if (steps == 6) {
      EXPECT_EQ(told, 5);
    }
  };
  const Status status = engine_->Submit(MakeRequest({1, 2, 3}, 20), [&](const Event& event) {
    told += static_cast<int>(event.tokens.size());
    if (event.finish != Finish::kNone) ended.set_value();
  });
  ASSERT_TRUE(status.ok()) << status.message();
  ended.get_future().wait();
  EXPECT_EQ(Get(std::move(prompt)).ids.size(), 1u);
  EXPECT_EQ(told, 20);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineLoopTest, testing::Bool(), ModeName);

TEST_P(EngineLoopTest, GreedyRequestGivesTheModelsTokens) {
  Start(4, 64);
  const Request request = MakeRequest({1, 2, 3}, 10);
  const Answer answer = Get(Send(request));
  EXPECT_EQ(answer.ids, Expected(request.prompt, 10, request.sampling));
  EXPECT_EQ(answer.finish, Finish::kLength);
  EXPECT_EQ(answer.events, 10);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.prompt_tokens, 3u);
  EXPECT_EQ(stats.generated_tokens, 10u);
  EXPECT_EQ(stats.steps, 10u);
  EXPECT_EQ(stats.decode_steps.count(), 9u);  // the prompt's step gave the first token
  EXPECT_GT(stats.decode_steps.seconds(), 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.cache_usage, 0);
  EXPECT_GT(stats.pages, 0);
}

// Many requests at once, prompts in chunks, few pages: the same tokens as each alone.
TEST_P(EngineLoopTest, CompanyAndChunksChangeNothing) {
  for (const int32_t step_tokens : {8, 50, 700}) {
    Start(6, step_tokens, 900, /*pages=*/20);
    std::mt19937 random(11);
    std::vector<Request> requests;
    std::vector<std::future<Answer>> answers;
    for (int i = 0; i < 30; ++i) {
      const size_t length = i % 3 == 0 ? 1 + random() % 500 : 1 + random() % 20;
      Request request =
          MakeRequest(RandomPrompt(random, length), 1 + i * 7 % 200, i % 2 == 0 ? 0.0f : 1.0f);
      request.sampling.seed = random();
      request.sampling.top_p = i % 4 == 1 ? 0.7f : 1.0f;
      request.sampling.frequency_penalty = i % 5 == 0 ? 0.3f : 0.0f;
      answers.push_back(Send(request));
      requests.push_back(std::move(request));
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      const Answer answer = Get(std::move(answers[i]));
      EXPECT_EQ(answer.ids,
                Expected(requests[i].prompt, requests[i].max_tokens, requests[i].sampling))
          << "request " << i << " in steps of " << step_tokens;
      EXPECT_EQ(answer.finish, Finish::kLength);
    }
    EXPECT_LE(model_->largest_batch.load(), step_tokens);
    EXPECT_EQ(engine_->stats().cache_usage, 0);
  }
}

TEST_P(EngineLoopTest, SeedsReproduceAndDiffer) {
  Start(8, 64);
  const auto run = [&](std::optional<uint64_t> seed) {
    Request request = MakeRequest({5, 6, 7}, 20, 1.0f);
    request.sampling.seed = seed;
    return Get(Send(request)).ids;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
  EXPECT_NE(run(std::nullopt), run(std::nullopt));
}

TEST_P(EngineLoopTest, StopIdsEndWithTheIdIncluded) {
  Start(4, 64);
  Request request = MakeRequest({1, 2, 3}, 10);
  const std::vector<int32_t> all = Expected(request.prompt, 10, request.sampling);
  request.stop_token_ids = {all[4]};
  size_t first = 0;
  while (all[first] != all[4]) ++first;

  const Answer stopped = Get(Send(request));
  EXPECT_EQ(stopped.finish, Finish::kStop);
  EXPECT_EQ(stopped.ids,
            std::vector<int32_t>(all.begin(), all.begin() + static_cast<int64_t>(first) + 1));

  request.id = engine_->NextId();
  request.ignore_eos = true;
  EXPECT_EQ(Get(Send(request)).ids, all);

  request.id = engine_->NextId();
  request.ignore_eos = false;
  request.sampling.min_tokens = 8;
  const Answer late = Get(Send(request));
  EXPECT_GE(late.ids.size(), 8u);
  for (size_t i = 0; i < 8; ++i) EXPECT_NE(late.ids[i], all[4]);
}

TEST_P(EngineLoopTest, LogprobsComeWithEveryToken) {
  Start(4, 64);
  Request request = MakeRequest({1, 2, 3}, 4);
  request.sampling.top_logprobs = 2;
  for (const Token& token : Get(Send(request)).tokens) {
    ASSERT_EQ(token.top.size(), 2u);
    EXPECT_EQ(token.top[0].id, token.id);
    EXPECT_EQ(token.top[0].logprob, token.logprob);
    EXPECT_LE(token.top[1].logprob, token.top[0].logprob);
  }
}

// Each token of a prompt has the logprob that it would have been sampled with, whatever else runs,
// and although its sequence is preempted.
TEST_P(EngineLoopTest, PromptsTellTheirLogprobs) {
  Start(6, 50, 900, /*pages=*/9);
  std::mt19937 random(12);
  std::vector<Request> requests;
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 24; ++i) {
    Request request = MakeRequest(RandomPrompt(random, 1 + random() % 300), 1 + i * 37 % 500);
    request.prompt_logprobs = i % 3 == 0 ? -1 : i % 3;
    request.sampling.repetition_penalty = 1.3f;  // of what is sampled alone
    request.sampling.logit_bias = {{3, 5.0f}};
    answers.push_back(Send(request));
    requests.push_back(std::move(request));
  }
  std::vector<float> logits(FakeModel::kVocab);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Request& request = requests[i];
    const Answer answer = Get(std::move(answers[i]));
    ASSERT_EQ(answer.finish, Finish::kLength) << answer.error.message();
    ASSERT_EQ(answer.prompt.size(), request.prompt_logprobs < 0 ? 0 : request.prompt.size() - 1);
    for (size_t t = 0; t < answer.prompt.size(); ++t) {
      const Token& token = answer.prompt[t];
      FakeModel::LogitsOf(std::span(request.prompt).first(t + 1), logits.data());
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      const int32_t id = request.prompt[t + 1];
      ASSERT_EQ(token.id, id);
      ASSERT_NEAR(token.logprob, logits[static_cast<size_t>(id)] - std::log(sum), 1e-5);
      ASSERT_EQ(token.top.size(), static_cast<size_t>(request.prompt_logprobs));
      EXPECT_EQ(logits[static_cast<size_t>(token.top[0].id)],
                *std::max_element(logits.begin(), logits.end()));
    }
  }
  EXPECT_GT(engine_->stats().preemptions, 0u);
}

TEST_P(EngineLoopTest, SubmitNamesWhatIsWrong) {
  Start(4, 64, /*max_len=*/100);
  const auto error = [&](const auto& change) {
    Request request = MakeRequest({1, 2, 3}, 4);
    change(request);
    const Status status = engine_->Submit(std::move(request), [](const Event&) { FAIL(); });
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.message();
    return status.message();
  };
  using R = Request&;
  EXPECT_NE(error([](R r) { r.prompt.clear(); }).find("prompt is empty"), std::string::npos);
  EXPECT_NE(error([](R r) { r.prompt[1] = FakeModel::kVocab; }).find("97"), std::string::npos);
  EXPECT_NE(error([](R r) { r.prompt[1] = -1; }).find("-1"), std::string::npos);
  EXPECT_EQ(error([](R r) {
              r.prompt.assign(100, 1);
            }).find("This model's maximum context length is 100 tokens"),
            0u);
  EXPECT_NE(error([](R r) { r.max_tokens = 0; }).find("max_tokens"), std::string::npos);
  EXPECT_NE(error([](R r) { r.stop_token_ids = {1000}; }).find("stop_token_ids"),
            std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.temperature = -1; }).find("temperature"), std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.temperature = NAN; }).find("temperature"),
            std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.top_p = 0; }).find("top_p"), std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.top_k = -2; }).find("top_k"), std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.min_p = 1.5f; }).find("min_p"), std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.repetition_penalty = 0; }).find("repetition_penalty"),
            std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.presence_penalty = 3; }).find("presence_penalty"),
            std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.frequency_penalty = -3; }).find("frequency_penalty"),
            std::string::npos);
  EXPECT_NE(error([](R r) {
              r.sampling.logit_bias = {{97, 1.0f}};
            }).find("logit_bias"),
            std::string::npos);
  EXPECT_NE(error([](R r) {
              r.sampling.logit_bias = {{1, NAN}};
            }).find("logit_bias"),
            std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.min_tokens = -1; }).find("min_tokens"), std::string::npos);
  EXPECT_NE(error([](R r) { r.sampling.top_logprobs = -2; }).find("top_logprobs"),
            std::string::npos);
}

TEST_P(EngineLoopTest, MaxTokensIsClampedToTheContext) {
  Start(4, 64, /*max_len=*/100);
  const Answer answer = Get(Send(MakeRequest(std::vector<int32_t>(99, 3), 1000)));
  EXPECT_EQ(answer.ids.size(), 1u);
  EXPECT_EQ(answer.finish, Finish::kLength);
}

TEST_P(EngineLoopTest, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  Start(4, 64);
  const Answer poisoned = Get(Send(MakeRequest({1, FakeModel::kPoisonId, 3}, 4)));
  EXPECT_EQ(poisoned.finish, Finish::kError);
  EXPECT_NE(poisoned.error.message().find("poisoned"), std::string::npos);
  EXPECT_TRUE(poisoned.ids.empty());
  const Request good = MakeRequest({1, 2, 3}, 4);
  EXPECT_EQ(Get(Send(good)).ids, Expected(good.prompt, 4, good.sampling));
  EXPECT_EQ(engine_->stats().cache_usage, 0);
}

TEST_P(EngineLoopTest, ALostDeviceEndsAllRequestsAndRefusesFurtherOnes) {
  Start(/*seqs=*/2, 64);
  const auto gate = Hold();
  auto first = Send(MakeRequest({1, FakeModel::kFaultId, 3}, 4));
  auto second = Send(MakeRequest({1, 2}, 1500));
  auto waiting = Send(MakeRequest({3}, 4));
  gate->set_value();
  for (auto* answer : {&first, &second, &waiting}) {
    const Answer lost = Get(std::move(*answer));
    EXPECT_EQ(lost.finish, Finish::kError);
    EXPECT_EQ(lost.error.code(), Code::kUnavailable);
  }
  const Status refused = engine_->Submit(MakeRequest({1}, 4), [](const Event&) {});
  EXPECT_EQ(refused.code(), Code::kUnavailable);
  EXPECT_EQ(engine_->stats().running, 0);
  engine_.reset();
  EXPECT_EQ(lost_, 1);
}

TEST_P(EngineLoopTest, NanLogitsEndTheirRequestAlone) {
  Start(4, 64);
  const auto gate = Hold();
  const Request first = MakeRequest({9}, 1);  // so that the two below share a step
  const Request good = MakeRequest({1, 2, 3}, 6);
  auto first_answer = Send(first);
  auto bad_answer = Send(MakeRequest({1, 2, FakeModel::kNanId}, 6));
  auto good_answer = Send(good);
  gate->set_value();
  EXPECT_EQ(Get(std::move(bad_answer)).finish, Finish::kError);
  EXPECT_EQ(Get(std::move(good_answer)).ids, Expected(good.prompt, 6, good.sampling));
  EXPECT_EQ(Get(std::move(first_answer)).finish, Finish::kLength);
}

TEST_P(EngineLoopTest, CancelEndsQueuedAndRunningRequests) {
  Start(/*seqs=*/1, 64);
  const auto gate = Hold();
  const Request running = MakeRequest({1}, 1500);
  const Request queued = MakeRequest({2}, 10);
  auto running_answer = Send(running);
  auto queued_answer = Send(queued);
  engine_->Cancel(queued.id);
  engine_->Cancel(running.id);
  engine_->Cancel(12345);  // unknown
  gate->set_value();
  EXPECT_EQ(Get(std::move(running_answer)).finish, Finish::kCancelled);
  const Answer answer = Get(std::move(queued_answer));
  EXPECT_EQ(answer.finish, Finish::kCancelled);
  EXPECT_TRUE(answer.ids.empty());
  EXPECT_LE(model_->steps.load(), 2);
  EXPECT_EQ(engine_->stats().cache_usage, 0);
  EXPECT_EQ(engine_->stats().running, 0);
}

TEST_P(EngineLoopTest, TheQueueIsBoundedAndIdsAreUnique) {
  Start(/*seqs=*/1, 64, 2000, 0, /*max_waiting=*/2);
  const auto gate = Hold();
  const Request request = MakeRequest({1}, 1);
  auto first = Send(request);
  EXPECT_EQ(engine_->Submit(Copy(request), [](const Event&) { FAIL(); }).code(),
            Code::kInvalidArgument);
  while (engine_->stats().running == 0) std::this_thread::yield();
  EXPECT_EQ(engine_->stats().waiting, 0);
  std::vector<std::future<Answer>> answers;
  Status status;
  for (int i = 0; i < 4 && status.ok(); ++i) {
    auto done = std::make_shared<std::promise<Answer>>();
    answers.push_back(done->get_future());
    status = engine_->Submit(MakeRequest({2}, 1), [done](const Event& event) {
      Answer answer;
      answer.finish = event.finish;
      done->set_value(answer);
    });
  }
  EXPECT_EQ(status.code(), Code::kExhausted);
  answers.pop_back();  // the refused one
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(engine_->stats().waiting, 2);
  gate->set_value();
  for (auto& answer : answers) EXPECT_EQ(Get(std::move(answer)).finish, Finish::kLength);
  EXPECT_EQ(Get(std::move(first)).finish, Finish::kLength);
}

TEST_P(EngineLoopTest, TheDestructorCancelsWhatIsLive) {
  Start(/*seqs=*/2, 64);
  std::vector<std::future<Answer>> answers;
  const auto gate = Hold();
  for (int i = 0; i < 5; ++i) answers.push_back(Send(MakeRequest({i + 1}, 1900)));
  std::thread opener([&] { gate->set_value(); });
  engine_.reset();
  opener.join();
  for (auto& answer : answers) EXPECT_EQ(Get(std::move(answer)).finish, Finish::kCancelled);
}

TEST_P(EngineLoopTest, ASinkMaySubmitAgain) {
  Start(2, 64);
  std::promise<void> done;
  int rounds = 0;
  const RequestId id = engine_->NextId();
  std::function<void(const Event&)> sink = [&](const Event& event) {
    if (event.finish == Finish::kNone) return;
    if (++rounds == 5) {
      done.set_value();
      return;
    }
    Request again = MakeRequest({rounds}, 2);
    again.id = id;
    EXPECT_TRUE(engine_->Submit(std::move(again), sink).ok());
  };
  Request request = MakeRequest({7}, 2);
  request.id = id;
  ASSERT_TRUE(engine_->Submit(Copy(request), sink).ok());
  EXPECT_EQ(done.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
}

// A cancel that comes too late must not hit the next request of the same id.
TEST_P(EngineLoopTest, ALateCancelIsForgotten) {
  Start(2, 64);
  Request request = MakeRequest({7}, 1);
  model_->before_step = [this, id = request.id] { engine_->Cancel(id); };
  std::promise<Finish> done;
  const EventSink second = [&](const Event& event) { done.set_value(event.finish); };
  const EventSink first = [&](const Event& event) {
    EXPECT_EQ(event.finish, Finish::kLength);
    model_->before_step = nullptr;
    EXPECT_TRUE(engine_->Submit(Copy(request), second).ok());
  };
  ASSERT_TRUE(engine_->Submit(Copy(request), first).ok());
  EXPECT_EQ(done.get_future().get(), Finish::kLength);
}

// ---- the prefix cache ----

TEST_P(EngineLoopTest, ATurnGivesTheSameTokensFromTheCache) {
  Start(4, 64);
  std::mt19937 random(5);
  Request request = MakeRequest(RandomPrompt(random, 500), 200);
  std::vector<int32_t> history = request.prompt;
  for (int turn = 0; turn < 4; ++turn) {
    request.id = engine_->NextId();
    request.prompt = history;
    const int64_t before = model_->tokens;
    const Answer answer = Get(Send(request));
    EXPECT_EQ(answer.ids, Expected(history, 200, request.sampling)) << "turn " << turn;
    const int64_t computed = model_->tokens - before - 199;
    EXPECT_EQ(answer.cached_tokens + computed, static_cast<int64_t>(history.size()));
    if (turn > 0) {
      EXPECT_LE(computed, 40 + 1 + 127);
    }
    history.insert(history.end(), answer.ids.begin(), answer.ids.end());
    for (int i = 0; i < 40; ++i) history.push_back(static_cast<int32_t>(random() % 90));
  }
  EXPECT_GT(model_->row_copies, 3);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.cache_usage, 0);
  EXPECT_GT(stats.cached_pages, 0);
  EXPECT_GT(stats.snapshots, 0);
  EXPECT_EQ(stats.queried_tokens, 500u + 740u + 980u + 1220u);
  EXPECT_EQ(stats.hit_tokens + stats.prompt_tokens, stats.queried_tokens);
}

TEST_P(EngineLoopTest, SaltsDoNotShare) {
  Start(4, 64);
  std::mt19937 random(5);
  Request request = MakeRequest(RandomPrompt(random, 500), 2);
  EXPECT_EQ(Get(Send(request)).cached_tokens, 0);
  const auto again = [&](const char* salt) {
    request.id = engine_->NextId();
    request.cache_salt = salt;
    return Get(Send(request)).cached_tokens;
  };
  EXPECT_EQ(again("a"), 0);
  EXPECT_EQ(again("a"), 384);
  EXPECT_EQ(again(""), 384);
  EXPECT_EQ(engine_->stats().missed_tokens[static_cast<size_t>(CacheMiss::kSalt)], 384u);
}

// Few pages, long answers and prompts that share: who is preempted gives the same tokens.
TEST_P(EngineLoopTest, PreemptionAndEvictionChangeNothing) {
  Start(6, 64, 900, /*pages=*/12);
  std::mt19937 random(17);
  const std::vector<int32_t> shared = RandomPrompt(random, 300);
  std::vector<Request> requests;
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 30; ++i) {
    std::vector<int32_t> prompt(shared.begin(),
                                shared.begin() + static_cast<int64_t>(random() % 300));
    const std::vector<int32_t> more = RandomPrompt(random, 1 + random() % 50);
    prompt.insert(prompt.end(), more.begin(), more.end());
    Request request = MakeRequest(prompt, 300, i % 2 == 0 ? 0.0f : 1.0f);
    request.sampling.seed = random();
    request.priority = i % 5;
    answers.push_back(Send(request));
    requests.push_back(std::move(request));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(Get(std::move(answers[i])).ids,
              Expected(requests[i].prompt, 300, requests[i].sampling))
        << "request " << i;
  }
  EXPECT_GT(engine_->stats().preemptions, 0u);
  EXPECT_GT(engine_->stats().evicted_pages, 0u);
  EXPECT_GT(engine_->stats().hit_tokens, 0u);
}

// Several threads submit and cancel at once; every request gets exactly one last event.
TEST_P(EngineLoopTest, ManyThreadsAtOnce) {
  Start(8, 64, 300);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(t);
      std::vector<std::future<Answer>> answers;
      for (int i = 0; i < 50; ++i) {
        const Request request = MakeRequest(RandomPrompt(random, 1 + random() % 150), 30);
        answers.push_back(Send(request));
        if (random() % 3 == 0) engine_->Cancel(request.id);
      }
      for (auto& answer : answers) EXPECT_NE(Get(std::move(answer)).finish, Finish::kNone);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine_->stats().running + engine_->stats().waiting, 0);
  EXPECT_EQ(engine_->stats().cache_usage, 0);
}

}  // namespace
}  // namespace seacliff
