// Replies token by token: reasoning, content, stop strings, and that the cut does not matter.
#include <gtest/gtest.h>

#include <random>

#include "seacliff/text.h"
#include "text/pattern_watcher.h"
#include "text/testing_reply.h"

namespace seacliff {
namespace {

struct Outcome {
  std::string reasoning, content;
  std::optional<std::string> stop;
  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* out) {
  *out << "R[" << outcome.reasoning << "] C[" << outcome.content << "] stop "
       << outcome.stop.value_or("none");
}

// What is left of an outcome where no tools are: everything but calls.
class ReplyTest : public testing_reply::ReplyFixture {
 protected:
  static Outcome Of(testing_reply::Outcome o) {
    return {std::move(o.reasoning), std::move(o.content), std::move(o.stop)};
  }
  Outcome RunPieces(const std::vector<std::string>& pieces, const ReplyOptions& options) const {
    return Of(OfPieces(pieces, options));
  }
  Outcome RunIds(const std::vector<int32_t>& ids, const ReplyOptions& options) const {
    return Of(OfIds(ids, options));
  }
  Outcome Run(const std::string& text, const ReplyOptions& options = {}) const {
    return Of(ReplyFixture::Run(text, options));
  }

  const ReplyOptions reasoning_{.starts_in_reasoning = true};
};

TEST_F(ReplyTest, ReasoningEndsAtItsTag) {
  EXPECT_EQ(Run("\n\nhi\n\n</think>\n\nyo\n\n", reasoning_), (Outcome{"hi", "yo\n\n", {}}));
  EXPECT_EQ(Run("hi</think>yo", reasoning_), (Outcome{"hi", "yo", {}}));
  EXPECT_EQ(Run("</think>yo", reasoning_), (Outcome{"", "yo", {}}));
  EXPECT_EQ(Run("\n</think>yo", reasoning_), (Outcome{"", "yo", {}}));
  EXPECT_EQ(Run("a\nb < c </ d </thin", reasoning_), (Outcome{"a\nb < c </ d </thin", "", {}}));
  EXPECT_EQ(Run("never ends\n\n", reasoning_), (Outcome{"never ends\n\n", "", {}}));
  EXPECT_EQ(Run(" hi \n</think> \nyo", reasoning_), (Outcome{" hi ", " \nyo", {}}));
  EXPECT_EQ(Run("\r\nhi\r\n</think>\r\nyo", reasoning_), (Outcome{"\r\nhi\r", "\r\nyo", {}}));
  EXPECT_EQ(Run("｜DSML</think>｜yo", reasoning_), (Outcome{"｜DSML", "｜yo", {}}));
}

TEST_F(ReplyTest, AnswerWithoutReasoning) {
  EXPECT_EQ(Run("\n\nyo\n\n"), (Outcome{"", "yo\n\n", {}}));
  EXPECT_EQ(Run("a</think>b"), (Outcome{"", "ab", {}}));
  EXPECT_EQ(Run("a\n</think>\nb"), (Outcome{"", "a\n\nb", {}}));
  EXPECT_EQ(Run("\n\nyo", {.continues_message = true}), (Outcome{"", "\n\nyo", {}}));
  EXPECT_EQ(Run("a 你好 😀 é"), (Outcome{"", "a 你好 😀 é", {}}));
  EXPECT_EQ(Run(""), (Outcome{}));
}

TEST_F(ReplyTest, StopStringsEndTheContent) {
  const auto run = [&](const std::string& text, std::vector<std::string> stops) {
    return Run(text, {.stop = std::move(stops)});
  };
  EXPECT_EQ(run("abcabd", {"abd"}), (Outcome{"", "abc", "abd"}));
  EXPECT_EQ(run("abcabd", {"b", "abc"}), (Outcome{"", "a", "b"}));
  EXPECT_EQ(run("abcd", {"bcd", "c"}), (Outcome{"", "ab", "c"}));
  EXPECT_EQ(run("aXYb", {"Y", "XY"}), (Outcome{"", "a", "XY"}));
  EXPECT_EQ(run("aab", {"aaa", "aab"}), (Outcome{"", "", "aab"}));
  EXPECT_EQ(run("ababac", {"abac"}), (Outcome{"", "ab", "abac"}));
  EXPECT_EQ(run("a\n\nX", {"\n\n"}), (Outcome{"", "a", "\n\n"}));
  EXPECT_EQ(run("ab", {"bc", ""}), (Outcome{"", "ab", {}}));
  EXPECT_EQ(run("x 好y", {"好"}), (Outcome{"", "x ", "好"}));
  EXPECT_EQ(Run("abc", {.stop = {"b"}, .include_stop = true}), (Outcome{"", "ab", "b"}));
}

TEST_F(ReplyTest, StopStringsDoNotReachIntoReasoning) {
  const ReplyOptions options{.starts_in_reasoning = true, .stop = {"X", "\n\n"}};
  EXPECT_EQ(Run("aXb</think>cXd", options), (Outcome{"aXb", "c", "X"}));
  EXPECT_EQ(Run("a\n\n</think>\n\nc\n\nd", options), (Outcome{"a", "c", "\n\n"}));
}

// A tag that is left out neither hides a stop string around it nor makes one of what was thought.
TEST_F(ReplyTest, StopStringsAroundStrayTags) {
  const std::string marker = "｜DSML｜", end = "</think>", block = "<｜DSML｜x></｜DSML｜x>";
  for (const std::string stop : {"\n\nEND", "\nE", "</tEND", "<|DEND", "END\n\n<", "stop"}) {
    ReplyOptions thinking{.starts_in_reasoning = true, .stop = {stop}}, answering{.stop = {stop}};
    for (size_t cut = 1; cut < stop.size(); ++cut) {
      const std::string head = "x" + stop.substr(0, cut), tail = stop.substr(cut) + "f";
      for (const std::string& tag : {marker, " " + marker, " " + block}) {
        const Outcome thought = Run(head + tag + end + tail, thinking);
        EXPECT_EQ(thought.content, tail.substr(tail.find_first_not_of('\n'))) << head << tag;
        EXPECT_FALSE(thought.stop) << head << tag;
      }
      for (const std::string& tag : {end, end + marker, end + end}) {
        EXPECT_EQ(Run(head + tag + tail, answering), (Outcome{"", "x", stop})) << head << tag;
      }
    }
  }
  EXPECT_EQ(Run("xst" + block + "opf", {.stop = {"stop"}}), (Outcome{"", "x", "stop"}));
}

TEST_F(ReplyTest, ToolCallsAreNotContent) {
  const std::string block = "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">";
  EXPECT_EQ(Run("Done.\n\n" + block), (Outcome{"", "Done.", {}}));
  EXPECT_EQ(Run("hm\n\n" + block, reasoning_), (Outcome{"hm", "", {}}));
  EXPECT_EQ(Run("hm</think>\n\n" + block, reasoning_), (Outcome{"hm", "", {}}));
  EXPECT_EQ(Run("a.<b\n<\n\n"), (Outcome{"", "a.<b\n<\n\n", {}}));
}

// With the ids at hand, a tag spelt in ordinary tokens is text.
TEST_F(ReplyTest, OnlyTokensAreTags) {
  const std::string text = "say </think> and <｜DSML｜tool_calls>";
  EXPECT_EQ(RunIds(tokenizer_.Encode(text, false), {}), (Outcome{"", text, {}}));
}

TEST_F(ReplyTest, ControlTokensAreNotPrinted) {
  EXPECT_EQ(RunIds(tokenizer_.Encode("a<｜latest_reminder｜>b<think>c", true), {}),
            (Outcome{"", "abc", {}}));
  EXPECT_EQ(RunIds(tokenizer_.Encode("a<think>b", true), {.skip_special = false}),
            (Outcome{"", "a<think>b", {}}));
}

TEST_F(ReplyTest, EndTokensEndTheReply) {
  for (const int32_t end : tokenizer_.end_ids()) {
    ReplyParser parser(tokenizer_, {});
    (void)parser.Feed('a');
    EXPECT_FALSE(parser.done());
    std::vector<int32_t> ids = {'a', '\n', end, 'b'};
    EXPECT_EQ(RunIds(ids, {}), (Outcome{"", "a\n", {}}));
    EXPECT_EQ(RunIds(ids, {.ignore_end = true}), (Outcome{"", "a\nb", {}}));
  }
}

TEST_F(ReplyTest, IncompleteCharactersAreHeldBack) {
  ReplyParser parser(tokenizer_, reasoning_);
  EXPECT_TRUE(parser.Feed(0xE4).empty());
  const auto deltas = parser.Feed(*tokenizer_.SpecialId("</think>"));
  ASSERT_EQ(deltas.size(), 1u);
  EXPECT_EQ(deltas[0].text, "\uFFFD");
  EXPECT_EQ(deltas[0].part, ReplyPart::kReasoning);
  EXPECT_EQ(RunIds({0xF0, 0x9F, 0x98}, {}), (Outcome{"", "\uFFFD", {}}));
}

TEST_F(ReplyTest, ReasoningTokensAreCounted) {
  ReplyParser parser(tokenizer_, reasoning_);
  EXPECT_EQ(parser.part(), ReplyPart::kReasoning);
  for (const int32_t id : tokenizer_.Encode("xyz</think>ab", true)) (void)parser.Feed(id);
  EXPECT_EQ(parser.part(), ReplyPart::kContent);
  EXPECT_EQ(parser.reasoning_tokens(), 4);
}

// Text leaves as soon as it cannot be taken back.
TEST_F(ReplyTest, HoldsBackNoMoreThanItMust) {
  ReplyParser parser(tokenizer_, {.stop = {"stop"}});
  const auto fed = [&](std::string_view bytes) {
    std::string text;
    for (const ReplyDelta& delta : parser.FeedBytes(bytes)) text += delta.text;
    return text;
  };
  EXPECT_EQ(fed("abc"), "abc");
  EXPECT_EQ(fed("\n"), "");
  EXPECT_EQ(fed("\n<"), "");
  EXPECT_EQ(fed("b"), "\n\n<b");
  EXPECT_EQ(fed("st"), "");
  EXPECT_EQ(fed("s"), "st");
  EXPECT_EQ(fed("x"), "sx");
}

// Quadratic time would take minutes.
TEST_F(ReplyTest, MillionsOfHeldBytesTakeLinearTime) {
  const std::string newlines(3'000'000, '\n'), brackets(3'000'000, '<');
  EXPECT_EQ(RunPieces({"a", newlines, "b"}, {}), (Outcome{"", "a" + newlines + "b", {}}));
  EXPECT_EQ(RunPieces({"a" + newlines}, reasoning_), (Outcome{"a" + newlines, "", {}}));
  EXPECT_EQ(RunPieces({brackets}, {}), (Outcome{"", brackets, {}}));
  EXPECT_EQ(RunPieces({newlines}, {.stop = {newlines + "x"}}), (Outcome{}));
}

TEST_F(ReplyTest, RandomRepliesDoNotDependOnTheCut) {
  std::mt19937 random(9);
  const std::string atoms[] = {"a",  "\n", "<",        "</think>", "</thi",   "<｜DSML｜", "｜DSML",
                               "é",  "😀",  "\xE4\xBD", "stop",     "st",      "\n\n",      "X",
                               "op", " ",  "</",       "｜",       "｜DSML｜"};
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (int i = static_cast<int>(random() % 10); i >= 0; --i) {
      text += atoms[random() % std::size(atoms)];
    }
    ReplyOptions options{.starts_in_reasoning = random() % 2 == 0};
    if (random() % 2 == 0) options.stop = {"stop", "\nX", "a\n"};
    if (random() % 2 == 0) options.stop = {"\n\nX", "</thX", "｜st"};
    const Outcome whole = RunPieces({text}, options);
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      ASSERT_EQ(RunPieces({text.substr(0, cut), text.substr(cut)}, options), whole) << text;
    }
    EXPECT_EQ(whole.content.find("<｜DSML｜"), std::string::npos) << text;
    for (const std::string& stop : options.stop) {
      EXPECT_EQ(whole.content.find(stop), std::string::npos) << text;
    }
  }
}

