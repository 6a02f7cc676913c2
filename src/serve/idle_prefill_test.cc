// Next prompts that are computed in idle time, over a server with a scripted engine.
#include "serve/idle_prefill.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "serve/testing/server_fixture.h"

namespace seacliff::serve {
namespace {

using testing::ChatBody;
using testing::ClientReply;
using testing::FakeEngine;
using testing::json;
using testing::kEndToken;

const std::string kQuestion(200, 'q');
const std::string kReasoning(150, 'r');
const std::string kAnswer(300, 'a');

class IdlePrefillTest : public testing::ServerTest {
 protected:
  IdlePrefillTest() {
    options.idle_prefill = true;
    engine.max_len = 8192;
    engine.tokens_a_step = 10'000;
  }

  // Starts, and has a first turn with reasoning answered.
  void FirstTurn(const json& fields = json::object()) {
    Start();
    ReplyWith(kReasoning + "</think>" + kAnswer + kEndToken);
    body = ChatBody(kQuestion);
    body.update(fields);
    Ask();
  }
  json Ask() {
    const ClientReply reply = Post("/v1/chat/completions", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    json message = reply.Json()["choices"][0]["message"];
    body["messages"].push_back(message);
    body["messages"].push_back({{"role", "user"}, {"content", kQuestion}});
    return message;
  }
  // Those that no client asked for.
  std::vector<const Request*> Prefills() const {
    std::vector<const Request*> out;
    for (const Request* request : engine.seen()) {
      if (request->background) out.push_back(request);
    }
    return out;
  }
  // Waits, at most some seconds, for so many of them.
  bool WaitPrefills(size_t count) const {
    for (int i = 0; i < 400 && Prefills().size() < count; ++i) Sleep();
    return Prefills().size() == count;
  }
  // Long enough for one to be started if it was to be.
  static void SleepLong() {
    for (int i = 0; i < 20; ++i) Sleep();
  }
  static void Sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

  json body;
};

TEST_F(IdlePrefillTest, TheNextPromptBeginsWithWhatWasComputed) {
  FirstTurn({{"cache_salt", "tenant"}});
  ASSERT_TRUE(WaitPrefills(1));
  ASSERT_TRUE(engine.WaitLive(0));
  const Request& ahead = *Prefills()[0];
  EXPECT_EQ(ahead.cache_salt, "tenant");
  EXPECT_EQ(ahead.max_tokens, 1);
  EXPECT_EQ(ahead.turn, 0u);
  Ask();
  const std::vector<int32_t> next = engine.seen().back()->prompt;
  ASSERT_FALSE(engine.seen().back()->background);
  ASSERT_LE(ahead.prompt.size(), next.size());
  EXPECT_TRUE(std::equal(ahead.prompt.begin(), ahead.prompt.end(), next.begin()));
  // All but the new message and its headers.
  EXPECT_LE(next.size() - ahead.prompt.size(), kQuestion.size() + 3);
  // It is no request.
  EXPECT_EQ(Metric("seacliff:e2e_request_latency_seconds_count"), 2);
  EXPECT_EQ(Metric("seacliff:generation_tokens_total"),
            2 * static_cast<double>(kReasoning.size() + kAnswer.size() + 2));
}

TEST_F(IdlePrefillTest, NothingIsComputedWhereTheNextPromptGoesOnFromTheReply) {
  Start();
  ReplyWith(kAnswer + kEndToken);
  body = ChatBody(kQuestion);
  body["thinking"] = {{"type", "disabled"}};
  Ask();
  Ask();
  ReplyWith(kReasoning + "</think>" + kAnswer + kEndToken);
  body = ChatBody(kQuestion);
  body["tools"] = {{{"type", "function"}, {"function", {{"name", "look"}}}}};
  Ask();
  Ask();
  SleepLong();
  EXPECT_EQ(Prefills().size(), 0u);
  EXPECT_EQ(Metric("seacliff:spliced_turns_total"), 2);
}

// A call that was mended comes back as it should have been written.
TEST_F(IdlePrefillTest, AMendedCallIsComputedAsItComesBack) {
  Start();
  ReplyWith(kAnswer +
            "\n\n<|DSML|invoke name=\"look\">\n<|DSML|parameter name=\"at\" string=\"true\">" +
            kQuestion + "</|DSML|parameter>\n</|DSML|invoke>" + kEndToken);
  body = ChatBody(kQuestion);
  body["thinking"] = {{"type", "disabled"}};
  body["tools"] = {{{"type", "function"}, {"function", {{"name", "look"}}}}};
  const json message = Ask();
  ASSERT_EQ(message["tool_calls"].size(), 1u);
  ASSERT_TRUE(WaitPrefills(1));
  ASSERT_TRUE(engine.WaitLive(0));
  const std::vector<int32_t> ahead = Prefills()[0]->prompt;
  body["messages"].back() = {
      {"role", "tool"}, {"tool_call_id", message["tool_calls"][0]["id"]}, {"content", "here"}};
  Ask();
  const std::vector<int32_t> next = engine.seen().back()->prompt;
  ASSERT_LT(ahead.size(), next.size());
  EXPECT_TRUE(std::equal(ahead.begin(), ahead.end(), next.begin()));
  EXPECT_GT(ahead.size(), 2 * kQuestion.size() + kAnswer.size());
}

// Newlines that the reply's reader takes as syntax do not come back.
TEST_F(IdlePrefillTest, ARepliesTextThatDiffersIsComputed) {
  Start();
  ReplyWith("\n\n" + kAnswer + kEndToken);
  body = ChatBody(kQuestion);
  body["thinking"] = {{"type", "disabled"}};
  EXPECT_EQ(Ask()["content"], kAnswer);
  ASSERT_TRUE(WaitPrefills(1));
}

TEST_F(IdlePrefillTest, TurnsAreFoundByTheKeyThatTheyWereSampledForAlone) {
  options.api_keys = {"one", "two"};
  Start();
  ReplyWith(kAnswer + kEndToken);
  body = ChatBody(kQuestion);
  body["thinking"] = {{"type", "disabled"}};
  const auto ask = [&](const std::string& headers) {
    EXPECT_EQ(Post("/v1/chat/completions", body, headers).status, 200);
    return Metric("seacliff:spliced_turns_total");
  };
  EXPECT_EQ(ask("Authorization: Bearer one\r\n"), 0);
  body["messages"].push_back({{"role", "assistant"}, {"content", kAnswer}});
  body["messages"].push_back({{"role", "user"}, {"content", "More."}});
  EXPECT_EQ(ask("Authorization: Bearer two\r\n"), 0);
  EXPECT_EQ(ask("x-api-key: one\r\n"), 1);
  body["cache_salt"] = "tenant";
  EXPECT_EQ(ask("x-api-key: one\r\n"), 1);
}

TEST_F(IdlePrefillTest, CanBeTurnedOff) {
  options.idle_prefill = false;
  FirstTurn();
  SleepLong();
  EXPECT_EQ(Prefills().size(), 0u);
}

TEST_F(IdlePrefillTest, YieldsToARequestAndGoesOnAfterIt) {
  FirstTurn();
  engine.Pause(true);
  ASSERT_TRUE(WaitPrefills(1));
  ASSERT_EQ(engine.live(), 1u);
  std::thread client(
      [this] { EXPECT_EQ(Post("/v1/chat/completions", ChatBody("x")).status, 200); });
  for (int i = 0; i < 400 && engine.cancels() == 0; ++i) Sleep();
  EXPECT_EQ(engine.cancels(), 1);
  ASSERT_TRUE(engine.WaitLive(1));  // the client's alone
  SleepLong();
  EXPECT_EQ(Prefills().size(), 1u);
  engine.Pause(false);
  client.join();
  ASSERT_TRUE(WaitPrefills(2));
  EXPECT_EQ(Prefills()[0]->prompt, Prefills()[1]->prompt);
}

TEST_F(IdlePrefillTest, TheTurnItselfMakesItNeedless) {
  FirstTurn();
  engine.Pause(true);
  ASSERT_TRUE(WaitPrefills(1));
  std::thread client([this] { Ask(); });
  for (int i = 0; i < 400 && engine.cancels() == 0; ++i) Sleep();
  engine.Pause(false);
  client.join();
  // That of the second turn comes, that of the first not again.
  ASSERT_TRUE(WaitPrefills(2));
  SleepLong();
  ASSERT_EQ(Prefills().size(), 2u);
  EXPECT_GT(Prefills()[1]->prompt.size(), Prefills()[0]->prompt.size());
}

TEST_F(IdlePrefillTest, KeepsTheNewestWhenManyWait) {
  IdlePrefill prefill;
  for (int32_t i = 0; i < 20; ++i) prefill.Add({{i, i}, "", static_cast<uint64_t>(i) + 1});
  EXPECT_EQ(prefill.waiting(), 16u);
  const auto mailbox = std::make_shared<Mailbox>([] {});
  prefill.Start(&engine, mailbox);
  EXPECT_EQ(engine.seen().back()->prompt, (std::vector<int32_t>{4, 4}));
  prefill.Forget(6);
  prefill.Start(&engine, mailbox);  // one at a time
  EXPECT_EQ(engine.seen().size(), 1u);
  ASSERT_TRUE(engine.WaitLive(0));
  std::vector<Event> events;
  for (int i = 0; i < 400 && events.empty(); ++i) {
    Sleep();
    mailbox->TakeAll(&events);
  }
  ASSERT_FALSE(events.empty());
  for (const Event& event : events) EXPECT_TRUE(prefill.Take(event));
  prefill.Start(&engine, mailbox);
  EXPECT_EQ(engine.seen().back()->prompt, (std::vector<int32_t>{6, 6}));
}

TEST_F(IdlePrefillTest, OneThatIsRefusedIsForgotten) {
  engine.admit = [](const Request&) { return InvalidArgument("no"); };
  IdlePrefill prefill;
  prefill.Add({{1, 2}, "", 1});
  prefill.Start(&engine, std::make_shared<Mailbox>([] {}));
  EXPECT_EQ(prefill.waiting(), 0u);
  EXPECT_FALSE(prefill.Take({}));
}

}  // namespace
}  // namespace seacliff::serve
