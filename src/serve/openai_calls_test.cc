// Tool calls over the wire: the order of a stream, whole replies, how a reply ends, and that turns
// with calls come back as they were sampled.
#include <gtest/gtest.h>

#include "serve/testing/server_fixture.h"

namespace seacliff::serve {
namespace {

using testing::ChatBody;
using testing::ClientReply;
using testing::Ids;
using testing::json;
using testing::kEndToken;

class CallsTest : public testing::ServerTest {
 protected:
  CallsTest() {
    engine.tokens_a_step = 1;
    tools_ = json::array();
    for (const char* name : {"look", "say"}) {
      tools_.push_back({{"type", "function"},
                        {"function",
                         {{"name", name},
                          {"parameters",
                           {{"type", "object"},
                            {"properties", {{"at", {{"type", "string"}}}}},
                            {"required", {"at"}}}}}}});
    }
  }

  json Body(json fields = json::object()) const {
    json body = ChatBody();
    body["tools"] = tools_;
    body["thinking"] = {{"type", "disabled"}};
    body.update(fields);
    return body;
  }
  json Choice(json fields = json::object()) {
    const ClientReply reply = Post("/v1/chat/completions", Body(std::move(fields)));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.Json()["choices"][0];
  }
  std::vector<json> Stream(json fields = json::object()) {
    json body = Body(std::move(fields));
    body["stream"] = true;
    std::vector<json> chunks;
    std::vector<std::string> events = Post("/v1/chat/completions", body).Events();
    EXPECT_EQ(events.empty() ? "" : events.back(), "[DONE]");
    if (!events.empty()) events.pop_back();
    for (const std::string& event : events) chunks.push_back(json::parse(event));
    return chunks;
  }
  static std::string Call(const std::string& name, const std::string& at) {
    return "<｜DSML｜invoke name=\"" + name +
           "\">\n<｜DSML｜parameter name=\"at\" string=\"true\">" + at +
           "</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
  }
  static std::string Block(const std::string& calls) {
    return "\n\n<｜DSML｜tool_calls>\n" + calls + "</｜DSML｜tool_calls>";
  }

  json tools_;
};

TEST_F(CallsTest, WholeReplies) {
  Start();
  ReplyWith("Let me." + Block(Call("look", "x") + Call("say", "a\"b")) + kEndToken);
  const json choice = Choice();
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "Let me.");
  const json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_TRUE(calls[0]["id"].get<std::string>().starts_with("call_"));
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);
  EXPECT_EQ(calls[0]["type"], "function");
  EXPECT_EQ(calls[0]["function"], (json{{"name", "look"}, {"arguments", R"({"at": "x"})"}}));
  EXPECT_EQ(calls[1]["function"]["arguments"], R"({"at": "a\"b"})");
  EXPECT_EQ(Metric("seacliff:tool_calls_total"), 2);
  ReplyWith(Block(Call("look", "x")) + kEndToken);
  const json again = Choice();
  EXPECT_TRUE(again["message"]["content"].is_null());
  EXPECT_NE(again["message"]["tool_calls"][0]["id"], calls[0]["id"]);
  ReplyWith(std::string("No.") + kEndToken);
  EXPECT_FALSE(Choice()["message"].contains("tool_calls"));
}

