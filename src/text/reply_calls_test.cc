// Tool calls in replies: how they come out, and what becomes of malformed ones, line by line of the
// policy (encoding.md 3.4).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "text/testing_reply.h"

namespace seacliff {
namespace {

using namespace testing_reply;  // NOLINT: its words are this file's

using Calls = std::vector<std::pair<std::string, std::string>>;

class ReplyCallsTest : public ReplyFixture {
 protected:
  // The calls of an answer that ends by itself.
  Calls CallsOf(const std::string& text) const { return Run(text, WithTools()).calls; }
  const std::string city_ = Parameter("city", "Rome");
  const std::string rome_ = Invoke("get_weather", city_);
  const Calls rome_calls_ = {{"get_weather", R"({"city": "Rome"})"}};
};

TEST_F(ReplyCallsTest, ComeOutOfABlock) {
  const std::string text =
      "Let me see." +
      Block(Invoke("get_weather", city_ + Parameter("days", "2", false)) + Invoke("now", ""));
  const Outcome outcome = Run(text, WithTools());
  EXPECT_EQ(outcome.content, "Let me see.");
  EXPECT_EQ(outcome.calls,
            (Calls{{"get_weather", R"({"city": "Rome", "days": 2})"}, {"now", "{}"}}));
  EXPECT_TRUE(outcome.closed && outcome.whole && !outcome.cut);
  EXPECT_EQ(outcome.faults, Outcome().faults);
  EXPECT_EQ(Run(AsV41(text), WithTools()), outcome);
}

TEST_F(ReplyCallsTest, StringsAreEscapedAsTheyAreWritten) {
  const std::string value = "a \"b\"\\\n\tc <div> </div> 2>&1 é 😀 </｜ </｜DS </parameter> \x01";
  const Outcome outcome =
      Run(Block(Invoke("write", Parameter("path", "x") + Parameter("text", value))), WithTools());
  EXPECT_EQ(outcome.calls,
            (Calls{{"write", R"({"path": "x", "text": "a \"b\"\\\n\tc <div> </div> 2>&1 é 😀 )"
                             "</｜ </｜DS </parameter> \\u0001\"}"}}));
}

// Nothing but what may be the closing tag waits.
TEST_F(ReplyCallsTest, LongStringsStream) {
  ReplyParser parser(tokenizer_, WithTools());
  const auto fed = [&](std::string_view bytes) {
    std::string out;
    for (const ReplyDelta& delta : parser.FeedBytes(bytes)) {
      EXPECT_EQ(delta.part, ReplyPart::kToolCall);
      out += delta.name.empty() ? delta.text : "[" + delta.name + "]";
    }
    return out;
  };
  EXPECT_EQ(fed("\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"write\">\n"), "");
  EXPECT_EQ(fed("<｜DSML｜parameter name=\"text\" string=\"true\">"), "[write]{\"text\": \"");
  EXPECT_EQ(fed("a"), "a");
  EXPECT_EQ(fed("\"\n"), "\\\"\\n");
  EXPECT_EQ(fed("<"), "");
  EXPECT_EQ(fed("/d"), "</d");
  EXPECT_EQ(fed("</｜DSM"), "");
  EXPECT_EQ(fed("X</"), "</｜DSMX");
  EXPECT_EQ(fed("｜DSML｜"), "\"");
  EXPECT_EQ(fed("parameter>\n</｜DSML｜invoke>"), "}");
}

// With ids, only the token is the tag.
TEST_F(ReplyCallsTest, SpeltTagsInValuesAreText) {
  const int32_t marker = *tokenizer_.SpecialId("｜DSML｜");
  std::vector<int32_t> ids = tokenizer_.Encode(
      "<｜DSML｜tool_calls><｜DSML｜invoke name=\"write\"><｜DSML｜parameter name=\"text\" "
      "string=\"true\">",
      true);
  const auto add = [&](std::string_view text, bool special) {
    const auto more = tokenizer_.Encode(text, special);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  add("</｜DSML｜parameter>", false);
  ids.push_back(marker);  // not behind </
  add("</think><think>", true);
  add("</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>", true);
  EXPECT_EQ(OfIds(ids, WithTools()).calls,
            (Calls{{"write", "{\"text\": \"</｜DSML｜parameter>｜DSML｜</think><think>\"}"}}));
}

TEST_F(ReplyCallsTest, AnswerThatTalksAboutTagsIsContent) {
  const std::string text = "Write <｜DSML｜tool_calls> and <｜DSML｜invoke name=\"f\">.";
  EXPECT_EQ(OfIds(tokenizer_.Encode(text, false), WithTools()).content, text);
  EXPECT_EQ(Run("The marker <｜DSML｜ is\nodd.", WithTools()).content, "The marker  is\nodd.");
  EXPECT_EQ(Run("Say <|DSML|tool_calls>, then go.", WithTools()).content,
            "Say <|DSML|tool_calls>, then go.");
  EXPECT_EQ(Run("<|DSML|invoke name=\"f\"> is a call", WithTools()).content,
            "<|DSML|invoke name=\"f\"> is a call");
}

TEST_F(ReplyCallsTest, OneCallEndsTheReply) {
  ReplyOptions options = WithTools();
  options.one_call = true;
  const std::string text = Block(rome_ + Invoke("now", ""));
  EXPECT_EQ(Run(text, options).calls, rome_calls_);
  ReplyParser parser(tokenizer_, options);
  (void)parser.FeedBytes(text.substr(0, text.find("</｜DSML｜invoke>")));
  EXPECT_FALSE(parser.done());
  (void)parser.FeedBytes("</｜DSML｜invoke>");
  EXPECT_TRUE(parser.done());
}

TEST_F(ReplyCallsTest, ABlockMayBeginInThePrompt) {
  ReplyOptions options = WithTools();
  options.starts_in_calls = true;
  const Outcome outcome = Run(rome_ + "</｜DSML｜tool_calls>", options);
  EXPECT_EQ(outcome.calls, rome_calls_);
  EXPECT_TRUE(outcome.whole);
}

TEST_F(ReplyCallsTest, EndTokensEndTheBlock) {
  const auto ids = tokenizer_.Encode(Block(rome_) + "<｜end▁of▁sentence｜>more", true);
  EXPECT_EQ(OfIds(ids, WithTools()).calls, rome_calls_);
  ReplyOptions options = WithTools();
  options.ignore_end = true;
  const Outcome outcome = OfIds(ids, options);
  EXPECT_EQ(outcome.calls, rome_calls_);
  EXPECT_EQ(outcome.content, "");
}

// The lines of the policy.

TEST_F(ReplyCallsTest, PolicyEndInsideACall) {
  const auto cut = [&](const std::string& call) {
    return Run("\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n" + call,
               WithTools());
  };
  // No arguments are invented; to a client nothing began.
  EXPECT_TRUE(cut("").cut);
  EXPECT_EQ(cut("").streamed, Calls());
  EXPECT_EQ(cut("<｜DSML｜parameter name=\"city\" str").streamed, Calls());
  // A value that is not closed: what was told of the call is no JSON.
  const Outcome open = cut("<｜DSML｜parameter name=\"city\" string=\"true\">Ro");
  EXPECT_EQ(open.calls, Calls());
  EXPECT_EQ(open.streamed, (Calls{{"get_weather", "{\"city\": \"Ro"}}));
  EXPECT_TRUE(open.cut);
  // A key that must be there is missing.
  const Outcome poor = cut(Parameter("days", "2", false));
  EXPECT_EQ(poor.calls, Calls());
  EXPECT_TRUE(poor.cut);
  // All is there.
  for (const char* end : {"", "</｜DSML｜", "</｜DSML｜inv", "</｜DSML｜invoke"}) {
    const Outcome complete = cut(city_ + end);
    EXPECT_EQ(complete.calls, rome_calls_) << end;
    EXPECT_FALSE(complete.cut) << end;
    EXPECT_FALSE(complete.whole) << end;
    EXPECT_EQ(complete.fault(CallFault::kCut), 1) << end;
  }
  // Another parameter had begun.
  for (const char* end : {"<", "<｜DSML｜", "<｜DSML｜parameter name=\"da"}) {
    EXPECT_EQ(cut(city_ + end).calls, Calls()) << end;
  }
  // A tool that nobody knows may need more.
  EXPECT_EQ(
      Run("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"other\">\n" + city_, WithTools()).calls,
      Calls());
  // Calls before it stay.
  EXPECT_EQ(
      Run("<｜DSML｜tool_calls>\n" + rome_ + "<｜DSML｜invoke name=\"now\">", WithTools()).calls,
      rome_calls_);
}

TEST_F(ReplyCallsTest, PolicyOuterClosingTagMissing) {
  const Outcome outcome = Run("<｜DSML｜tool_calls>\n" + rome_ + Invoke("now", ""), WithTools());
  EXPECT_EQ(outcome.calls, (Calls{rome_calls_[0], {"now", "{}"}}));
  EXPECT_FALSE(outcome.cut || outcome.closed || outcome.whole);
  EXPECT_EQ(outcome.fault(CallFault::kOpenBlock), 1);
}

TEST_F(ReplyCallsTest, PolicyWrapperMisspelt) {
  const std::string good = Block(rome_);
  const std::string inner = rome_ + "</｜DSML｜tool_calls>";
  const std::string blocks[] = {
      Replaced(good, "tool_calls", "toolcalls"),
      Replaced(good, "tool_calls", "function_calls"),
      "\n\n<｜DSML｜>\n" + inner,
      "\n\n" + rome_,
      "\n\n" + inner,
      Replaced(good, "｜DSML｜", "｜｜DSML｜｜"),
      Replaced(good, "｜DSML｜", "|DSML|"),
      Replaced(good, "｜DSML｜", "||DSML||"),
      "\n\n<｜DSML｜tool_calls\n" + inner,
      "\n\n<|DSML|tool_calls>\n" + inner,
      AsV41(Replaced(good, "tool_calls", "toolcalls")),
  };
  for (const std::string& block : blocks) {
    const Outcome outcome = Run("Let me see." + block, WithTools());
    EXPECT_EQ(outcome.calls, rome_calls_) << block;
    EXPECT_EQ(outcome.content, "Let me see.") << block;
    EXPECT_FALSE(outcome.whole) << block;
    // An unknown tool, or one without what it needs, is none.
    EXPECT_EQ(CallsOf("Let me see." + Replaced(block, "get_weather", "other")), Calls()) << block;
    EXPECT_EQ(CallsOf("Let me see." + Replaced(block, "\"city\"", "\"days\"")), Calls()) << block;
    // Nothing comes out before the call is closed.
    const size_t end = block.find("invoke>");
    const Outcome open = Run("Let me see." + block.substr(0, end), WithTools());
    EXPECT_EQ(open.streamed.size(), open.calls.size()) << block;
  }
}

// Text in ASCII's pipes that is no call stays as it is.
TEST_F(ReplyCallsTest, PolicyWrapperMisspeltButText) {
  const std::string path = Replaced(Parameter("path", "x"), "｜", "|");
  for (const std::string& text :
       {std::string("Let me see.\n\n<|DSML|tool_calls>\n<|DSML|invoke name=\"other\">\nx"),
        "a\n<|DSML|tool_calls>\n<|DSML|invoke name=\"write\">\n" + path + "</|DSML|invoke>\nb",
        std::string("a <|DSML|tool_calls>\n"), std::string("a <|DSML|"),
        std::string("a <|DSML|invoke name=\"write\">\nx")}) {
    const Outcome outcome = Run(text, WithTools());
    EXPECT_EQ(outcome.content, text);
    EXPECT_EQ(outcome.streamed, Calls());
    EXPECT_FALSE(outcome.cut);
  }
}

TEST_F(ReplyCallsTest, PolicyUnknownToolName) {
  const std::string text = "So." + Block(Invoke("other", city_));
  const Outcome outcome = Run(text, WithTools());
  EXPECT_EQ(outcome.calls, (Calls{{"other", R"({"city": "Rome"})"}}));
  EXPECT_EQ(outcome.fault(CallFault::kUnknownTool), 1);
  ReplyOptions strict = WithTools();
  strict.known_names = true;
  const Outcome refused = Run(text, strict);
  EXPECT_EQ(refused.calls, Calls());
  EXPECT_EQ(
      refused.content,
      "So.<invoke name=\"other\">\n<parameter name=\"city\" string=\"true\">Rome</parameter>\n"
      "</invoke>");
  EXPECT_EQ(refused.fault(CallFault::kUnknownTool), 1);
  // Behind a call there is no content.
  EXPECT_EQ(Run(Block(rome_ + Invoke("other", city_)), strict).calls, rome_calls_);
}

TEST_F(ReplyCallsTest, PolicyDuplicateParameter) {
  const Outcome outcome =
      Run(Block(Invoke("get_weather", city_ + Parameter("city", "Oslo"))), WithTools());
  ASSERT_EQ(outcome.calls.size(), 1u);
  const auto arguments = ParseJsonObject(outcome.calls[0].second, "");
  ASSERT_TRUE(arguments.ok());
  EXPECT_EQ(arguments->Find("city")->text, "Oslo");
  EXPECT_EQ(outcome.fault(CallFault::kRepeated), 1);
}

TEST_F(ReplyCallsTest, PolicyTextThatIsNotJson) {
  const auto set = [&](std::string_view key, std::string_view value) {
    const Outcome outcome = Run(Block(Invoke("set", Parameter(key, value, false))), WithTools());
    EXPECT_EQ(outcome.fault(CallFault::kNotJson), 1) << value;
    EXPECT_EQ(outcome.calls.size(), 1u) << value;
    const std::string begin = "{\"" + std::string(key) + "\": ";
    const std::string arguments = outcome.calls.empty() ? "" : outcome.calls[0].second;
    EXPECT_TRUE(arguments.starts_with(begin)) << arguments;
    return arguments.substr(begin.size(), arguments.size() - begin.size() - 1);
  };
  // The schema says string.
  EXPECT_EQ(set("text", "it's {\n"), R"("it's {\n")");
  EXPECT_EQ(set("text", "True"), R"("True")");
  // Nearly JSON.
  EXPECT_EQ(set("on", "True"), "true");
  EXPECT_EQ(set("on", "False"), "false");
  EXPECT_EQ(set("any", "None"), "null");
  EXPECT_EQ(set("list", "[1, 2, ]"), "[1, 2 ]");
  EXPECT_EQ(set("map", R"({"a": [True, "True, ]",],})"), R"({"a": [true, "True, ]"]})");
  // Something else.
  EXPECT_EQ(set("map", "{'a': 1}"), R"("{'a': 1}")");
  EXPECT_EQ(set("n", "1 2"), R"("1 2")");
  EXPECT_EQ(set("n", "1], [2"), R"("1], [2")");
  EXPECT_EQ(set("i", ""), R"("")");
  EXPECT_EQ(set("any", "Truer"), R"("Truer")");
}

TEST_F(ReplyCallsTest, PolicyStringForAnotherType) {
  const auto set = [&](std::string_view key, std::string_view value, bool converted) {
    const Outcome outcome = Run(Block(Invoke("set", Parameter(key, value))), WithTools());
    EXPECT_EQ(outcome.fault(CallFault::kWrongType), converted ? 1 : 0) << value;
    const std::string begin = "{\"" + std::string(key) + "\": ";
    const std::string arguments = outcome.calls.empty() ? "" : outcome.calls[0].second;
    return arguments.size() < begin.size()
               ? arguments
               : arguments.substr(begin.size(), arguments.size() - begin.size() - 1);
  };
  EXPECT_EQ(set("n", "1.50", true), "1.50");
  EXPECT_EQ(set("i", "-3", true), "-3");
  EXPECT_EQ(set("on", "true", true), "true");
  EXPECT_EQ(set("list", "[1, \"a\"]", true), "[1, \"a\"]");
  EXPECT_EQ(set("map", "{\"a\": 1}", true), "{\"a\": 1}");
  EXPECT_EQ(set("or", "null", true), "null");
  // Another type than the schema's stays a string.
  EXPECT_EQ(set("i", "3.5", true), R"("3.5")");
  EXPECT_EQ(set("on", "yes", true), R"("yes")");
  EXPECT_EQ(set("list", "{}", true), R"("{}")");
  EXPECT_EQ(set("or", "x", true), R"("x")");
  // A string is what it may be.
  EXPECT_EQ(set("text", "null", false), R"("null")");
  EXPECT_EQ(set("any", "1", false), R"("1")");
  EXPECT_EQ(set("new", "1", false), R"("1")");
}

// The type may stand behind references, or be what several keywords say together.
TEST_F(ReplyCallsTest, PolicyStringForATypeElsewhere) {
  ReplyOptions options = WithTools();
  options.tools = {{"f", R"({"properties": {"slash": {"$ref": "#/$defs/a~1b"},
      "space": {"$ref": "#/$defs/a%20b"}, "item": {"$ref": "#/$defs/any/anyOf/1"},
      "self": {"$ref": "#/$defs/self"}, "none": {"$ref": "#/$defs/none"},
      "one": {"type": "integer", "enum": [1, 2]}, "number": {"type": "number", "const": 1},
      "both": {"type": "number", "allOf": [{"type": "integer"}]}},
      "$defs": {"a/b": {"type": "integer"}, "a b": {"$ref": "#/$defs/a~1b"},
      "any": {"anyOf": [{}, {"type": "integer"}]},
      "self": {"$ref": "#/$defs/self", "type": "integer"}}})"}};
  for (const char* key : {"slash", "space", "item", "self", "one", "number", "both"}) {
    const Outcome outcome = Run(Block(Invoke("f", Parameter(key, "1"))), options);
    EXPECT_EQ(outcome.calls, (Calls{{"f", "{\"" + std::string(key) + "\": 1}"}}));
  }
  const Outcome outcome = Run(Block(Invoke("f", Parameter("none", "1"))), options);
  EXPECT_EQ(outcome.calls, (Calls{{"f", R"({"none": "1"})"}}));
}

// Each of these would take minutes or more if all that is referred to were looked at.
TEST_F(ReplyCallsTest, SchemasTakeLinearTime) {
  const auto list = [](int count, const auto& item) {
    std::string out;
    for (int i = 0; i < count; ++i) out += (i == 0 ? "" : ", ") + item(i);
    return out;
  };
  const auto number = [](int i) { return std::to_string(i); };
  const auto to_x = [](int) { return std::string(R"({"$ref": "#/$defs/x"})"); };
  const auto to_next = [](int i) {
    return fmt::format(R"("d{}": {{"$ref": "#/$defs/d{}"}})", i, i + 1);
  };
  const auto parameter = [](int i) { return fmt::format(R"("p{}": {{"$ref": "#/$defs/d0"}})", i); };
  const std::string self = list(20, to_x);
  const std::string schemas[] = {
      R"({"type": "integer", "anyOf": [)" + self + "]}",
      R"({"type": "integer", "allOf": [)" + self + "]}",
      R"({"type": "integer", "anyOf": [)" + self + R"(], "enum": [)" + list(50'000, number) + "]}",
      R"({"type": "integer", "anyOf": [)" + list(50'000, to_x) + "]}",
      R"({"type": "integer"}, )" + list(50'000, to_next),
  };
  for (const std::string& x : schemas) {
    ReplyOptions options = WithTools();
    options.tools = {{"f", R"({"properties": {"a": {"$ref": "#/$defs/x"}, )" +
                               list(20'000, parameter) + R"(}, "$defs": {"x": )" + x + "}}"}};
    const std::string text = Block(Invoke("f", Parameter("a", "1")));
    EXPECT_EQ(OfPieces({text}, options).calls, (Calls{{"f", R"({"a": 1})"}})) << x.substr(0, 80);
  }
}

TEST_F(ReplyCallsTest, PolicyNoToolsWanted) {
  for (const std::string& block : {Block(rome_), Replaced(Block(rome_), "tool_", "tool")}) {
    const Outcome outcome = Run("Rome is warm." + block, {});
    EXPECT_EQ(outcome.content, "Rome is warm.");
    EXPECT_EQ(outcome.streamed, Calls());
    EXPECT_EQ(outcome.fault(CallFault::kUnwanted), 1);
    EXPECT_FALSE(outcome.cut);
    // What the model goes on to say is not lost.
    ReplyOptions thinking;
    thinking.starts_in_reasoning = true;
    const Outcome thought =
        Run("Hm." + block + "\nNo tools.</think>\nIt is" + block + " warm.", thinking);
    EXPECT_EQ(thought.reasoning, "Hm.\nNo tools.");
    EXPECT_EQ(thought.content, "It is warm.");
    EXPECT_EQ(thought.fault(CallFault::kUnwanted), 2);
  }
  // The last tag without its bracket, without its name, and too long for a tag.
  const std::string open = "a" + Block("").substr(0, Block("").size() - 1);
  EXPECT_EQ(Run(open + "\nb", {}).content, "a\nb");
  EXPECT_EQ(Run(open + "é", {}).content, "aé");
  EXPECT_EQ(Run("a<｜DSML｜tool_calls></｜DSML｜é", {}).content, "a");
  for (size_t size = 4081; size < 4085; ++size) {
    const std::string text = open + " \"" + std::string(size, 'x') + "你好";
    EXPECT_TRUE(OfPieces({text}, {}).content.ends_with("好")) << size;
  }
}

TEST_F(ReplyCallsTest, PolicyThinkingNeverEnds) {
  ReplyOptions options = WithTools();
  options.starts_in_reasoning = true;
  const Outcome outcome = Run("hm, what", options);
  EXPECT_EQ(outcome.reasoning, "hm, what");
  EXPECT_EQ(outcome.content, "");
}

TEST_F(ReplyCallsTest, PolicyEndTokensInTheOutput) {
  for (const char* end :
       {"<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"}) {
    const Outcome in_text = OfIds(tokenizer_.Encode(std::string("a") + end + "b", true), {});
    EXPECT_EQ(in_text.content, "a");
    const std::string open = "<｜DSML｜tool_calls>" + Invoke("get_weather", city_);
    const Outcome in_block = OfIds(tokenizer_.Encode(open + end + "b", true), WithTools());
    EXPECT_EQ(in_block.calls, rome_calls_);
    EXPECT_EQ(in_block.content, "");
  }
}

TEST_F(ReplyCallsTest, PolicySecondBlock) {
  for (const std::string& behind : {Block(Invoke("now", "")), std::string("Done."), Block("")}) {
    const Outcome outcome = Run("a" + Block(rome_) + behind, WithTools());
    EXPECT_EQ(outcome.calls, rome_calls_);
    EXPECT_EQ(outcome.content, "a");
    EXPECT_FALSE(outcome.whole);
  }
}

}  // namespace
}  // namespace seacliff
