// Conversations in which turns come back: their prompts against what was sampled.
#include "serve/splice.h"

#include <gtest/gtest.h>

#include <random>

#include "text/testing_tokenizer.h"

namespace seacliff::serve {
namespace {

using Ids = std::vector<int32_t>;

constexpr uint64_t kScope = 7;
constexpr const char* kEnd = "<｜end▁of▁sentence｜>";

const Tokenizer& TestTokenizer() {
  static const Tokenizer tokenizer = testing_tokenizer::Make();
  return tokenizer;
}

// A reply as a model may sample it: special tokens of `text` as such, other bytes one by one or
// joined to the tokens that merging would not give.
Ids Letterwise(std::string_view text) {
  Ids ids;
  for (const int32_t id : TestTokenizer().Encode(text, true)) {
    if (TestTokenizer().IsAdded(id)) {
      ids.push_back(id);
      continue;
    }
    for (const char byte : TestTokenizer().TokenBytes(id)) {
      ids.push_back(static_cast<uint8_t>(byte));  // the test tokenizer's ids of bytes
    }
  }
  return ids;
}

ChatMessage Message(const char* role, std::string content, std::string reasoning = "") {
  ChatMessage message;
  message.role = role;
  message.content = std::move(content);
  message.reasoning = std::move(reasoning);
  return message;
}

// A conversation with a server that remembers.
struct Conversation {
  std::vector<ChatMessage> messages;
  ChatOptions options = {.thinking = false};
  uint64_t scope = kScope;
  SampledTurns* turns = nullptr;
  bool wants_calls = false;
  bool same_text = true;  // calls are in the spelling that is sampled

  EncodedPrompt prompt;  // the last one, spliced
  ReplyPlace place;
  SpliceCounts counts;  // of the last one

  const Ids& Ask(std::string text) {
    messages.push_back(Message("user", std::move(text)));
    return Encode();
  }
  const Ids& Encode() {
    auto encoded = EncodeChat(TestTokenizer(), messages, options);
    EXPECT_TRUE(encoded.ok()) << encoded.status().message();
    prompt = std::move(encoded).value();
    const std::string text = TestTokenizer().Decode(prompt.ids);
    counts = {};
    place = SpliceReplies(TestTokenizer(), scope, *turns, &prompt, &counts);
    EXPECT_TRUE(!same_text || TestTokenizer().Decode(prompt.ids) == text) << text;
    return prompt.ids;
  }
  // The sampled ids (without an end) become a message as the client gets it.
  bool Sample(const Ids& ids, std::vector<std::string> stop = {}) {
    ReplyOptions reply_options;
    reply_options.starts_in_reasoning = prompt.starts_in_reasoning;
    reply_options.continues_message = prompt.continues_message;
    reply_options.stop = std::move(stop);
    reply_options.deliver_calls = wants_calls;
    reply_options.tools = {{"look", "{}"}};
    ReplyParser parser(TestTokenizer(), reply_options);
    SampledReply reply;
    const auto take = [&](const std::vector<ReplyDelta>& deltas) {
      for (const ReplyDelta& delta : deltas) {
        if (delta.part == ReplyPart::kToolCall) continue;
        (delta.part == ReplyPart::kReasoning ? reply.reasoning : reply.content) += delta.text;
      }
    };
    for (const int32_t id : ids) {
      if (parser.done()) break;
      reply.ids.push_back(id);
      take(parser.Feed(id));
    }
    if (!parser.done()) take(parser.Finish());
    reply.calls = parser.calls().delivered;
    reply.whole_calls = parser.calls().whole;
    const bool remembered = RememberReply(TestTokenizer(), place, prompt.ids,
                                          prompt.starts_in_reasoning, reply, *turns);
    if (prompt.continues_message) {
      messages.back().content += reply.content;
      messages.back().reasoning += reply.reasoning;
      messages.back().prefix = options.continue_final_message = false;
    } else {
      messages.push_back(Message("assistant", reply.content, reply.reasoning));
      messages.back().tool_calls = reply.calls;
    }
    return remembered;
  }
};

bool StartsWith(const Ids& ids, Ids beginning) {
  return ids.size() >= beginning.size() &&
         std::equal(beginning.begin(), beginning.end(), ids.begin());
}

Ids Joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

uint64_t Missed(const SpliceCounts& counts, Unspliced reason) {
  return counts.unspliced[static_cast<size_t>(reason)];
}

class SpliceTest : public testing::Test {
 protected:
  SpliceTest() {
    conversation.turns = &turns;
    conversation.messages.push_back(Message("system", "Be Hello."));
  }
  // A first turn that was sampled in tokens of its own; the prompt and the reply.
  Ids FirstTurn(const std::string& text = "Hello, ab.") {
    const Ids prompt = conversation.Ask("Hello?");
    const Ids sampled = Letterwise(text);
    EXPECT_TRUE(conversation.Sample(sampled));
    return Joined(prompt, sampled);
  }

