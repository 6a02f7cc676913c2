// Parsing of request bodies: every fault names its field, every form is taken.
#include "serve/requests.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace seacliff::serve {
namespace {

using nlohmann::json;

ApiError Chat(json fields, ChatRequest* request) {
  json body = {{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(fields);
  return ParseChatRequest(body.dump(), ServeOptions(), request);
}
ApiError Completion(json fields, CompletionRequest* request) {
  json body = {{"prompt", "hi"}};
  body.update(fields);
  return ParseCompletionRequest(body.dump(), ServeOptions(), request);
}

json Tool(json function) { return {{"type", "function"}, {"function", function}}; }

json ManyBiases() {
  json out = json::object();
  for (int i = 0; i < 5000; ++i) out[std::to_string(i)] = 1;
  return out;
}

struct Fault {
  json fields;
  const char* param;
};

TEST(Requests, EveryFaultNamesItsField) {
  const Fault faults[] = {
      {{{"temperature", "hot"}}, "temperature"},
      {{{"temperature", -0.1}}, "temperature"},
      {{{"temperature", 2.5}}, "temperature"},
      {{{"top_p", 0}}, "top_p"},
      {{{"top_p", 1.5}}, "top_p"},
      {{{"top_k", -2}}, "top_k"},
      {{{"top_k", 1.5}}, "top_k"},
      {{{"min_p", 2}}, "min_p"},
      {{{"seed", "x"}}, "seed"},
      {{{"seed", 1e30}}, "seed"},
      {{{"n", 0}}, "n"},
      {{{"timeout", 0}}, "timeout"},
      {{{"timeout", "soon"}}, "timeout"},
      {{{"n", true}}, "n"},
      {{{"stream", 1}}, "stream"},
      {{{"stream_options", {{"include_usage", true}}}}, "stream_options"},
      {{{"stream", true}, {"stream_options", {{"include_usage", 1}}}},
       "stream_options.include_usage"},
      {{{"max_tokens", 0}}, "max_tokens"},
      {{{"max_tokens", -5}}, "max_tokens"},
      {{{"min_tokens", 9}, {"max_tokens", 4}}, "min_tokens"},
      {{{"presence_penalty", 3}}, "presence_penalty"},
      {{{"frequency_penalty", -3}}, "frequency_penalty"},
      {{{"repetition_penalty", 0}}, "repetition_penalty"},
      {{{"stop", 5}}, "stop"},
      {{{"stop", {"a", 5}}}, "stop"},
      {{{"stop", {""}}}, "stop"},
      {{{"stop", json(std::vector<std::string>(17, "x"))}}, "stop"},
      {{{"stop", std::string(5000, 'x')}}, "stop"},
      {{{"stop_token_ids", {"a"}}}, "stop_token_ids"},
      {{{"stop_token_ids", std::vector<int>(5000, 1)}}, "stop_token_ids"},
      {{{"stop_token_ids", {-1}}}, "stop_token_ids"},
      {{{"ignore_eos", "yes"}}, "ignore_eos"},
      {{{"logit_bias", {{"x", 1}}}}, "logit_bias"},
      {{{"logit_bias", {{"5", 101}}}}, "logit_bias"},
      {{{"logit_bias", {1, 2}}}, "logit_bias"},
      {{{"logit_bias", ManyBiases()}}, "logit_bias"},
      {{{"model", 5}}, "model"},
      {{{"priority", 1.5}}, "priority"},
      {{{"cache_salt", 7}}, "cache_salt"},
      {{{"cache_salt", ""}}, "cache_salt"},
      {{{"best_of", 3}}, "best_of"},
      {{{"suffix", "x"}}, "suffix"},
      {{{"guided_json", {{"type", "object"}}}}, "guided_json"},
      {{{"prompt_logprobs", 0}}, "prompt_logprobs"},
      {{{"chat_template", "{{ messages }}"}}, "chat_template"},
      {{{"documents", {{{"text", "x"}}}}}, "documents"},
      {{{"thinking_token_budget", 100}}, "thinking_token_budget"},
      {{{"logprob_token_ids", {5}}}, "logprob_token_ids"},
      {{{"return_tokens_as_token_ids", true}}, "return_tokens_as_token_ids"},
      {{{"stop_regex", "a+"}}, "stop_regex"},
      {{{"no_stop_trim", true}}, "no_stop_trim"},
      {{{"custom_logit_processor", "x"}}, "custom_logit_processor"},
      {{{"lora_path", "x"}}, "lora_path"},
      {{{"separate_reasoning", false}}, "separate_reasoning"},
      {{{"modalities", {"text", "audio"}}}, "modalities"},
      {{{"request_id", "a b"}}, "request_id"},
      {{{"request_id", ""}}, "request_id"},
      {{{"response_format", "json"}}, "response_format"},
      {{{"response_format", {{"type", "xml"}}}}, "response_format.type"},
      {{{"response_format", {{"type", "json_schema"}}}}, "response_format.json_schema"},
      {{{"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "x"}}}}}},
       "response_format.json_schema.schema"},
      {{{"response_format",
         {{"type", "json_schema"},
          {"json_schema", {{"schema", {{"type", "string"}}}, {"strict", 1}}}}}},
       "response_format.json_schema.strict"},
      {{{"structured_outputs", "json"}}, "structured_outputs"},
      {{{"structured_outputs", {{"jsn", "a"}}}}, "structured_outputs"},
      {{{"structured_outputs", {{"regex", "a"}, {"json", {{"type", "object"}}}}}},
       "structured_outputs"},
      {{{"structured_outputs", {{"regex", 5}}}}, "structured_outputs.regex"},
      {{{"structured_outputs", {{"regex", ""}}}}, "structured_outputs.regex"},
      {{{"structured_outputs", {{"choice", json::array()}}}}, "structured_outputs.choice"},
      {{{"structured_outputs", {{"choice", "a"}}}}, "structured_outputs.choice"},
      {{{"structured_outputs", {{"choice", {1}}}}}, "structured_outputs.choice"},
      {{{"structured_outputs", {{"json", 5}}}}, "structured_outputs.json"},
      {{{"structured_outputs", {{"structural_tag", "{}"}}}}, "structured_outputs.structural_tag"},
      {{{"structured_outputs", {{"regex", "a"}}}, {"response_format", {{"type", "json_object"}}}},
       "structured_outputs"},
      {{{"structured_outputs", {{"regex", "a"}}}, {"ignore_eos", true}}, "ignore_eos"},
  };
  for (const Fault& fault : faults) {
    ChatRequest chat;
    ApiError error = Chat(fault.fields, &chat);
    EXPECT_EQ(error.http_status, 400) << fault.fields;
    EXPECT_EQ(error.param, fault.param) << fault.fields;
    EXPECT_NE(error.message.find(fault.param), std::string::npos) << error.message;
    CompletionRequest completion;
    error = Completion(fault.fields, &completion);
    EXPECT_EQ(error.http_status, 400) << fault.fields;
    EXPECT_EQ(error.param, fault.param) << fault.fields;
  }
}

TEST(Requests, ChatFaultsNameTheirField) {
  const auto message = [](json value) { return json{{"messages", json::array({value})}}; };
  const auto tools = [](std::vector<json> list) { return json{{"tools", list}}; };
  const json call = {{"id", "1"}, {"function", {{"name", "f"}, {"arguments", "{}"}}}};
  const Fault faults[] = {
      {{{"messages", nullptr}}, "messages"},
      {{{"messages", "hi"}}, "messages"},
      {{{"messages", json::array()}}, "messages"},
      {message("hi"), "messages[0]"},
      {message({{"content", "x"}}), "messages[0].role"},
      {message({{"role", "wizard"}, {"content", "x"}}), "messages[0].role"},
      {message({{"role", "user"}, {"content", 5}}), "messages[0].content"},
      {message({{"role", "user"}, {"content", {5}}}), "messages[0].content[0]"},
      {message({{"role", "user"}, {"content", {{{"type", "text"}}}}}),
       "messages[0].content[0].text"},
      {message({{"role", "assistant"}, {"tool_calls", {{{"id", "1"}}}}}),
       "messages[0].tool_calls[0].function"},
      {message({{"role", "assistant"}, {"reasoning_content", 1}}), "messages[0].reasoning_content"},
      {{{"max_completion_tokens", 0}}, "max_completion_tokens"},
      {{{"top_logprobs", 2}}, "top_logprobs"},
      {{{"logprobs", true}, {"top_logprobs", 21}}, "top_logprobs"},
      {{{"logprobs", 1}}, "logprobs"},
      {{{"thinking", {{"type", "maybe"}}}}, "thinking.type"},
      {{{"thinking", "on"}}, "thinking"},
      {{{"reasoning_effort", "enormous"}}, "reasoning_effort"},
      {{{"reasoning_effort", 3}}, "reasoning_effort"},
      {{{"chat_template_kwargs", {{"thinking", 1}}}}, "chat_template_kwargs.thinking"},
      {{{"tools", "x"}}, "tools"},
      {{{"tools", {"x"}}}, "tools[0]"},
      {tools({{{"type", "custom"}, {"custom", {{"name", "f"}}}}}), "tools[0].type"},
      {tools({{{"type", "function"}}}), "tools[0].function"},
      {tools({{{"type", "function"}, {"function", "f"}}}), "tools[0].function"},
      {tools({Tool({{"name", "a b"}})}), "tools[0].function.name"},
      {tools({Tool({{"name", "a\""}})}), "tools[0].function.name"},
      {tools({Tool({{"name", std::string(129, 'a')}})}), "tools[0].function.name"},
      {tools({Tool({{"name", "f"}}), Tool({{"name", "f"}})}), "tools[1].function.name"},
      {tools({Tool({{"name", "f"}, {"strict", "yes"}})}), "tools[0].function.strict"},
      {tools({Tool({{"name", "f"}, {"parameters", "x"}})}), "tools[0].function.parameters"},
      {tools({Tool({{"name", "f"}, {"description", 1}})}), "tools[0].function.description"},
      {tools(std::vector<json>(513, json::object())), "tools"},
      {{{"tool_choice", "required"}}, "tool_choice"},
      {{{"tool_choice", "perhaps"}}, "tool_choice"},
      {{{"tool_choice", 5}}, "tool_choice"},
      {{{"tool_choice", {{"type", "function"}}}}, "tool_choice.function"},
      {{{"tool_choice", {{"type", "allowed_tools"}}}}, "tool_choice.type"},
      {{{"tool_choice", {{"type", "function"}, {"function", {{"name", "g"}}}}},
        {"tools", {Tool({{"name", "f"}})}}},
       "tool_choice.function.name"},
      {{{"tool_choice", "required"},
        {"tools", {Tool({{"name", "f"}})}},
        {"response_format", {{"type", "json_object"}}}},
       "tool_choice"},
      {{{"parallel_tool_calls", "no"}}, "parallel_tool_calls"},
      {message({{"role", "tool"}, {"content", "42"}}), "messages[0].role"},
      {message({{"role", "user"}, {"tool_calls", {call}}}), "messages[0].tool_calls"},
      {message({{"role", "user"}, {"content", "x"}, {"prefix", true}}), "messages[0].prefix"},
      {message({{"role", "assistant"}, {"tool_calls", {{{"type", "custom"}}}}}),
       "messages[0].tool_calls[0].type"},
      {{{"messages", {{{"role", "user"}, {"content", "x"}, {"task", "query"}}}},
        {"task", "domain"}},
       "task"},
      {{{"messages", {{{"role", "assistant"}, {"content", "x"}, {"prefix", true}}}},
        {"response_format", {{"type", "json_object"}}}},
       "messages[0].prefix"},
      {{{"messages", {{{"role", "assistant"}, {"content", "x"}}}},
        {"continue_final_message", true},
        {"response_format", {{"type", "json_object"}}}},
       "continue_final_message"},
      {{{"input_ids", {1, 2}}}, "input_ids"},
      {{{"messages", nullptr}, {"input_ids", json::array()}}, "input_ids"},
      {{{"messages", nullptr}, {"input_ids", {-1}}}, "input_ids"},
      {{{"add_generation_prompt", false}}, "add_generation_prompt"},
      {{{"echo", true}}, "echo"},
  };
  for (const Fault& fault : faults) {
    ChatRequest chat;
    const ApiError error = Chat(fault.fields, &chat);
    EXPECT_EQ(error.http_status, 400) << fault.fields;
    EXPECT_EQ(error.param, fault.param) << fault.fields << error.message;
  }
}

TEST(Requests, CompletionFaultsNameTheirField) {
  const Fault faults[] = {
      {{{"prompt", nullptr}}, "prompt"},
      {{{"prompt", 5}}, "prompt"},
      {{{"prompt", json::array()}}, "prompt"},
      {{{"prompt", {"a", 1}}}, "prompt"},
      {{{"prompt", {1, "a"}}}, "prompt"},
      {{{"prompt", {1.5}}}, "prompt"},
      {{{"prompt", {-1}}}, "prompt"},
      {{{"prompt", {{{1, 2}, "a"}}}}, "prompt"},
      {{{"logprobs", 21}}, "logprobs"},
      {{{"max_tokens", 0}, {"echo", false}}, "max_tokens"},
      {{{"echo", "x"}}, "echo"},
      {{{"n", 1024}, {"prompt", {"a", "b"}}}, "prompt"},
  };
  for (const Fault& fault : faults) {
    CompletionRequest completion;
    const ApiError error = Completion(fault.fields, &completion);
    EXPECT_EQ(error.http_status, 400) << fault.fields;
    EXPECT_EQ(error.param, fault.param) << fault.fields;
  }
}

TEST(Requests, BodiesThatAreNoObject) {
  for (const char* body : {"", "{", "[]", "3", "{\"prompt\": \"\\ud80\"}", "{\"a\":1}x"}) {
    CompletionRequest completion;
    EXPECT_EQ(ParseCompletionRequest(body, ServeOptions(), &completion).http_status, 400) << body;
  }
}

// Half an emoji is told as a character that was not understood, as in all texts of clients.
TEST(Requests, LoneSurrogatesAreReplaced) {
  const struct {
    const char *sent, *text;
  } cases[] = {
      {R"(a\ud83d b)", "a\xEF\xBF\xBD b"},
      {R"(\ud83d\ud83d\ude00\udc00)", "\xEF\xBF\xBD\xF0\x9F\x98\x80\xEF\xBF\xBD"},
      {R"(\\ud83d\uD83D)", "\\ud83d\xEF\xBF\xBD"},
  };
  for (const auto& row : cases) {
    CompletionRequest completion;
    const std::string body = fmt::format("\xEF\xBB\xBF{{\"prompt\": \"{}\"}}", row.sent);
    const ApiError error = ParseCompletionRequest(body, ServeOptions(), &completion);
    EXPECT_FALSE(error.any()) << error.message;
    EXPECT_EQ(completion.texts, std::vector<std::string>{row.text});
  }
  ChatRequest chat;  // also where a text goes on as it was spelt
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}],
      "tools": [{"name": "f", "parameters": {"title": "\udc00"}}]})";
  EXPECT_FALSE(ParseChatRequest(body, ServeOptions(), &chat).any());
  EXPECT_EQ(chat.tools.tools[0].parameters, R"({"title": "\ufffd"})");
}

TEST(Requests, FormsOfPrompt) {
  CompletionRequest text, texts, ids, lists;
  EXPECT_FALSE(Completion({{"prompt", "a"}}, &text).any());
  EXPECT_EQ(text.texts, std::vector<std::string>{"a"});
  EXPECT_FALSE(Completion({{"prompt", {"a", "b"}}}, &texts).any());
  EXPECT_EQ(texts.texts, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(Completion({{"prompt", {1, 2.0}}}, &ids).any());
  EXPECT_EQ(ids.ids, (std::vector<std::vector<int32_t>>{{1, 2}}));
  EXPECT_FALSE(Completion({{"prompt", json::array({{1, 2}, {3}})}}, &lists).any());
  EXPECT_EQ(lists.ids, (std::vector<std::vector<int32_t>>{{1, 2}, {3}}));
}

TEST(Requests, DefaultsAndOffValuesPass) {
  CompletionRequest completion;
  EXPECT_FALSE(Completion({{"best_of", 1},
                           {"suffix", nullptr},
                           {"use_beam_search", false},
                           {"logit_bias", json::object()},
                           {"guided_json", nullptr},
                           {"response_format", {{"type", "text"}}},
                           {"something_new", 5},
                           {"prompt_logprobs", false},
                           {"separate_reasoning", true},
                           {"modalities", {"text"}},
                           {"thinking", {{"budget_tokens", 5}}},
                           {"reasoning", {{"max_tokens", 5}}},
                           {"user", "me"}},
                          &completion)
                   .any());
  EXPECT_EQ(completion.common.max_tokens, 16);
  EXPECT_EQ(completion.common.sampling.temperature, 1.0f);
  EXPECT_FALSE(completion.common.sampling.seed.has_value());
  EXPECT_EQ(completion.common.sampling.top_logprobs, -1);
}

TEST(Requests, SamplingFieldsArrive) {
  ChatRequest chat;
  EXPECT_FALSE(Chat({{"temperature", 0},
                     {"top_p", 0.5},
                     {"top_k", 7},
                     {"min_p", 0.1},
                     {"seed", -1},
                     {"presence_penalty", 1},
                     {"frequency_penalty", -1},
                     {"repetition_penalty", 1.2},
                     {"logit_bias", {{"5", -100}}},
                     {"min_tokens", 3},
                     {"logprobs", true},
                     {"top_logprobs", 4},
                     {"stop", "x"},
                     {"max_tokens", 5},
                     {"max_completion_tokens", 6}},
                    &chat)
                   .any());
  const SamplingParams& sampling = chat.common.sampling;
  EXPECT_EQ(sampling.temperature, 0);
  EXPECT_EQ(sampling.top_p, 0.5f);
  EXPECT_EQ(sampling.top_k, 7);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.seed, ~uint64_t{0});
  EXPECT_EQ(sampling.repetition_penalty, 1.2f);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{5, -100.0f}}));
  EXPECT_EQ(sampling.min_tokens, 3);
  EXPECT_EQ(sampling.top_logprobs, 4);
  EXPECT_EQ(chat.common.max_tokens, 6);
  EXPECT_EQ(chat.common.stop, std::vector<std::string>{"x"});
}