TEST(PlainReply, IsTextUpToAStopString) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  const std::string text = "\n\na</think>\nb stop c";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    PlainReply reply(tokenizer, {"stop", "p c"});
    std::string out = reply.FeedBytes(text.substr(0, cut));
    out += reply.FeedBytes(text.substr(cut));
    out += reply.Finish();
    EXPECT_EQ(out, "\n\na</think>\nb ");
    EXPECT_TRUE(reply.done());
    EXPECT_EQ(reply.matched_stop(), "stop");
  }
  PlainReply reply(tokenizer, {});
  EXPECT_EQ(reply.Feed('\n'), "\n");
  EXPECT_EQ(reply.Feed('<'), "<");
  EXPECT_EQ(reply.Feed(*tokenizer.bos_id()), "");
  EXPECT_EQ(reply.Feed(0xC3), "");
  EXPECT_EQ(reply.Finish(), "\uFFFD");
  EXPECT_FALSE(reply.done());
}

TEST(PatternWatcher, FindsTheLongestPatternThatEnds) {
  PatternWatcher watcher({"he", "she", "hers", ""});
  std::string found;
  for (const char byte : std::string("ushers")) {
    found += watcher.Feed(byte) ? static_cast<char>('0' + watcher.match()) : '.';
  }
  EXPECT_EQ(found, "...1.2");
  EXPECT_EQ(watcher.depth(), 4u);
}

}  // namespace
}  // namespace seacliff