  SampledTurns turns{1 << 20};
  Conversation conversation;
};

TEST_F(SpliceTest, AReturnedTurnHasTheTokensItWasSampledAs) {
  const Ids first = FirstTurn();
  const Ids second = conversation.Ask("More ab.");
  EXPECT_EQ(conversation.counts.spliced, 1u);
  const Ids end = {*TestTokenizer().SpecialId(kEnd)};
  EXPECT_TRUE(StartsWith(second, Joined(first, end)));
  // Without the store it would not have been so.
  SampledTurns none(0);
  conversation.turns = &none;
  EXPECT_FALSE(StartsWith(conversation.Encode(), first));
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kUnknown), 1u);
}

TEST_F(SpliceTest, WithToolsReasoningIsPartOfTheTurn) {
  conversation.options.thinking = true;
  conversation.options.tools = {R"({"name": "look", "description": "ab", "parameters": {}})"};
  const Ids first = FirstTurn("I think ab</think>Hello");
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), first));
  EXPECT_EQ(conversation.counts.spliced, 1u);
  // A client that loses the reasoning gets the encoding of what it sent.
  conversation.messages[2].reasoning.clear();
  EXPECT_FALSE(StartsWith(conversation.Encode(), first));
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kEdited), 1u);
}

TEST_F(SpliceTest, DroppedReasoningIsCountedAsSuch) {
  conversation.options.thinking = true;
  FirstTurn("I think ab</think>Hello");
  EXPECT_TRUE(conversation.prompt.forgets_reasoning);
  conversation.Ask("More.");
  EXPECT_EQ(conversation.counts.spliced, 0u);
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kReasoning), 1u);
}

TEST_F(SpliceTest, EditedTurnsAreEncoded) {
  const Ids first = FirstTurn();
  conversation.messages.back().content += "!";
  EXPECT_FALSE(StartsWith(conversation.Ask("More."), first));
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kEdited), 1u);
}

TEST_F(SpliceTest, AChangedTemplateIsCountedAsSuch) {
  const Ids first = FirstTurn();
  conversation.options.tools = {R"({"name": "look"})"};
  conversation.Ask("More.");
  EXPECT_EQ(conversation.counts.spliced, 0u);
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kTemplate), 1u);
}

TEST_F(SpliceTest, TheSameAnswerElsewhereHasItsOwnTokens) {
  const Ids first = FirstTurn("ab");
  Conversation other;
  other.messages.push_back(Message("system", "Be else."));
  other.turns = &turns;
  const Ids prompt = other.Ask("Hello?");
  const Ids canonical = TestTokenizer().Encode("ab", false);
  EXPECT_TRUE(other.Sample(canonical));
  EXPECT_TRUE(StartsWith(other.Ask("More."), Joined(prompt, canonical)));
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), first));
}

TEST_F(SpliceTest, AnotherScopeFindsNothing) {
  const Ids first = FirstTurn();
  conversation.scope = kScope + 1;
  EXPECT_FALSE(StartsWith(conversation.Ask("More."), first));
  EXPECT_EQ(Missed(conversation.counts, Unspliced::kUnknown), 1u);
  EXPECT_NE(SpliceScope("a", "b"), SpliceScope("b", "a"));
  EXPECT_NE(SpliceScope("ab", ""), SpliceScope("a", "b"));
  EXPECT_NE(SpliceScope("", "ab"), SpliceScope("ab", ""));
}

