// Forms of output and of calls over the wire: what the engine may say, and what cannot be asked
// for.
#include "serve/rules.h"

#include <gtest/gtest.h>

#include "serve/known_grammars.h"
#include "serve/testing/server_fixture.h"

namespace seacliff::serve {
namespace {

using testing::ChatBody;
using testing::ClientReply;
using testing::json;
using testing::kEndToken;
using testing::TestTokenizer;

class RulesTest : public testing::ServerTest {
 protected:
  ClientReply Chat(json fields) {
    json body = ChatBody();
    body.update(fields);
    return Post("/v1/chat/completions", body);
  }
  json Message(json fields) {
    const ClientReply reply = Chat(std::move(fields));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.Json()["choices"][0]["message"];
  }

  const json no_thinking = {{"type", "disabled"}};
  const json tools = {{{"type", "function"},
                       {"function",
                        {{"name", "f"},
                         {"strict", true},
                         {"parameters",
                          {{"type", "object"},
                           {"properties", {{"x", {{"type", "integer"}, {"maximum", 0}}}}},
                           {"required", {"x"}}}}}}}};
};

TEST_F(RulesTest, TheContentHasTheFormThatIsAskedFor) {
  Start();
  ReplyWith(std::string("maybe") + kEndToken);
  const json choice = {{"choice", {"yes", "no"}}};
  EXPECT_EQ(Message({{"structured_outputs", choice}, {"thinking", no_thinking}})["content"], "no");
  // It holds behind the reasoning.
  ReplyWith(std::string("maybe</think>no way") + kEndToken);
  const json message = Message({{"structured_outputs", choice}});
  EXPECT_EQ(message["reasoning"], "maybe");
  EXPECT_EQ(message["content"], "no");
  // And for each choice, and each prompt.
  const ClientReply raw =
      Post("/v1/completions",
           {{"prompt", {"a", "b"}}, {"n", 2}, {"structured_outputs", {{"regex", "[xy]{3}"}}}});
  ASSERT_EQ(raw.status, 200) << raw.body;
  const json choices = raw.Json()["choices"];
  ASSERT_EQ(choices.size(), 4u);
  for (const json& one : choices) EXPECT_EQ(one["text"], "xxy");
  EXPECT_EQ(Metric("seacliff:grammar_compile_seconds_count"), 3);
}

TEST_F(RulesTest, GrammarsAreKnownByAllThatTheyAreMadeOf) {
  const Grammars grammars(TestTokenizer(), ChatProfile::kPreview);
  RuleSpec rules;
  rules.output = {OutputRule::Kind::kRegex, "", "[a-z]+", {}, true};
  EXPECT_FALSE(CompileRules(grammars, &rules).any());
  KnownGrammars known(2 * rules.grammar->bytes() + 1000);
  RuleSpec same = rules, other = rules;
  same.grammar.reset();
  EXPECT_FALSE(known.Find(&same));
  known.Add(rules);
  EXPECT_TRUE(known.Find(&same));
  EXPECT_EQ(&same.grammar->impl(), &rules.grammar->impl());
  other.output.kind = OutputRule::Kind::kGrammar;
  EXPECT_FALSE(known.Find(&other));
  for (const char* text : {"b", "c", "d"}) {  // they take the place of the oldest
    rules.output.text = text;
    known.Add(rules);
  }
  EXPECT_FALSE(known.Find(&same));
  EXPECT_TRUE(known.Find(&rules));
}

TEST_F(RulesTest, AResponseFormatIsInThePrompt) {
  Start();
  ReplyWith(std::string("{}") + kEndToken);
  const auto prompt = [&](json format) {
    EXPECT_EQ(Message({{"response_format", format}, {"thinking", no_thinking}})["content"], "{}");
    return TestTokenizer().Decode(engine.seen().back()->prompt);
  };
  EXPECT_NE(prompt({{"type", "json_object"}}).find("{\"type\": \"json_object\"}<"),
            std::string::npos);
  const json schema = {{"type", "object"}, {"title", "T"}};
  EXPECT_NE(prompt({{"type", "json_schema"}, {"json_schema", {{"schema", schema}}}})
                .find("{\"title\": \"T\", \"type\": \"object\"}<"),
            std::string::npos);
}

TEST_F(RulesTest, WhatCannotBeEnforcedIsRefusedByName) {
  Start();
  const json bad = {{"type", "object"}, {"properties", {{"a", {{"$ref", "http://x/y"}}}}}};
  const struct {
    json fields;
    const char* param;
    const char* told;
  } cases[] = {
      {{{"structured_outputs", {{"json", bad}}}}, "structured_outputs.json", "#/properties/a"},
      {{{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", bad}}}}}},
       "response_format.json_schema.schema",
       "#/properties/a"},
      {{{"structured_outputs", {{"json", "{"}}}}, "structured_outputs.json", "JSON"},
      {{{"structured_outputs", {{"regex", "("}}}}, "structured_outputs.regex", ""},
      {{{"structured_outputs", {{"grammar", "root = 1"}}}}, "structured_outputs.grammar", ""},
      {{{"tools",
         {{{"type", "function"}, {"function", {{"name", "g"}}}},
          {{"type", "function"},
           {"function", {{"name", "f"}, {"strict", true}, {"parameters", bad}}}}}}},
       "tools[1].function.parameters",
       "#/properties/a"},
  };
  for (const auto& row : cases) {
    const ClientReply reply = Chat(row.fields);
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.ErrorField("param"), row.param) << reply.body;
    const std::string message = reply.ErrorField("message");
    EXPECT_TRUE(message.starts_with(row.param)) << message;
    EXPECT_NE(message.find(row.told), std::string::npos) << message;
  }
  EXPECT_TRUE(engine.seen().empty());
}

TEST_F(RulesTest, CallsThatAreAskedFor) {
  Start();
  ReplyWith(std::string("I would rather talk.") + kEndToken);
  const json named = {{"type", "function"}, {"function", {{"name", "f"}}}};
  for (const json& choice : {json("required"), named}) {
    const ClientReply reply = Chat({{"tools", tools},
                                    {"tool_choice", choice},
                                    {"thinking", no_thinking},
                                    {"max_tokens", 300}});
    ASSERT_EQ(reply.status, 200) << reply.body;
    const json message = reply.Json()["choices"][0]["message"];
    ASSERT_TRUE(message.contains("tool_calls")) << reply.body;
    EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "f");
    const json arguments =
        json::parse(message["tool_calls"][0]["function"]["arguments"].get<std::string>());
    EXPECT_TRUE(arguments["x"].is_number_integer()) << arguments;
  }
}

TEST_F(RulesTest, AnAnswerInFormOrACall) {
  Start();
  const json fields = {{"tools", tools},
                       {"response_format", {{"type", "json_object"}}},
                       {"thinking", no_thinking},
                       {"max_tokens", 300}};
  ReplyWith(std::string("{\"a\": 1}") + kEndToken);
  EXPECT_EQ(Message(fields)["content"], "{\"a\": 1}");
  ReplyWith(std::string("\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
                        "<｜DSML｜parameter name=\"x\" string=\"false\">-2</｜DSML｜parameter>\n"
                        "</｜DSML｜invoke>\n</｜DSML｜tool_calls>") +
            kEndToken);
  const json message = Message(fields);
  ASSERT_TRUE(message.contains("tool_calls")) << message;
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], "{\"x\": -2}");
}

TEST_F(RulesTest, CallsThatAreNotHaveNoRulesUntilTheyBegin) {
  Start();
  ReplyWith(std::string("I would rather talk.") + kEndToken);
  const json free = Message({{"tools", tools}, {"thinking", no_thinking}});
  EXPECT_EQ(free["content"], "I would rather talk.");
  EXPECT_NE(engine.seen().back()->rules, nullptr);
  ReplyWith(std::string("Well.\n\n<｜DSML｜calls>\n<｜DSML｜invoke name=\"g\">") + kEndToken);
  const ClientReply reply =
      Chat({{"tools", tools}, {"thinking", no_thinking}, {"max_tokens", 300}});
  const json message = reply.Json()["choices"][0]["message"];
  EXPECT_EQ(message["content"], "Well.");
  ASSERT_TRUE(message.contains("tool_calls")) << reply.body;
  EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "f");
  ReplyWith(std::string("Fine.") + kEndToken);
  EXPECT_EQ(
      Message({{"tools", tools}, {"tool_choice", "none"}, {"thinking", no_thinking}})["content"],
      "Fine.");
  EXPECT_EQ(engine.seen().back()->rules, nullptr);
}

}  // namespace
}  // namespace seacliff::serve