TEST_F(CallsTest, StreamOrder) {
  Start();
  ReplyWith("ab</think>cd" + Block(Call("look", "xy") + Call("say", "z")) + kEndToken);
  const auto chunks = Stream({{"thinking", {{"type", "enabled"}}}});
  std::string order, id;
  std::vector<std::string> arguments;
  for (const json& chunk : chunks) {
    const json& choice = chunk["choices"][0];
    const json& delta = choice["delta"];
    const bool is_last = &chunk == &chunks.back();
    EXPECT_EQ(choice["finish_reason"].is_null(), !is_last);
    if (delta.contains("role")) continue;
    if (delta.empty()) {
      EXPECT_TRUE(is_last);
      EXPECT_EQ(choice["finish_reason"], "tool_calls");
      continue;
    }
    // One part in a delta.
    EXPECT_EQ(
        delta.contains("content") + delta.contains("reasoning") + delta.contains("tool_calls"), 1);
    if (delta.contains("reasoning")) {
      EXPECT_EQ(delta["reasoning"], delta["reasoning_content"]);
      order += 'r';
    } else if (delta.contains("content")) {
      order += 'c';
    } else {
      ASSERT_EQ(delta["tool_calls"].size(), 1u);
      const json& call = delta["tool_calls"][0];
      if (call.contains("id")) {
        EXPECT_EQ(call["index"], arguments.size());
        EXPECT_EQ(call["type"], "function");
        EXPECT_EQ(call["function"],
                  (json{{"name", arguments.empty() ? "look" : "say"}, {"arguments", ""}}));
        EXPECT_NE(call["id"], id);
        id = call["id"];
        arguments.emplace_back();
        order += 'n';
      } else {
        EXPECT_EQ(call.size(), 2u);
        EXPECT_EQ(call["index"], arguments.size() - 1);
        EXPECT_EQ(call["function"].size(), 1u);
        arguments.back() += call["function"]["arguments"];
        order += 'a';
      }
    }
  }
  // The values come letter by letter.
  EXPECT_EQ(order, "rrccnaaaaanaaaa");
  EXPECT_EQ(arguments, (std::vector<std::string>{R"({"at": "xy"})", R"({"at": "z"})"}));
}

// Whatever comes in one step is told part by part.
TEST_F(CallsTest, OneStepWithEverything) {
  engine.tokens_a_step = 1000;
  Start();
  ReplyWith("ab</think>cd" + Block(Call("look", "xy") + Call("say", "z")) + kEndToken);
  const auto chunks = Stream({{"thinking", {{"type", "enabled"}}}});
  ASSERT_EQ(chunks.size(), 8u);
  for (const size_t name : {3u, 5u}) {
    EXPECT_EQ(chunks[name]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], "");
    EXPECT_FALSE(chunks[name + 1]["choices"][0]["delta"]["tool_calls"][0].contains("id"));
  }
}

TEST_F(CallsTest, HowAReplyEnds) {
  Start();
  const auto reason = [&](const std::string& text, json fields = json::object()) {
    ReplyWith(text);
    const json whole = Choice(fields);
    const auto chunks = Stream(fields);
    EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], whole["finish_reason"]);
    return whole["finish_reason"].get<std::string>() + " " +
           std::to_string(whole["message"].value("tool_calls", json::array()).size());
  };
  const std::string block = Block(Call("look", "x"));
  const int tokens = static_cast<int>(Ids(block).size());
  EXPECT_EQ(reason(block + kEndToken), "tool_calls 1");
  EXPECT_EQ(reason(block, {{"max_tokens", tokens}}), "tool_calls 1");
  EXPECT_EQ(reason(block, {{"max_tokens", tokens - 1}}), "length 1");
  EXPECT_EQ(reason(block, {{"max_tokens", tokens - 40}}), "length 0");
  // An end inside a call is no end.
  EXPECT_EQ(reason(block.substr(0, block.find("x<")) + kEndToken), "length 0");
  EXPECT_EQ(reason(Block(Call("look", "x")).substr(0, block.rfind("</")) + kEndToken),
            "tool_calls 1");
  EXPECT_EQ(reason("No." + std::string(kEndToken)), "stop 0");
  EXPECT_EQ(reason("No." + block + kEndToken, {{"tool_choice", "none"}}), "stop 0");
  // What comes behind a block is not waited for.
  EXPECT_EQ(reason(block + "\n\nAnd now"), "tool_calls 1");
  EXPECT_TRUE(engine.WaitLive(0));
}

TEST_F(CallsTest, OneCallOnly) {
  Start();
  ReplyWith(Block(Call("look", "x") + Call("say", "y")) + kEndToken);
  const json choice = Choice({{"parallel_tool_calls", false}});
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u);
}

