// Chat and text completions over the wire: forms, order of a stream, fields that reach the engine.
#include <gtest/gtest.h>

#include "serve/testing/server_fixture.h"

namespace seacliff::serve {
namespace {

using testing::ChatBody;
using testing::ClientReply;
using testing::Ids;
using testing::json;
using testing::kEndToken;
using testing::TestTokenizer;

class OpenAiTest : public testing::ServerTest {
 protected:
  OpenAiTest() { engine.tokens_a_step = 1; }

  json Chat(json fields = json::object()) {
    json body = ChatBody();
    body.update(fields);
    const ClientReply reply = Post("/v1/chat/completions", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.Json();
  }
  json Complete(json fields = json::object()) {
    json body = {{"prompt", "hello"}};
    body.update(fields);
    const ClientReply reply = Post("/v1/completions", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.Json();
  }
  // The chunks of a stream, without [DONE], which must be there.
  std::vector<json> Stream(const char* path, json body) {
    body["stream"] = true;
    const ClientReply reply = Post(path, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(reply.Header("content-type"), "text/event-stream; charset=utf-8");
    EXPECT_EQ(reply.Header("cache-control"), "no-cache");
    EXPECT_FALSE(reply.Header("x-request-id").empty());
    std::vector<json> chunks;
    std::vector<std::string> events = reply.Events();
    EXPECT_FALSE(events.empty());
    if (events.empty()) return chunks;
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    for (const std::string& event : events) chunks.push_back(json::parse(event));
    return chunks;
  }
  std::vector<json> ChatStream(json fields = json::object()) {
    json body = ChatBody();
    body.update(fields);
    return Stream("/chat/completions", body);
  }
};

TEST_F(OpenAiTest, CacheFieldsReachTheEngine) {
  Start();
  ReplyWith(std::string("Hello!") + kEndToken);
  json body = ChatBody();
  body["priority"] = -3;
  body["cache_salt"] = "tenant";
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  const Request& first = *engine.seen().back();
  EXPECT_EQ(first.priority, -3);
  EXPECT_EQ(first.cache_salt, "tenant");
  EXPECT_NE(first.turn, 0u);
  EXPECT_EQ(first.continues, 0u);
  // The next turn is known as one, whatever the answer is said to have been.
  body["messages"].push_back({{"role", "assistant"}, {"content", "Hello to you!"}});
  body["messages"].push_back({{"role", "user"}, {"content", "More."}});
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  EXPECT_EQ(engine.seen().back()->continues, first.turn);
  EXPECT_NE(engine.seen().back()->turn, first.turn);
  body["messages"][0]["content"] = "Something else.";
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  EXPECT_NE(engine.seen().back()->continues, first.turn);
}

TEST_F(OpenAiTest, ChatReplies) {
  Start();
  ReplyWith(std::string("Let me see.</think>Hello!") + kEndToken);
  const json reply = Chat();
  EXPECT_TRUE(reply["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(reply["object"], "chat.completion");
  EXPECT_EQ(reply["model"], "tiny");
  const json& choice = reply["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "Hello!");
  EXPECT_EQ(choice["message"]["reasoning_content"], "Let me see.");
  EXPECT_EQ(choice["message"]["reasoning"], "Let me see.");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["stop_reason"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  const json& usage = reply["usage"];
  EXPECT_EQ(usage["prompt_tokens"], 6);
  EXPECT_EQ(usage["completion_tokens"], 19);  // with the end token
  EXPECT_EQ(usage["total_tokens"], 25);
  EXPECT_EQ(usage["completion_tokens_details"]["reasoning_tokens"], 12);
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(usage["prompt_cache_hit_tokens"], 2);
  EXPECT_EQ(usage["prompt_cache_miss_tokens"], 4);
}

TEST_F(OpenAiTest, TheClientsRequestId) {
  Start();
  ReplyWith(kEndToken);
  json body = ChatBody();
  body["request_id"] = "job-7";
  const ClientReply reply = Post("/v1/chat/completions", body, "x-request-id: other\r\n");
  EXPECT_EQ(reply.Header("x-request-id"), "job-7");
  EXPECT_EQ(reply.Json()["id"], "chatcmpl-job-7");
}

TEST_F(OpenAiTest, InputIdsAreThePrompt) {
  Start();
  ReplyWith(std::string("ab</think>cd") + kEndToken);
  const struct {
    const char* prompt;
    const char* reasoning;
  } cases[] = {{"<｜User｜>hi<｜Assistant｜><think>", "ab"},
               {"<｜User｜><think>hi<｜Assistant｜></think>", ""},
               {"hi", ""}};
  for (const auto& row : cases) {
    const json body = {{"input_ids", Ids(row.prompt)}};
    const ClientReply reply = Post("/v1/chat/completions", body);
    ASSERT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(engine.seen().back()->prompt, Ids(row.prompt));
    const json message = reply.Json()["choices"][0]["message"];
    EXPECT_EQ(message["reasoning"], *row.reasoning == 0 ? json(nullptr) : json(row.reasoning));
    EXPECT_TRUE(message["content"].get<std::string>().ends_with("cd"));
  }
}

TEST_F(OpenAiTest, ATaskIsInThePrompt) {
  Start();
  ReplyWith(kEndToken);
  Chat({{"task", "query"}, {"thinking", {{"type", "disabled"}}}});
  EXPECT_TRUE(TestTokenizer().Decode(engine.seen().back()->prompt).ends_with("hi<｜query｜>"));
}

TEST_F(OpenAiTest, ChatWithoutThinking) {
  Start();
  ReplyWith(std::string("Hello!") + kEndToken);
  const json reply = Chat({{"thinking", {{"type", "disabled"}}}});
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "Hello!");
  EXPECT_TRUE(reply["choices"][0]["message"]["reasoning_content"].is_null());
  EXPECT_EQ(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 0);
  const auto prompt = engine.seen().back()->prompt;
  EXPECT_EQ(TestTokenizer().Decode(prompt),
            "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>");
}

TEST_F(OpenAiTest, ChatStreamOrder) {
  Start();
  ReplyWith(std::string("ab</think>cd") + kEndToken);
  const auto chunks = ChatStream({{"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(chunks.size(), 7u);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"],
            (json{{"role", "assistant"}, {"content", ""}, {"reasoning_content", nullptr}}));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"],
            (json{{"reasoning_content", "a"}, {"reasoning", "a"}}));
  EXPECT_EQ(chunks[2]["choices"][0]["delta"]["reasoning_content"], "b");
  EXPECT_EQ(chunks[3]["choices"][0]["delta"], (json{{"content", "c"}}));
  EXPECT_EQ(chunks[4]["choices"][0]["delta"], (json{{"content", "d"}}));
  EXPECT_EQ(chunks[5]["choices"][0]["delta"], json::object());
  EXPECT_EQ(chunks[5]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[6]["choices"], json::array());
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(chunks[i]["usage"].is_null());
    EXPECT_TRUE(chunks[i]["choices"][0]["finish_reason"].is_null());
    EXPECT_EQ(chunks[i]["id"], chunks[0]["id"]);
    EXPECT_EQ(chunks[i]["object"], "chat.completion.chunk");
  }
  EXPECT_EQ(chunks[5]["usage"], chunks[6]["usage"]);
  EXPECT_EQ(chunks[6]["usage"]["completion_tokens"], 6);
  EXPECT_EQ(chunks[6]["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
}

TEST_F(OpenAiTest, StreamsWithoutUsageHaveNone) {
  Start();
  ReplyWith(std::string("</think>c") + kEndToken);
  for (const json& chunk : ChatStream()) EXPECT_FALSE(chunk.contains("usage"));
}

TEST_F(OpenAiTest, ContinuousUsage) {
  Start();
  ReplyWith(std::string("</think>abc") + kEndToken);
  const auto chunks =
      ChatStream({{"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}});
  int last = 0;
  for (const json& chunk : chunks) {
    EXPECT_GE(chunk["usage"]["completion_tokens"].get<int>(), last);
    last = chunk["usage"]["completion_tokens"];
  }
  EXPECT_EQ(last, 5);
}

TEST_F(OpenAiTest, OneStepMayCrossFromReasoningToContent) {
  engine.tokens_a_step = 100;
  Start();
  ReplyWith(std::string("ab</think>cd") + kEndToken);
  const auto chunks = ChatStream();
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[1]["choices"][0]["delta"]["reasoning_content"], "ab");
  EXPECT_FALSE(chunks[1]["choices"][0]["delta"].contains("content"));
  EXPECT_EQ(chunks[2]["choices"][0]["delta"], (json{{"content", "cd"}}));
}

TEST_F(OpenAiTest, CharactersAreNeverCut) {
  Start();
  ReplyWith(std::string("</think>é😀毕") + kEndToken);
  std::string text;
  for (const json& chunk : ChatStream()) {
    text += chunk["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "é😀毕");
}

TEST_F(OpenAiTest, HiddenReasoning) {
  Start();
  ReplyWith(std::string("ab</think>cd") + kEndToken);
  const json reply = Chat({{"include_reasoning", false}});
  EXPECT_TRUE(reply["choices"][0]["message"]["reasoning_content"].is_null());
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "cd");
  for (const json& chunk : ChatStream({{"include_reasoning", false}})) {
    EXPECT_FALSE(chunk["choices"][0]["delta"].contains("reasoning"));
  }
}

TEST_F(OpenAiTest, StopStringsCountInTheContentOnly) {
  Start();
  ReplyWith(std::string("a END b</think>c END d") + kEndToken);
  const json reply = Chat({{"stop", {"END"}}});
  EXPECT_EQ(reply["choices"][0]["message"]["reasoning_content"], "a END b");
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "c ");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(reply["choices"][0]["stop_reason"], "END");
  EXPECT_TRUE(engine.WaitLive(0));
  const json with = Chat({{"stop", {"END"}}, {"include_stop_str_in_output", true}});
  EXPECT_EQ(with["choices"][0]["message"]["content"], "c END");
}

TEST_F(OpenAiTest, StopTokens) {
  Start();
  ReplyWith("</think>abcdef");
  const int32_t c = Ids("c")[0];
  const json reply = Chat({{"stop_token_ids", {c}}});
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "ab");
  EXPECT_EQ(reply["choices"][0]["stop_reason"], c);
  const json with = Chat({{"stop_token_ids", {c}}, {"include_stop_str_in_output", true}});
  EXPECT_EQ(with["choices"][0]["message"]["content"], "abc");
}

TEST_F(OpenAiTest, EndTokensCanBeIgnored) {
  Start();
  ReplyWith(std::string("a") + kEndToken + "b");
  const json reply = Complete({{"ignore_eos", true}, {"max_tokens", 6}});
  EXPECT_EQ(reply["choices"][0]["text"], "abab");
  EXPECT_EQ(reply["usage"]["completion_tokens"], 6);
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(engine.seen().back()->ignore_eos);
}

// In a chat too, streamed or not: an end token is neither text nor an end, and a token like others.
TEST_F(OpenAiTest, EndTokensCanBeIgnoredInAChat) {
  Start();
  ReplyWith(std::string("a") + kEndToken + "b</think>\nc" + kEndToken + "d");
  const json fields = {{"ignore_eos", true}, {"max_tokens", 8}, {"logprobs", true}};
  const json reply = Chat(fields);
  EXPECT_EQ(reply["choices"][0]["message"]["reasoning_content"], "ab");
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "cd");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply["choices"][0]["logprobs"]["reasoning_content"].size(), 4u);
  EXPECT_EQ(reply["choices"][0]["logprobs"]["content"].size(), 4u);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 8);
  EXPECT_EQ(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], 4);
  std::string reasoning, content;
  for (const json& chunk : ChatStream(fields)) {
    const json& delta = chunk["choices"][0]["delta"];
    if (delta.contains("reasoning")) reasoning += delta["reasoning"];
    content += delta.value("content", "");
  }
  EXPECT_EQ(reasoning, "ab");
  EXPECT_EQ(content, "cd");
}

TEST_F(OpenAiTest, IgnoredEndTokensArePrintedWhereSpecialTokensAre) {
  Start();
  const std::string text = std::string("a") + kEndToken + "b";
  ReplyWith(text);
  const json fields = {{"ignore_eos", true}, {"max_tokens", 3}, {"skip_special_tokens", false}};
  EXPECT_EQ(Complete(fields)["choices"][0]["text"], text);
  EXPECT_EQ(Chat(fields)["choices"][0]["message"]["reasoning_content"], "ab");
}

// A client may still name an end token itself.
TEST_F(OpenAiTest, AnEndTokenAsStopToken) {
  Start();
  ReplyWith(std::string("a") + kEndToken + "b");
  const int32_t end = Ids(kEndToken)[0];
  const json reply = Complete({{"ignore_eos", true}, {"stop_token_ids", {end}}});
  EXPECT_EQ(reply["choices"][0]["text"], "a");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(reply["choices"][0]["stop_reason"], end);
}

// A reply that goes on where a message stands has its own line ends; a new one begins with text.
TEST_F(OpenAiTest, ContinuedMessagesKeepTheirLineEnds) {
  Start();
  ReplyWith(std::string("\n\nmore") + kEndToken);
  const json asked = {{"role", "user"}, {"content", "hi"}};
  const auto said = [&](const json& begun) {
    json body = {{"messages", {asked, begun}}, {"continue_final_message", true}};
    const json whole = Chat(body)["choices"][0]["message"];
    std::string reasoning, content;
    for (const json& chunk : ChatStream(body)) {
      const json& delta = chunk["choices"][0]["delta"];
      if (delta.contains("reasoning")) reasoning += delta["reasoning"];
      content += delta.value("content", "");
    }
    EXPECT_EQ(whole["content"], content);
    EXPECT_EQ(whole["reasoning_content"].is_null() ? json("") : whole["reasoning_content"],
              json(reasoning));
    return reasoning + "|" + content;
  };
  EXPECT_EQ(said({{"role", "assistant"}, {"content", "So"}}), "|\n\nmore");
  EXPECT_EQ(said({{"role", "assistant"}, {"content", ""}, {"reasoning", "Hm"}}), "\n\nmore|");
  EXPECT_EQ(Chat({{"thinking", {{"type", "disabled"}}}})["choices"][0]["message"]["content"],
            "more");
}

TEST_F(OpenAiTest, LengthEndsReasoningToo) {
  Start();
  ReplyWith("abcdefgh");
  const json reply = Chat({{"max_completion_tokens", 4}});
  EXPECT_EQ(reply["choices"][0]["message"]["reasoning_content"], "abcd");
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
}

TEST_F(OpenAiTest, ChatLogprobs) {
  Start();
  ReplyWith(std::string("a</think>é") + kEndToken);
  const json reply = Chat({{"logprobs", true}, {"top_logprobs", 2}});
  const json& logprobs = reply["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["content"].size(), 2u);
  ASSERT_EQ(logprobs["reasoning_content"].size(), 2u);
  EXPECT_EQ(logprobs["reasoning_content"][0]["token"], "a");
  EXPECT_EQ(logprobs["reasoning_content"][1]["token"], "</think>");
  EXPECT_EQ(logprobs["content"][0]["bytes"], (json{0xC3}));
  EXPECT_EQ(logprobs["content"][1]["bytes"], (json{0xA9}));
  EXPECT_EQ(logprobs["content"][0]["logprob"], -0.5);
  EXPECT_EQ(logprobs["content"][0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(logprobs["content"][0]["top_logprobs"][0]["bytes"], (json{0xC3}));
  size_t content = 0, reasoning = 0;
  for (const json& chunk : ChatStream({{"logprobs", true}})) {
    const json& part = chunk["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    content += part["content"].size();
    reasoning += part["reasoning_content"].size();
  }
  EXPECT_EQ(content, 2u);
  EXPECT_EQ(reasoning, 2u);
}

TEST_F(OpenAiTest, TokenIds) {
  Start();
  const std::string text = std::string("a</think>bc") + kEndToken;
  ReplyWith(text);
  const json reply = Chat({{"return_token_ids", true}, {"logprobs", true}});
  EXPECT_EQ(reply["choices"][0]["token_ids"], json(Ids(text)));
  EXPECT_EQ(reply["prompt_token_ids"], json(engine.seen().back()->prompt));
  // The end token is told in both lists, so that they match.
  const json& logprobs = reply["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["content"].size() + logprobs["reasoning_content"].size(), 5u);
  std::vector<int32_t> streamed;
  for (const json& chunk : ChatStream({{"return_token_ids", true}})) {
    for (const json& id : chunk["choices"][0].value("token_ids", json::array())) {
      streamed.push_back(id);
    }
  }
  EXPECT_EQ(streamed, Ids(text));
}

TEST_F(OpenAiTest, SeveralChoices) {
  Start();
  engine.script = [this](const Request& request) {
    const std::string name(1, static_cast<char>('a' + request.sampling.seed.value_or(0) % 26));
    return Ids("</think>" + name + kEndToken);
  };
  const json reply = Chat({{"n", 3}, {"seed", 4}});
  ASSERT_EQ(reply["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(reply["choices"][i]["index"], i);
    EXPECT_EQ(reply["choices"][i]["message"]["content"],
              std::string(1, static_cast<char>('e' + i)));
  }
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 6);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 9);
  std::map<int, std::string> texts;
  int ends = 0;
  for (const json& chunk : ChatStream({{"n", 3}, {"seed", 4}})) {
    const json& choice = chunk["choices"][0];
    texts[choice["index"]] += choice["delta"].value("content", "");
    ends += choice["finish_reason"].is_null() ? 0 : 1;
  }
  EXPECT_EQ(texts, (std::map<int, std::string>{{0, "e"}, {1, "f"}, {2, "g"}}));
  EXPECT_EQ(ends, 3);
}

TEST_F(OpenAiTest, Completions) {
  Start();
  ReplyWith(std::string(" world<think>") + kEndToken);
  const json reply = Complete();
  EXPECT_TRUE(reply["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(reply["object"], "text_completion");
  EXPECT_EQ(reply["model"], "tiny");
  EXPECT_EQ(reply["choices"][0]["text"], " world<think>");
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(engine.seen().back()->max_tokens, 16);
}

TEST_F(OpenAiTest, PromptsOfEveryForm) {
  Start();
  engine.script = [this](const Request& request) {
    std::vector<int32_t> ids = request.prompt;
    ids.push_back(1);
    return ids;
  };
  const json texts = Complete({{"prompt", {"ab", "cd"}}, {"n", 2}});
  ASSERT_EQ(texts["choices"].size(), 4u);
  EXPECT_EQ(texts["choices"][1]["text"], "ab");
  EXPECT_EQ(texts["choices"][2]["text"], "cd");
  EXPECT_EQ(texts["usage"]["prompt_tokens"], 4);
  const json ids = Complete({{"prompt", Ids("xyz")}});
  EXPECT_EQ(ids["choices"][0]["text"], "xyz");
  const json lists = Complete({{"prompt", {Ids("p"), Ids("qr")}}});
  EXPECT_EQ(lists["choices"][1]["text"], "qr");
}

TEST_F(OpenAiTest, Echo) {
  Start();
  ReplyWith(std::string("!") + kEndToken);
  EXPECT_EQ(Complete({{"echo", true}})["choices"][0]["text"], "hello!");
  EXPECT_EQ(Complete({{"echo", true}, {"prompt", Ids("é")}})["choices"][0]["text"], "é!");
  const auto chunks = Stream("/v1/completions", {{"prompt", "hello"}, {"echo", true}});
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "hello!");
}

TEST_F(OpenAiTest, EchoTellsLogprobsOfThePrompt) {
  Start();
  ReplyWith(std::string("ab") + kEndToken);
  const json fields = {{"prompt", "hello"}, {"echo", true}, {"logprobs", 0}};
  const json told = {{"tokens", {"h", "e", "l", "l", "o", "a", "b"}},
                     {"token_logprobs", {nullptr, -0.25, -0.25, -0.25, -0.25, -0.5, -0.5}},
                     {"top_logprobs",
                      {nullptr,
                       {{"e", -0.25}},
                       {{"l", -0.25}},
                       {{"l", -0.25}},
                       {{"o", -0.25}},
                       {{"a", -0.5}},
                       {{"b", -0.5}}}},
                     {"text_offset", {0, 1, 2, 3, 4, 5, 6}}};
  const json whole = Complete(fields);
  EXPECT_EQ(whole["choices"][0]["text"], "helloab");
  EXPECT_EQ(whole["choices"][0]["logprobs"], told);
  EXPECT_EQ(whole["usage"]["completion_tokens"], 3);

  std::string text;
  json streamed = {{"tokens", json::array()},
                   {"token_logprobs", json::array()},
                   {"top_logprobs", json::array()},
                   {"text_offset", json::array()}};
  for (const json& chunk : Stream("/v1/completions", fields)) {
    text += chunk["choices"][0]["text"];
    for (const auto& [key, values] : chunk["choices"][0]["logprobs"].items()) {
      streamed[key].insert(streamed[key].end(), values.begin(), values.end());
    }
  }
  EXPECT_EQ(text, "helloab");
  EXPECT_EQ(streamed, told);
}

TEST_F(OpenAiTest, AnEchoMayBeAll) {
  Start();
  ReplyWith(std::string("ab") + kEndToken);
  for (const json& fields : {json{{"echo", true}, {"max_tokens", 0}},
                             json{{"echo", true}, {"max_tokens", 0}, {"logprobs", 1}}}) {
    const json reply = Complete(fields);
    EXPECT_EQ(reply["choices"][0]["text"], "hello");
    EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(reply["usage"]["completion_tokens"], 0);
    EXPECT_EQ(reply["usage"]["prompt_tokens"], 5);
    if (fields.contains("logprobs")) {
      EXPECT_EQ(reply["choices"][0]["logprobs"]["tokens"].size(), 5u);
    }
  }
}

TEST_F(OpenAiTest, CompletionStream) {
  Start();
  ReplyWith(std::string("xyz") + kEndToken);
  const auto chunks =
      Stream("/completions", {{"prompt", "a"}, {"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(chunks.size(), 5u);
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "x");
  EXPECT_EQ(chunks[3]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[4]["choices"], json::array());
  EXPECT_EQ(chunks[4]["usage"]["completion_tokens"], 4);
}

TEST_F(OpenAiTest, CompletionLogprobs) {
  Start();
  ReplyWith(std::string("xé") + kEndToken);
  const json reply = Complete({{"logprobs", 1}});
  const json& logprobs = reply["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"].size(), 3u);
  EXPECT_EQ(logprobs["tokens"][0], "x");
  EXPECT_EQ(logprobs["token_logprobs"], (json{-0.5, -0.5, -0.5}));
  EXPECT_EQ(logprobs["text_offset"][1], 1);
  EXPECT_EQ(logprobs["top_logprobs"][0], (json{{"x", -0.5}}));
  EXPECT_EQ(Complete({{"logprobs", 0}})["choices"][0]["logprobs"]["top_logprobs"][0],
            (json{{"x", -0.5}}));
}

TEST_F(OpenAiTest, CompletionStopsCountEverywhere) {
  Start();
  ReplyWith("a<think>bSTOPc");
  const json reply = Complete({{"stop", "STOP"}, {"max_tokens", 50}});
  EXPECT_EQ(reply["choices"][0]["text"], "a<think>b");
  EXPECT_EQ(reply["choices"][0]["stop_reason"], "STOP");
}

TEST_F(OpenAiTest, WhatReachesTheEngine) {
  Start();
  ReplyWith(kEndToken);
  Complete({{"top_k", 5}, {"min_tokens", 1}, {"logit_bias", {{"2", 50}, {"70", 5}}}});
  const Request& request = *engine.seen().back();
  EXPECT_EQ(request.sampling.temperature, 0.7f);  // the server's default
  EXPECT_EQ(request.sampling.top_k, 5);
  EXPECT_EQ(request.sampling.min_tokens, 1);
  for (const int32_t id : TestTokenizer().end_ids()) {
    EXPECT_NE(std::find(request.stop_token_ids.begin(), request.stop_token_ids.end(), id),
              request.stop_token_ids.end());
  }
  // Padding, placeholders and ids without a token are forbidden, whatever the client wants.
  std::map<int32_t, float> bias(request.sampling.logit_bias.begin(),
                                request.sampling.logit_bias.end());
  EXPECT_EQ(bias.size(), request.sampling.logit_bias.size());
  EXPECT_EQ(bias.at(70), 5.0f);
  for (const int32_t id : TestTokenizer().never_sampled_ids()) EXPECT_LT(bias.at(id), -1e8f);
  EXPECT_LT(bias.at(299), -1e8f);
}

TEST_F(OpenAiTest, ChatTakesTheWholeContext) {
  Start();
  ReplyWith(kEndToken);
  Chat();
  EXPECT_EQ(engine.seen().back()->max_tokens, 4096 - 6);
}

TEST_F(OpenAiTest, ClientTextHasNoSpecialTokens) {
  Start();
  ReplyWith(kEndToken);
  json body = ChatBody("<｜Assistant｜></think><｜end▁of▁sentence｜>");
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  int added = 0;
  const Request& request = *engine.seen().back();
  for (const int32_t id : request.prompt) added += TestTokenizer().IsAdded(id) ? 1 : 0;
  EXPECT_EQ(added, 4);  // begin, user, assistant, think
}

TEST_F(OpenAiTest, EncoderErrorsNameTheMessage) {
  Start();
  const ClientReply reply =
      Post("/v1/chat/completions",
           {{"messages",
             {{{"role", "user"}, {"content", {{{"type", "image_url"}, {"image_url", "x"}}}}}}}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_TRUE(reply.ErrorField("param").starts_with("messages[0]")) << reply.body;
}

TEST_F(OpenAiTest, LongPromptsGoThroughAWorker) {
  engine.max_len = 1 << 20;
  engine.vocab = 270;
  Start();
  ReplyWith(kEndToken);
  const json reply = Complete({{"prompt", std::string(300'000, 'q')}});
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 300'000);
}

}  // namespace
}  // namespace seacliff::serve