// The spans of the turns behind a spliced one move with it.
TEST_F(SpliceTest, ManyTurns) {
  Ids before;
  for (int turn = 0; turn < 6; ++turn) {
    const Ids prompt = conversation.Ask("Hello " + std::to_string(turn));
    EXPECT_TRUE(StartsWith(prompt, before)) << turn;
    EXPECT_EQ(conversation.counts.spliced, static_cast<uint64_t>(turn));
    const Ids sampled = Letterwise("Hello ab number " + std::to_string(turn));
    EXPECT_TRUE(conversation.Sample(sampled));
    before = Joined(prompt, sampled);
  }
}

TEST_F(SpliceTest, AContinuedReplyGoesOnInItsTokens) {
  const Ids first = FirstTurn("Hello a");  // cut at its length
  conversation.messages.back().prefix = true;
  const Ids continued = conversation.Encode();
  EXPECT_EQ(continued, first);
  const Ids rest = Letterwise("b Hello");
  EXPECT_TRUE(conversation.Sample(rest));
  EXPECT_EQ(conversation.messages.back().content, "Hello ab Hello");
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), Joined(first, rest)));
  EXPECT_EQ(conversation.counts.spliced, 1u);
}

// What was sampled behind the text that the client got: a stop string, a block of tool calls.
TEST_F(SpliceTest, WhatIsNotToldIsCutOff) {
  const Ids prompt = conversation.Ask("Hello?");
  EXPECT_TRUE(conversation.Sample(Letterwise("Hello abSTOP"), {"STOP"}));
  EXPECT_EQ(conversation.messages.back().content, "Hello ab");
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), Joined(prompt, Letterwise("Hello ab"))));
  const Ids before = conversation.prompt.ids;
  EXPECT_TRUE(conversation.Sample(Letterwise("Hello.\n\n<｜DSML｜tool_calls>")));
  EXPECT_EQ(conversation.messages.back().content, "Hello.");
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), Joined(before, Letterwise("Hello."))));
  // In the middle of a token: no ids have the text.
  EXPECT_FALSE(conversation.Sample(TestTokenizer().Encode("Hello", false), {"ello"}));
  EXPECT_EQ(conversation.messages.back().content, "H");
}

class SpliceCallsTest : public SpliceTest {
 protected:
  SpliceCallsTest() {
    conversation.options.thinking = true;
    conversation.options.tools = {R"({"name": "look", "parameters": {}})"};
    conversation.wants_calls = true;
  }
  static std::string Call(const std::string& parameters) {
    return "<｜DSML｜invoke name=\"look\">\n" + parameters + "</｜DSML｜invoke>\n";
  }
  static std::string Block(const std::string& calls) {
    return "\n\n<｜DSML｜tool_calls>\n" + calls + "</｜DSML｜tool_calls>";
  }
  static std::string Parameter(const std::string& key, const std::string& value, bool string) {
    return "<｜DSML｜parameter name=\"" + key + "\" string=\"" + (string ? "true" : "false") +
           "\">" + value + "</｜DSML｜parameter>\n";
  }
  // A first turn with calls, and what was sampled so far.
  Ids CallTurn(const std::string& text) {
    const Ids prompt = conversation.Ask("Hello?");
    const Ids sampled = Letterwise(text);
    EXPECT_TRUE(conversation.Sample(sampled));
    return Joined(prompt, sampled);
  }
  // The results of the calls are in.
  const Ids& Result() {
    std::vector<ChatToolCall>& calls = conversation.messages.back().tool_calls;
    for (size_t i = 0; i < calls.size(); ++i) calls[i].id = "call_" + std::to_string(i);
    const size_t count = calls.size();
    for (size_t i = 0; i < count; ++i) {
      conversation.messages.push_back(Message("tool", "ab"));
      conversation.messages.back().tool_call_id = "call_" + std::to_string(i);
    }
    return conversation.Encode();
  }
  std::string& arguments() { return conversation.messages.back().tool_calls[0].arguments; }