TEST_F(CallsTest, LogprobsAndIdsOfCalls) {
  Start();
  const std::string text = "a" + Block(Call("look", "x")) + kEndToken;
  ReplyWith(text);
  const json fields = {{"logprobs", true}, {"return_token_ids", true}};
  const json whole = Choice(fields);
  EXPECT_EQ(whole["token_ids"], json(Ids(text)));
  EXPECT_EQ(whole["logprobs"]["content"].size(), Ids(text).size());
  size_t logprobs = 0;
  std::vector<int32_t> ids;
  for (const json& chunk : Stream(fields)) {
    const json& choice = chunk["choices"][0];
    if (!choice["logprobs"].is_null()) logprobs += choice["logprobs"]["content"].size();
    for (const json& id : choice.value("token_ids", json::array())) ids.push_back(id);
  }
  EXPECT_EQ(logprobs, Ids(text).size());
  EXPECT_EQ(ids, Ids(text));
}

TEST_F(CallsTest, MalformedCallsAreCounted) {
  Start();
  // No marker, so nothing kept the model from it.
  std::string call = Call("look", "x");
  for (size_t at; (at = call.find("｜")) != call.npos;) call.replace(at, 3, "|");
  ReplyWith("\n\n" + call + kEndToken);
  EXPECT_EQ(Choice()["message"]["tool_calls"].size(), 1u);
  const std::string text = Get("/metrics").body;
  const auto counts = [&](const std::string& kind, int count) {
    return text.find("kind=\"" + kind + "\"} " + std::to_string(count)) != text.npos;
  };
  EXPECT_TRUE(counts("wrapper", 1));
  EXPECT_TRUE(counts("open_block", 1));
  EXPECT_TRUE(counts("unknown_tool", 0));
}

TEST_F(CallsTest, ThinkingWithoutAnEnd) {
  Start();
  ReplyWith(std::string("All I think") + kEndToken);
  const json fields = {{"thinking", {{"type", "enabled"}}}};
  const json message = Choice(fields)["message"];
  EXPECT_EQ(message["reasoning"], "All I think");
  EXPECT_EQ(message["content"], "");
  EXPECT_EQ(Metric("seacliff:empty_replies_total"), 1);
}

TEST_F(CallsTest, ThinkingWithoutAnEndAsContent) {
  options.thinking_is_content = true;
  Start();
  ReplyWith(std::string("All I think") + kEndToken);
  const json fields = {{"thinking", {{"type", "enabled"}}}};
  const json choice = Choice(fields);
  EXPECT_EQ(choice["message"]["reasoning"], "All I think");
  EXPECT_EQ(choice["message"]["content"], "All I think");
  std::string reasoning, content;
  for (const json& chunk : Stream(fields)) {
    const json& delta = chunk["choices"][0]["delta"];
    reasoning += delta.value("reasoning", "");
    content += delta.value("content", "");
  }
  EXPECT_EQ(reasoning, "All I think");
  EXPECT_EQ(content, "All I think");
  EXPECT_EQ(Metric("seacliff:empty_replies_total"), 0);
  // Not if it was cut off, or ended.
  EXPECT_EQ(Choice({{"thinking", {{"type", "enabled"}}}, {"max_tokens", 3}})["message"]["content"],
            "");
  ReplyWith(std::string("Hm</think>") + kEndToken);
  EXPECT_EQ(Choice(fields)["message"]["content"], "");
}

// Call, result, answer: the second prompt begins with all tokens of the first turn.
TEST_F(CallsTest, TurnsWithCallsComeBackAsTheyWereSampled) {
  Start();
  const std::string reply = "Let me." + Block(Call("look", "x y"));
  ReplyWith(reply + kEndToken);
  json body = Body();
  json message = Post("/v1/chat/completions", body).Json()["choices"][0]["message"];
  std::vector<int32_t> before = engine.seen().back()->prompt;
  for (const int32_t id : Ids(reply + kEndToken)) before.push_back(id);
  // As clients do: another spelling of the arguments.
  json& call = message["tool_calls"][0];
  call["function"]["arguments"] =
      json::parse(call["function"]["arguments"].get<std::string>()).dump();
  body["messages"].push_back(message);
  body["messages"].push_back({{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "warm"}});
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  const auto& prompt = engine.seen().back()->prompt;
  ASSERT_GT(prompt.size(), before.size());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), prompt.begin()));
  EXPECT_EQ(Metric("seacliff:spliced_turns_total"), 1);
}

}  // namespace
}  // namespace seacliff::serve
