// Bugs that servers of this model have had with replies, each by its symptom (encoding.md 3.5), and
// what must hold of every reply (encoding.md 6).
#include <gtest/gtest.h>

#include "text/testing_reply.h"

namespace seacliff {
namespace {

using namespace testing_reply;  // NOLINT: its words are this file's

using Calls = std::vector<std::pair<std::string, std::string>>;

class ReplyRegressions : public ReplyFixture {
 protected:
  ReplyRegressions() { thinking_.starts_in_reasoning = true; }

  const std::string rome_ = Invoke("get_weather", Parameter("city", "Rome"));
  const Calls rome_calls_ = {{"get_weather", R"({"city": "Rome"})"}};
  ReplyOptions thinking_ = WithTools();
};

// vLLM 40800, 40801. Run cuts at every byte.
TEST_F(ReplyRegressions, FragmentsOfTagsInTheContent) {
  for (const char* text : {"Done.", "Done.\n", "a <", "a </", "", "a\n\n<"}) {
    const Outcome outcome = Run(text + Block(rome_), WithTools());
    std::string content = text;
    content.resize(content.find_last_not_of('\n') + 1);
    EXPECT_EQ(outcome.content, content);
    EXPECT_EQ(outcome.calls, rome_calls_);
  }
  // ".<" is one token.
  EXPECT_EQ(Run("Done.<｜DSML｜tool_calls>\n" + rome_, WithTools()).content, "Done.");
}

// vLLM 53227.
TEST_F(ReplyRegressions, UnfinishedClosingTagLeaksIntoArguments) {
  const std::string good = Block(rome_ + Invoke("now", ""));
  for (const char* tag :
       {"</｜DSML｜parameter\n", "</｜DSML｜parameter", "</｜DSML｜\n", "</｜DSML｜param>\n"}) {
    const Outcome outcome = Run(Replaced(good, "</｜DSML｜parameter>\n", tag), WithTools());
    EXPECT_EQ(outcome.calls, (Calls{rome_calls_[0], {"now", "{}"}})) << tag;
    EXPECT_GE(outcome.fault(CallFault::kMarkup), 1) << tag;
  }
}

// vLLM 41624, Dynamo 10646, SGLang 32539, vllm-ascend 14511.
TEST_F(ReplyRegressions, CallBeforeTheEndOfThinkingIsSwallowed) {
  const Outcome outcome = Run("I need the weather." + Block(rome_), thinking_);
  EXPECT_EQ(outcome.reasoning, "I need the weather.");
  EXPECT_EQ(outcome.content, "");
  EXPECT_EQ(outcome.calls, rome_calls_);
}

// vllm-ascend 14511.
TEST_F(ReplyRegressions, EmptyArgumentsOfACallThatWasCutOff) {
  const Outcome outcome =
      Run("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n", WithTools());
  EXPECT_EQ(outcome.streamed, Calls());
  EXPECT_TRUE(outcome.cut);
}

// vLLM 43933 is a matter of the stream; the parser's deltas are of one part each.
TEST_F(ReplyRegressions, ReasoningAndContentInOneDelta) {
  ReplyParser parser(tokenizer_, thinking_);
  const auto deltas = parser.FeedBytes("a</think>b" + Block(rome_) + "\n");
  ASSERT_EQ(deltas.size(), 4u);
  EXPECT_EQ(deltas[0].part, ReplyPart::kReasoning);
  EXPECT_EQ(deltas[1].part, ReplyPart::kContent);
  EXPECT_EQ(deltas[2].name, "get_weather");
  EXPECT_EQ(deltas[3].text, R"({"city": "Rome"})");
}

// SGLang 40236.
TEST_F(ReplyRegressions, OneBadCallMakesAllOfThemContent) {
  const std::string bad[] = {
      "<｜DSML｜invoke>\n</｜DSML｜invoke>\n",
      "<｜DSML｜invoke name=\"\">\n</｜DSML｜invoke>\n",
      "<｜DSML｜invoke nme=\"f\">\n" + Parameter("a", "b") + "</｜DSML｜invoke>\n",
      Invoke("get_weather", "<｜DSML｜parameter name=\"city\" string=\"true\">never closed\n"),
      Parameter("city", "Paris"),
      "some text\n",
      "<｜DSML｜invoke name=\"get_weather\">\n",
  };
  for (const std::string& part : bad) {
    const Outcome before = Run("Hm." + Block(part + rome_), WithTools());
    const Outcome behind = Run("Hm." + Block(rome_ + part), WithTools());
    EXPECT_EQ(before.content + behind.content, "Hm.Hm.") << part;
    ASSERT_FALSE(before.calls.empty()) << part;
    EXPECT_EQ(before.calls.back(), rome_calls_[0]) << part;
    ASSERT_FALSE(behind.calls.empty()) << part;
    EXPECT_EQ(behind.calls.front(), rome_calls_[0]) << part;
    EXPECT_FALSE(before.whole || behind.whole) << part;
  }
  // A call without a block.
  EXPECT_EQ(Run("Hm.\n\n" + rome_, WithTools()).calls, rome_calls_);
}

// SGLang 38924.
TEST_F(ReplyRegressions, ArgumentsInsideOneParameter) {
  for (const char* key : {"arguments", "input"}) {
    for (const bool string : {true, false}) {
      const std::string wrapped = Parameter(key, R"({"city": "Rome"})", string);
      const Outcome outcome = Run(Block(Invoke("get_weather", wrapped)), WithTools());
      EXPECT_EQ(outcome.calls, rome_calls_);
      EXPECT_EQ(outcome.fault(CallFault::kWrapped), 1);
      // Not if it is one of several, no object, or of an unknown tool.
      const Outcome several =
          Run(Block(Invoke("get_weather", wrapped + Parameter("days", "2", false))), WithTools());
      ASSERT_EQ(several.calls.size(), 1u);
      EXPECT_TRUE(several.calls[0].second.starts_with("{\"" + std::string(key) + "\": "));
      EXPECT_TRUE(several.calls[0].second.ends_with(", \"days\": 2}"));
    }
    const std::string text = Parameter(key, "Rome");
    EXPECT_EQ(Run(Block(Invoke("get_weather", text)), WithTools()).calls[0].second,
              "{\"" + std::string(key) + "\": \"Rome\"}");
  }
  EXPECT_EQ(
      Run(Block(Invoke("other", Parameter("arguments", "{}", false))), WithTools()).calls[0].second,
      R"({"arguments": {}})");
  // All of them as JSON where parameters should be.
  const std::string body = "{\"city\": \"Rome\"}\n";
  EXPECT_EQ(Run(Block(Invoke("get_weather", body)), WithTools()).calls, rome_calls_);
}

// ds4 13.
TEST_F(ReplyRegressions, ThinkingIsContentWithoutTools) {
  const Outcome outcome = Run("a</think>b", {.starts_in_reasoning = true});
  EXPECT_EQ(outcome.reasoning, "a");
  EXPECT_EQ(outcome.content, "b");
}

// yhfgyyf 100: what the prompt ends with decides, not what the request says.
TEST_F(ReplyRegressions, ChatPromptReadAsThinking) {
  EXPECT_EQ(Run("b", WithTools()).content, "b");
  EXPECT_EQ(Run("b" + Block(rome_), WithTools()).reasoning, "");
}

// Samples for the properties.
std::vector<std::string> Samples() {
  const std::string write = Invoke(
      "write", Parameter("path", "a b.txt") +
                   Parameter("text", "if (a < b && c > 0) {\n  s = \"</div>\\n\";\n}\n\n你好 😀"));
  const std::string set =
      Invoke("set", Parameter("n", "1e3", false) + Parameter("list", "[1, {\"a\": null}]", false) +
                        Parameter("map", "{\n \"k\": \"v\"\n}", false) + Parameter("text", "") +
                        Parameter("on", "true", false));
  const std::string rome = Invoke("get_weather", Parameter("city", "Rome"));
  const std::string now = Invoke("now", "\n");
  std::vector<std::string> samples = {
      "Only an answer.\n\nWith < and </ and newlines\n\n",
      Block(rome),
      "Done." + Block(rome + now),
      "I will write it.\n\n" + Block(write),
      "x" + Block(set + rome + write),
      Block(now),
  };
  for (size_t i = samples.size(); i > 0; --i) samples.push_back(AsV41(samples[i - 1]));
  return samples;
}

TEST_F(ReplyRegressions, EventsDoNotDependOnTheCut) {
  for (const std::string& sample : Samples()) {
    const Outcome answer = Run(sample, WithTools());
    EXPECT_EQ(answer.faults, Outcome().faults) << sample;
    const Outcome thought = Run("First\n\nthis.\n\n</think>\n\n" + sample, thinking_);
    EXPECT_EQ(thought.reasoning, "First\n\nthis.");
    EXPECT_EQ(thought.calls, answer.calls);
  }
}

// Whatever of it is cut off at the end: a call that comes out is the call that it would have been,
// or says less where all that must be said stands. The reader checks that arguments are JSON text
// if and only if the call is delivered.
TEST_F(ReplyRegressions, WhatIsCutOffIsNoCall) {
  for (const std::string& sample : Samples()) {
    const Calls calls = Run(sample, WithTools()).calls;
    const std::vector<int32_t> ids = tokenizer_.Encode(sample, true);
    for (size_t end = 0; end <= sample.size() + ids.size(); ++end) {
      const Outcome outcome =
          end <= sample.size()
              ? OfPieces({sample.substr(0, end)}, WithTools())
              : OfIds({ids.begin(), ids.begin() + static_cast<int>(end - sample.size())},
                      WithTools());
      EXPECT_EQ(outcome.content.find("｜DSML｜"), std::string::npos);
      ASSERT_LE(outcome.calls.size(), calls.size());
      for (size_t i = 0; i < outcome.calls.size(); ++i) {
        const auto& [name, arguments] = outcome.calls[i];
        EXPECT_EQ(name, calls[i].first);
        const std::string_view all = calls[i].second;
        EXPECT_TRUE(all.starts_with(arguments.substr(0, arguments.size() - 1))) << arguments;
        // Only the last may say less.
        EXPECT_TRUE(arguments == all || i + 1 == outcome.calls.size());
      }
      // What was begun says nothing that it would not have said.
      for (size_t i = 0; i < outcome.streamed.size(); ++i) {
        std::string told = outcome.streamed[i].second;
        if (told.ends_with("\uFFFD")) continue;  // cut inside a character
        if (told != calls[i].second && told.ends_with('}')) told.pop_back();
        EXPECT_TRUE(std::string_view(calls[i].second).starts_with(told)) << told;
      }
    }
  }
}

// Malformed in any way: the reader checks the arguments, Run that the cut does not matter.
TEST_F(ReplyRegressions, AnyMixtureOfTagsIsRead) {
  std::mt19937 random(3);
  const std::string atoms[] = {"<｜DSML｜tool_calls>",
                               "</｜DSML｜tool_calls>",
                               "<｜DSML｜invoke name=\"get_weather\">",
                               "<｜DSML｜invoke name=\"now\">",
                               "</｜DSML｜invoke>",
                               "<｜DSML｜parameter name=\"city\" string=\"true\">",
                               "<｜DSML｜parameter name=\"days\" string=\"false\">",
                               "</｜DSML｜parameter>",
                               "Rome",
                               "2",
                               "\n",
                               "{\"city\": \"x\"}",
                               "<",
                               "</",
                               "\"",
                               ">",
                               "<｜DSML｜",
                               "</｜DSML｜",
                               "<|DSML|tool_calls>",
                               "<|DSML|invoke name=\"now\">",
                               "</|DSML|invoke>",
                               "<｜DSML｜ calls>",
                               "text",
                               "｜DSML｜",
                               "</think>"};
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (int i = static_cast<int>(random() % 14); i >= 0; --i) {
      text += atoms[random() % std::size(atoms)];
    }
    ReplyOptions options = random() % 2 == 0 ? thinking_ : WithTools();
    options.known_names = random() % 4 == 0;
    options.one_call = random() % 4 == 0;
    options.deliver_calls = random() % 8 != 0;
    if (random() % 4 == 0) options.stop = {"\n\ntext", "text\n", "</text", "<\n"};
    const Outcome whole = OfPieces({text}, options);
    EXPECT_EQ(whole.content.find("｜DSML｜"), std::string::npos) << text;
    EXPECT_EQ(whole.reasoning.find("｜DSML｜"), std::string::npos) << text;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      ASSERT_EQ(OfPieces({text.substr(0, cut), text.substr(cut)}, options), whole) << text;
    }
    EXPECT_EQ(OfIds(tokenizer_.Encode(text, true), options).calls, whole.calls) << text;
  }
}

}  // namespace
}  // namespace seacliff