  const std::string look_ =
      "I must look</think>Hello." +
      Block(Call(Parameter("text", "ab \"<", true) + Parameter("n", "1.0", false) +
                 Parameter("list", "[1,{\"b\":2,\"a\":null}]", false)) +
            Call("\n"));
};

TEST_F(SpliceCallsTest, ATurnWithCallsHasTheTokensItWasSampledAs) {
  conversation.same_text = false;
  const Ids first = CallTurn(look_);
  EXPECT_EQ(arguments(), R"({"text": "ab \"<", "n": 1.0, "list": [1,{"b":2,"a":null}]})");
  EXPECT_TRUE(StartsWith(Result(), Joined(first, {*TestTokenizer().SpecialId(kEnd)})));
  EXPECT_EQ(conversation.counts.spliced, 1u);
}

TEST_F(SpliceCallsTest, CallsComeBackInTheJsonOfTheClient) {
  conversation.same_text = false;
  const Ids first = CallTurn(look_);
  arguments() = R"({"list":[1,{"a":null,"b":2.0}],"n":1,"text":"ab \u0022<"})";
  EXPECT_TRUE(StartsWith(Result(), first));
  EXPECT_EQ(conversation.counts.spliced, 1u);
}

TEST_F(SpliceCallsTest, ChangedCallsAreEncoded) {
  conversation.same_text = false;
  const Ids first = CallTurn(look_);
  const std::vector<ChatMessage> told = conversation.messages;
  const auto change = [&](const auto& edit) {
    conversation.messages = told;
    edit(conversation.messages.back());
    EXPECT_FALSE(StartsWith(Result(), first));
    EXPECT_EQ(Missed(conversation.counts, Unspliced::kEdited), 1u);
  };
  change([](ChatMessage& turn) { turn.tool_calls[0].arguments = R"({"text": "ab"})"; });
  change([](ChatMessage& turn) { turn.tool_calls[0].name = "see"; });
  change([](ChatMessage& turn) { turn.tool_calls.pop_back(); });
  change([](ChatMessage& turn) { std::swap(turn.tool_calls[0], turn.tool_calls[1]); });
  change([](ChatMessage& turn) { turn.content += "!"; });
  change([](ChatMessage& turn) { turn.content += "\n"; });
  change([](ChatMessage& turn) { turn.reasoning.clear(); });
  // Arguments that are a string are another thing than those that look like it.
  change([](ChatMessage& turn) {
    turn.tool_calls[0].arguments =
        R"({"text": "ab \"<", "n": "1.0", "list": [1,{"b":2,"a":null}]})";
  });
}

// Tokens that do not say what the client got, or not as it should be said.
TEST_F(SpliceCallsTest, OddCallsAreNotRemembered) {
  const std::string call = Call(Parameter("a", "b", true));
  conversation.Ask("Hello?");
  for (const std::string& reply :
       {"I must look" + Block(call), "ab</think>" + Block(call) + "more",
        "ab</think>\n\n<｜DSML｜tool_calls>\n" + call, "ab</think>Hello." + call,
        "ab</think>" + Block("text" + call), "ab\n</think>" + Block(call)}) {
    EXPECT_FALSE(conversation.Sample(Letterwise(reply))) << reply;
    conversation.messages.pop_back();
  }
  EXPECT_EQ(turns.size(), 0u);
}

TEST_F(SpliceCallsTest, ManyTurnsWithCalls) {
  conversation.same_text = false;
  Ids before = CallTurn(look_);
  for (int turn = 0; turn < 4; ++turn) {
    const Ids prompt = Result();
    ASSERT_TRUE(StartsWith(prompt, before)) << turn;
    ASSERT_EQ(conversation.counts.spliced, static_cast<uint64_t>(turn) + 1);
    const Ids sampled =
        Letterwise("</think>" + Block(Call(Parameter("n", std::to_string(turn), false))) + "\n");
    ASSERT_TRUE(conversation.Sample(sampled));
    before = Joined(prompt, sampled);
  }
}

