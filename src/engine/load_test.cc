// The engine over a real, tiny checkpoint: loading, refusing bad options, and the same tokens
// whatever the chunks and the company.
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "seacliff/engine.h"

namespace seacliff {
namespace {

EngineOptions TinyOptions() {
  EngineOptions options;
  options.model_dir = std::string(SEACLIFF_SOURCE_DIR) + "/tests/data/golden/tiny-a";
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 512;
  return options;
}

std::future<std::vector<int32_t>> Send(Engine& engine, std::vector<int32_t> prompt,
                                       int32_t max_tokens) {
  Request request;
  request.id = engine.NextId();
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  auto ids = std::make_shared<std::vector<int32_t>>();
  auto done = std::make_shared<std::promise<std::vector<int32_t>>>();
  const Status status = engine.Submit(std::move(request), [ids, done](const Event& event) {
    for (const Token& token : event.tokens) ids->push_back(token.id);
    EXPECT_TRUE(event.error.ok()) << event.error.message();
    if (event.finish != Finish::kNone) done->set_value(*ids);
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return done->get_future();
}

TEST(LoadTest, ChunksAndCompanyDoNotChangeTheTokens) {
  std::vector<std::vector<int32_t>> prompts;
  for (const int32_t length : {1, 5, 127, 130, 200}) {
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < length; ++i) prompt.push_back((i * 37 + length) % 1024);
    prompts.push_back(prompt);
  }
  std::vector<std::vector<int32_t>> alone;
  {
    EngineOptions options = TinyOptions();
    options.max_num_batched_tokens = 256;  // no prompt is cut
    Result<std::unique_ptr<Engine>> engine = Engine::Load(options, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    EXPECT_EQ((*engine)->vocab_size(), 1024);
    EXPECT_EQ((*engine)->max_model_len(), 512);
    for (const auto& prompt : prompts) alone.push_back(Send(**engine, prompt, 8).get());
  }
  EngineOptions options = TinyOptions();
  options.max_num_batched_tokens = 23;
  Result<std::unique_ptr<Engine>> engine = Engine::Load(options, nullptr);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  std::vector<std::future<std::vector<int32_t>>> together;
  for (const auto& prompt : prompts) together.push_back(Send(**engine, prompt, 8));
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(together[i].get(), alone[i]) << "prompt " << i;
}

TEST(LoadTest, PrefixCachingCanBeTurnedOff) {
  for (const bool caching : {true, false}) {
    EngineOptions options = TinyOptions();
    options.prefix_caching = caching;
    Result<std::unique_ptr<Engine>> engine = Engine::Load(options, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const std::vector<int32_t> prompt(300, 7);
    const std::vector<int32_t> first = Send(**engine, prompt, 8).get();
    EXPECT_EQ(Send(**engine, prompt, 8).get(), first);
    const EngineStats stats = (*engine)->stats();
    EXPECT_EQ(stats.hit_tokens > 0, caching);
    EXPECT_EQ(stats.cached_pages > 0, caching);
    EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.pages);
  }
}

TEST(LoadTest, BadOptionsAreNamed) {
  const auto error = [](const auto& change) {
    EngineOptions options = TinyOptions();
    change(options);
    const auto engine = Engine::Load(options, nullptr);
    EXPECT_FALSE(engine.ok());
    return engine.status().message();
  };
  using O = EngineOptions&;
  EXPECT_NE(error([](O o) { o.numerics = "half"; }).find("numerics"), std::string::npos);
  EXPECT_NE(error([](O o) { o.output_projection = "f8"; }).find("output_projection"),
            std::string::npos);
  EXPECT_NE(error([](O o) {
              o.output_projection = "fp8";
              o.numerics = "exact";
            }).find("output_projection"),
            std::string::npos);
  EXPECT_NE(error([](O o) { o.load_format = "gguf"; }).find("load_format"), std::string::npos);
  EXPECT_NE(error([](O o) { o.kv_cache_memory = 1; }).find("kv_cache_memory"), std::string::npos);
  EXPECT_NE(error([](O o) { o.max_num_seqs = 0; }).find("max_num_seqs"), std::string::npos);
  EXPECT_NE(error([](O o) { o.max_num_batched_tokens = 3; }).find("max_num_batched_tokens"),
            std::string::npos);
  EXPECT_NE(error([](O o) { o.max_model_len = 1 << 30; }).find("max_model_len"), std::string::npos);
  EXPECT_NE(error([](O o) { o.threads = -1; }).find("threads"), std::string::npos);
  EXPECT_NE(error([](O o) { o.gpu_memory_utilization = 1.5; }).find("gpu_memory_utilization"),
            std::string::npos);
  EXPECT_NE(error([](O o) { o.model_dir = "/nowhere"; }).find("/nowhere"), std::string::npos);
}

}  // namespace
}  // namespace seacliff