struct ThinkingCase {
  json fields;
  bool thinking;
  ChatEffort effort;
};

TEST(Requests, WaysToAskForThinking) {
  const auto kwargs = [](json value) { return json{{"chat_template_kwargs", value}}; };
  const ThinkingCase cases[] = {
      {json::object(), true, ChatEffort::kDefault},
      {{{"thinking", {{"type", "disabled"}}}}, false, ChatEffort::kDefault},
      {{{"thinking", {{"type", "disabled"}}}, {"reasoning_effort", "max"}},
       false,
       ChatEffort::kMax},
      {{{"thinking", {{"type", "enabled"}}}, {"reasoning_effort", "none"}},
       true,
       ChatEffort::kDefault},
      {{{"reasoning_effort", "none"}}, false, ChatEffort::kDefault},
      {{{"reasoning_effort", "minimal"}}, true, ChatEffort::kLow},
      {{{"reasoning_effort", "medium"}}, true, ChatEffort::kHigh},
      {{{"reasoning_effort", "max"}}, true, ChatEffort::kMax},
      {kwargs({{"thinking", false}}), false, ChatEffort::kDefault},
      {kwargs({{"enable_thinking", false}}), false, ChatEffort::kDefault},
      {kwargs({{"reasoning_effort", "max"}}), true, ChatEffort::kMax},
      {{{"reasoning", {{"effort", "low"}}}}, true, ChatEffort::kLow},
      {{{"reasoning", {{"enabled", false}}}}, false, ChatEffort::kDefault},
  };
  for (const ThinkingCase& row : cases) {
    ChatRequest chat;
    const ApiError error = Chat(row.fields, &chat);
    EXPECT_FALSE(error.any()) << error.message;
    EXPECT_EQ(chat.chat.thinking, row.thinking) << row.fields;
    EXPECT_EQ(chat.chat.effort, row.effort) << row.fields;
  }
}

