// The engine over a fake model, for its tests: starting it, sending requests, and what they must be
// answered with.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine_loop.h"
#include "engine/fake_model.h"

namespace seacliff {

// What a request was given.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<Token> tokens, prompt;
  Finish finish = Finish::kNone;
  Status error;
  int events = 0;
  int32_t cached_tokens = 0;
};

// With a model that runs by itself (the parameter), and with one that does not.
class EngineLoopTest : public testing::TestWithParam<bool> {
 protected:
  void Start(int32_t seqs, int32_t step_tokens, int32_t max_len = 2000, int32_t pages = 0,
             int32_t max_waiting = 1024) {
    EngineLoopOptions options;
    options.max_model_len = max_len;
    options.max_num_seqs = seqs;
    options.max_num_batched_tokens = step_tokens;
    options.max_waiting = max_waiting;
    const CacheLimits limits = {.max_num_seqs = seqs,
                                .max_num_batched_tokens = step_tokens,
                                .max_model_len = max_len,
                                .max_positions = max_len};
    options.cache = SizeCache(limits, {1, 1, 1})->size;
    if (pages != 0) options.cache.compressed_pages = pages;
    options.on_lost = [this](const Status&) { ++lost_; };
    auto model = std::make_unique<FakeModel>(options.cache);
    model_ = model.get();
    model_->ahead = GetParam();
    TokenMasks masks = TokenMasks::Make(nullptr, seqs, FakeModel::kVocab).value();
    engine_ = std::make_unique<EngineLoop>(std::move(model), std::move(masks), options);
  }

  // Holds the engine before every step until the returned promise is set.
  std::shared_ptr<std::promise<void>> Hold() {
    auto gate = std::make_shared<std::promise<void>>();
    std::shared_future<void> open = gate->get_future().share();
    model_->before_step = [open] { open.wait(); };
    return gate;
  }

  Request MakeRequest(std::vector<int32_t> prompt, int32_t max_tokens, float temperature = 0) {
    Request request;
    request.id = engine_->NextId();
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = temperature;
    return request;
  }

  // The same again, but for its rules.
  static Request Copy(const Request& from) {
    Request to;
    to.id = from.id;
    to.prompt = from.prompt;
    to.max_tokens = from.max_tokens;
    to.stop_token_ids = from.stop_token_ids;
    to.ignore_eos = from.ignore_eos;
    to.sampling = from.sampling;
    to.prompt_logprobs = from.prompt_logprobs;
    to.priority = from.priority;
    to.cache_salt = from.cache_salt;
    to.background = from.background;
    return to;
  }

  std::future<Answer> Send(const Request& request) { return Send(Copy(request)); }
  std::future<Answer> Send(Request&& request) {
    auto answer = std::make_shared<Answer>();
    auto done = std::make_shared<std::promise<Answer>>();
    const RequestId id = request.id;
    const Status status =
        engine_->Submit(std::move(request), [answer, done, id](const Event& event) {
          EXPECT_EQ(event.id, id);
          EXPECT_EQ(answer->finish, Finish::kNone) << "an event after the last";
          ++answer->events;
          EXPECT_TRUE(event.prompt.empty() || answer->tokens.empty());
          answer->prompt.insert(answer->prompt.end(), event.prompt.begin(), event.prompt.end());
          for (const Token& token : event.tokens) {
            answer->ids.push_back(token.id);
            answer->tokens.push_back(token);
          }
          answer->finish = event.finish;
          answer->error = event.error;
          answer->cached_tokens = event.cached_tokens;
          if (event.finish != Finish::kNone) done->set_value(*answer);
        });
    EXPECT_TRUE(status.ok()) << status.message();
    return done->get_future();
  }

  static Answer Get(std::future<Answer> future) {
    const auto limit = std::chrono::seconds(30);
    if (future.wait_for(limit) != std::future_status::ready) {
      ADD_FAILURE() << "no answer";
      return {};
    }
    return future.get();
  }

  std::atomic<int> lost_ = 0;
  FakeModel* model_ = nullptr;
  std::unique_ptr<EngineLoop> engine_;
};

inline std::vector<int32_t> RandomPrompt(std::mt19937& random, size_t length) {
  std::vector<int32_t> prompt(length);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % 90);
  return prompt;
}

inline std::string ModeName(const testing::TestParamInfo<bool>& mode) {
  return mode.param ? "ahead" : "at_once";
}

// What the fake model and the sampler give a request by definition, with no engine.
inline std::vector<int32_t> Expected(std::vector<int32_t> ids, int32_t max_tokens,
                                     const SamplingParams& sampling, TokenRules* rules = nullptr) {
  std::vector<int32_t> output;
  std::vector<float> logits(FakeModel::kVocab);
  std::vector<uint32_t> mask(MaskWords(FakeModel::kVocab));
  Context context(1);
  SampleScratch scratch;
  Token token;
  TokenCounts counts(ids, max_tokens);
  for (int32_t i = 0; i < max_tokens; ++i) {
    FakeModel::LogitsOf(ids, logits.data());
    SampleRow row;
    row.logits = logits;
    row.temperature = sampling.temperature;
    row.top_p = sampling.top_p;
    row.frequency_penalty = sampling.frequency_penalty;
    row.counts = counts.counts();
    row.seed = sampling.seed.value_or(0);
    row.index = static_cast<uint64_t>(i);
    if (rules != nullptr && rules->Mask(mask)) row.allowed = mask;
    row.scratch = &scratch;
    row.token = &token;
    Sample(context, {{&row, 1}});
    EXPECT_TRUE(row.error.ok());
    counts.Add(token.id);
    if (rules != nullptr) rules->Accept(token.id);
    ids.push_back(token.id);
    output.push_back(token.id);
  }
  return output;
}

}  // namespace seacliff