// What the client gets differs from what was sampled: such tokens are not used again.
TEST_F(SpliceTest, TextThatDoesNotComeBackIsNotRemembered) {
  conversation.options.thinking = true;
  conversation.options.tools = {R"({"name": "look"})"};
  conversation.Ask("Hello?");
  const Ids half = {'H', 0xE4, 0xBD};  // of a character
  for (const Ids& sampled :
       {Letterwise("\nab</think>Hello"), Letterwise("ab\n</think>Hello"),
        Letterwise("ab</think>\nHello"), Letterwise("ab"), Letterwise("ab</think>He<think>llo"),
        Joined(Letterwise("ab</think>"), half)}) {
    EXPECT_FALSE(conversation.Sample(sampled)) << TestTokenizer().Decode(sampled);
    conversation.messages.pop_back();
  }
  EXPECT_EQ(turns.size(), 0u);
}

// The name of a special token in ordinary ones is text, and stays so.
TEST_F(SpliceTest, SpeltTagsAreText) {
  conversation.options.thinking = true;
  conversation.options.tools = {R"({"name": "look"})"};
  const Ids prompt = conversation.Ask("Hello?");
  Ids sampled;
  for (const char byte : std::string("a</think>b")) sampled.push_back(byte);
  sampled = Joined(sampled, Letterwise("</think>Hello"));
  EXPECT_TRUE(conversation.Sample(sampled));
  EXPECT_EQ(conversation.messages.back().reasoning, "a</think>b");
  EXPECT_TRUE(StartsWith(conversation.Ask("More."), Joined(prompt, sampled)));
  // The same bytes, but another message: the tag is elsewhere.
  conversation.messages[2] = Message("assistant", "b</think>Hello", "a");
  EXPECT_FALSE(StartsWith(conversation.Encode(), Joined(prompt, sampled)));
  EXPECT_EQ(conversation.counts.spliced, 0u);
}

// Whatever is said and however it was cut into tokens: with all of it kept, each prompt begins with
// the prompt and the reply before.
TEST_F(SpliceTest, PromptsGrowFromPromptsWhateverIsSampled) {
  std::mt19937 random(5);
  const auto pick = [&](int most) {
    return static_cast<int>(random() % static_cast<unsigned>(most));
  };
  constexpr const char* kWords[] = {"Hello",    "ab",           " ", "\n", ".", "<",
                                    "</think>", "\xE4\xBD\xA0", "x"};
  const auto words = [&](int most) {
    std::string text = "w";  // newlines at a part's border are syntax
    for (int i = pick(most); i >= 0; --i) text += kWords[pick(9)];
    return text + "w";
  };
  for (int run = 0; run < 50; ++run) {
    Conversation one;
    one.turns = &turns;
    one.options.thinking = pick(2) == 0;
    if (one.options.thinking) one.options.tools = {R"({"name": "look"})"};
    one.messages.push_back(Message("system", words(4)));
    Ids before;
    for (int turn = 0; turn < 5; ++turn) {
      const Ids prompt = one.Ask(words(6));
      ASSERT_TRUE(StartsWith(prompt, before)) << "run " << run << ", turn " << turn;
      ASSERT_EQ(one.counts.spliced, static_cast<uint64_t>(turn));
      Ids sampled;
      const auto say = [&](const std::string& text) {
        const Ids canonical = TestTokenizer().Encode(text, false);
        for (const int32_t id : canonical) {
          if (pick(2) == 0) {
            sampled.push_back(id);
          } else {
            for (const char byte : TestTokenizer().TokenBytes(id)) {
              sampled.push_back(static_cast<uint8_t>(byte));
            }
          }
        }
      };
      if (one.options.thinking) {
        say(words(5));
        sampled.push_back(*TestTokenizer().SpecialId("</think>"));
      }
      say(words(8));
      ASSERT_TRUE(one.Sample(sampled));
      before = Joined(prompt, sampled);
    }
  }
}

}  // namespace
}  // namespace seacliff::serve