TEST(Requests, MessagesArrive) {
  const std::string body = R"({"messages": [
      {"role": "system", "content": "S"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, "b"]},
      {"role": "assistant", "content": null, "reasoning": "r", "tool_calls":
        [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1.0}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "42"}],
      "tools": [{"type": "function", "function": {"name": "f", "parameters": {"k": 1e30}}}]})";
  ChatRequest chat;
  const ApiError error = ParseChatRequest(body, ServeOptions(), &chat);
  ASSERT_FALSE(error.any()) << error.message;
  ASSERT_EQ(chat.messages.size(), 4u);
  EXPECT_EQ(chat.messages[1].parts.size(), 2u);
  EXPECT_EQ(chat.messages[2].reasoning, "r");
  EXPECT_TRUE(chat.messages[2].has_reasoning);
  EXPECT_EQ(chat.messages[2].tool_calls[0].arguments, "{\"x\": 1.0}");
  EXPECT_EQ(chat.messages[3].tool_call_id, "c1");
  // The client's own spelling, "1e30" included.
  ASSERT_EQ(chat.chat.tools.size(), 1u);
  EXPECT_EQ(chat.chat.tools[0],
            R"({"type": "function", "function": {"name": "f", "parameters": {"k": 1e30}}})");
}

TEST(Requests, ToolsArrive) {
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}], "tools": [
      {"type": "function", "function": {"name": "f", "strict": true,
                                        "parameters": {"maximum": 1e30}}},
      {"name": "天気.now", "parameters": null}],
      "parallel_tool_calls": false})";
  ChatRequest chat;
  const ApiError error = ParseChatRequest(body, ServeOptions(), &chat);
  ASSERT_FALSE(error.any()) << error.message;
  EXPECT_EQ(chat.tools.use, ToolUse::kAuto);
  EXPECT_TRUE(chat.tools.one_call);
  ASSERT_EQ(chat.tools.tools.size(), 2u);
  EXPECT_EQ(chat.tools.tools[0].name, "f");
  EXPECT_EQ(chat.tools.tools[0].parameters, R"({"maximum": 1e30})");
  EXPECT_TRUE(chat.tools.tools[0].strict);
  EXPECT_EQ(chat.tools.tools[1].name, "天気.now");
  EXPECT_EQ(chat.tools.tools[1].parameters, "");
  EXPECT_FALSE(chat.tools.tools[1].strict);
  EXPECT_EQ(chat.chat.tools.size(), 2u);
}

TEST(Requests, ToolChoices) {
  const json tools = {Tool({{"name", "f"}}), Tool({{"name", "g"}})};
  const json named = {{"type", "function"}, {"function", {{"name", "g"}}}};
  ChatRequest automatic, none, required, one;
  EXPECT_FALSE(Chat({{"tools", tools}, {"tool_choice", "auto"}}, &automatic).any());
  EXPECT_EQ(automatic.tools.use, ToolUse::kAuto);
  EXPECT_FALSE(automatic.tools.one_call);
  EXPECT_FALSE(Chat({{"tools", tools}, {"tool_choice", "none"}}, &none).any());
  EXPECT_EQ(none.tools.use, ToolUse::kNone);
  EXPECT_TRUE(none.chat.tools.empty());
  EXPECT_FALSE(Chat({{"tools", tools}, {"tool_choice", "required"}}, &required).any());
  EXPECT_EQ(required.tools.use, ToolUse::kRequired);
  EXPECT_EQ(required.tools.named, "");
  EXPECT_FALSE(Chat({{"tools", tools}, {"tool_choice", named}}, &one).any());
  EXPECT_EQ(one.tools.use, ToolUse::kRequired);
  EXPECT_EQ(one.tools.named, "g");
  EXPECT_TRUE(one.tools.one_call);
  EXPECT_EQ(one.tools.tools.size(), 2u);
  EXPECT_EQ(one.chat.tools.size(), 2u);
}

TEST(Requests, FormsOfOutput) {
  using Kind = OutputRule::Kind;
  const std::string messages = R"({"messages": [{"role": "user", "content": "x"}], )";
  const struct {
    const char* fields;
    Kind kind;
    const char* field;
    const char* text;
    const char* appendix;
  } cases[] = {
      {R"("response_format": {"type": "text"}})", Kind::kNone, "", "", ""},
      {R"("response_format": {"type": "json_object"}})", Kind::kJsonObject, "response_format", "",
       R"({"type": "json_object"})"},
      {R"("response_format": {"type": "json_schema", "json_schema":
          {"name": "n", "schema": {"maximum": 1.0e30}}}})",
       Kind::kJsonSchema, "response_format.json_schema.schema", R"({"maximum": 1.0e30})",
       R"({"maximum": 1.0e30})"},
      {R"("structured_outputs": {"json": {"const": 1.50e3}}})", Kind::kJsonSchema,
       "structured_outputs.json", R"({"const": 1.50e3})", ""},
      {R"("structured_outputs": {"json": "{\"type\": \"object\"}"}})", Kind::kJsonSchema,
       "structured_outputs.json", R"({"type": "object"})", ""},
      {R"("structured_outputs": {"json": true}})", Kind::kJsonSchema, "structured_outputs.json",
       "true", ""},
      {R"("structured_outputs": {"regex": "a+"}})", Kind::kRegex, "structured_outputs.regex", "a+",
       ""},
      {R"("structured_outputs": {"grammar": "root ::= x"}})", Kind::kGrammar,
       "structured_outputs.grammar", "root ::= x", ""},
      {R"("structured_outputs": {"json_object": true, "regex": null}})", Kind::kJsonObject,
       "structured_outputs.json_object", "", ""},
      {R"("structured_outputs": null})", Kind::kNone, "", "", ""},
  };
  for (const auto& row : cases) {
    ChatRequest chat;
    const ApiError error = ParseChatRequest(messages + row.fields, ServeOptions(), &chat);
    EXPECT_FALSE(error.any()) << row.fields << error.message;
    EXPECT_EQ(chat.common.output.kind, row.kind) << row.fields;
    EXPECT_EQ(chat.common.output.field, row.field);
    EXPECT_EQ(chat.common.output.text, row.text);
    EXPECT_EQ(chat.chat.response_format, row.appendix);
  }
  ChatRequest chat;
  EXPECT_FALSE(Chat({{"structured_outputs", {{"choice", {"a", "b"}}}}}, &chat).any());
  EXPECT_EQ(chat.common.output.choices, (std::vector<std::string>{"a", "b"}));
}

// A field is the same however its name is spelt, and the first of two counts.
TEST(Requests, NamesMayBeSpeltWithEscapes) {
  const std::string tool = R"({"type": "function", "function": {"name": "f", "parameters": {}}})";
  const std::string escaped =
      R"({"type": "function", "functi\u006fn": {"name": "f", "par\u0061meters": {}}})";
  for (const std::string& one : {tool, escaped}) {
    for (const char* name : {"tools", "to\\u006fls"}) {
      const std::string body = fmt::format(
          R"({{"messages": [{{"role": "user", "content": "x"}}], "{}": [{}], "tools": 5,
              "structur\u0065d_outputs": {{"js\u006fn": {{"type": "null"}}}}}})",
          name, one);
      ChatRequest chat;
      const ApiError error = ParseChatRequest(body, ServeOptions(), &chat);
      EXPECT_FALSE(error.any()) << body << error.message;
      ASSERT_EQ(chat.tools.tools.size(), 1u);
      EXPECT_EQ(chat.tools.tools[0].parameters, "{}");
      EXPECT_EQ(chat.chat.tools, std::vector<std::string>{one});
      EXPECT_EQ(chat.common.output.text, R"({"type": "null"})");
    }
  }
}

TEST(Requests, ATaskIsTheLastMessages) {
  ChatRequest chat;
  EXPECT_FALSE(Chat({{"task", "query"}}, &chat).any());
  EXPECT_EQ(chat.messages.back().task, "query");
}

TEST(Requests, InputIdsStandForMessages) {
  ChatRequest chat;
  EXPECT_FALSE(Chat({{"messages", nullptr}, {"input_ids", {3, 4}}}, &chat).any());
  EXPECT_EQ(chat.input_ids, (std::vector<int32_t>{3, 4}));
}

}  // namespace
}  // namespace seacliff::serve
