// TokenRules as the engine uses them, over a tokenizer made on the spot: phases, tokens that are
// never allowed, the end, and errors. What grammars allow is tested in tests/grammar.
#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "grammar/expr.h"
#include "text/specials.h"
#include "text/testing_tokenizer.h"

namespace seacliff {
namespace {

class GrammarTest : public testing::Test {
 protected:
  int32_t Id(SpecialRole role) const { return *tokenizer_.SpecialId(SpecialText(role)); }
  std::vector<int32_t> Ids(std::string_view text) const { return tokenizer_.Encode(text, true); }

  // Whether each token of `text` may come; they are accepted.
  bool Takes(TokenRules* rules, std::string_view text) {
    bool good = true;
    for (const int32_t id : Ids(text)) {
      good = good && (!rules->Mask(mask_) || May(id));
      rules->Accept(id);
    }
    return good;
  }
  bool May(int32_t id) const { return (mask_[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0; }
  bool MayEnd(TokenRules* rules) {
    return !rules->Mask(mask_) || May(Id(SpecialRole::kEndOfSentence));
  }
  // The tokens that may come next.
  std::vector<int32_t> Allowed(TokenRules* rules) {
    EXPECT_TRUE(rules->Mask(mask_));
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < static_cast<int32_t>(mask_.size()) * 32; ++id) {
      if (May(id)) ids.push_back(id);
    }
    return ids;
  }
  Grammar Tools() {
    const GrammarTool tool{"f", R"({"properties": {"a": {"type": "integer"}}, "required": ["a"]})",
                           true};
    auto grammar = grammars_.ToolBlock({&tool, 1}, {});
    EXPECT_TRUE(grammar.ok()) << grammar.status().message();
    return *grammar;
  }

  // Wider than the vocabulary, as a model's may be.
  Tokenizer tokenizer_ = testing_tokenizer::Make({"<｜place▁holder▁no▁0｜>"});
  Grammars grammars_{tokenizer_, ChatProfile::kPreview};
  std::vector<uint32_t> mask_ = std::vector<uint32_t>(
      (static_cast<size_t>(tokenizer_.vocab_size()) + 31) / 32 + 3, 0xFFFFFFFF);
  const std::string block_ =
      "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
      "<｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
      "</｜DSML｜tool_calls>";
};

TEST_F(GrammarTest, OnlyTheEndMayFollowACompleteAnswer) {
  const std::vector<std::string> choices = {"yes", "no"};
  const auto grammar = grammars_.Choice(choices);
  ASSERT_TRUE(grammar.ok());
  const auto rules = grammars_.MakeRules(*grammar, {});
  EXPECT_EQ(Allowed(rules.get()), (std::vector<int32_t>{'n', 'y'}));
  EXPECT_TRUE(Takes(rules.get(), "no"));
  EXPECT_EQ(Allowed(rules.get()), tokenizer_.end_ids());
  EXPECT_FALSE(rules->done());
  rules->Accept(Id(SpecialRole::kEndOfSentence));
  EXPECT_TRUE(rules->done());
  EXPECT_TRUE(rules->error().ok());
}

TEST_F(GrammarTest, AddedTokensAreNeverWithinAGrammar) {
  const auto grammar = grammars_.Regex("[^a]*");
  ASSERT_TRUE(grammar.ok());
  const auto rules = grammars_.MakeRules(*grammar, {});
  for (const int32_t id : Allowed(rules.get())) {
    const bool ends = std::find(tokenizer_.end_ids().begin(), tokenizer_.end_ids().end(), id) !=
                      tokenizer_.end_ids().end();
    EXPECT_TRUE(ends || !tokenizer_.IsAdded(id)) << id;
    EXPECT_LT(id, tokenizer_.vocab_size());
  }
  EXPECT_FALSE(May('a'));
  EXPECT_TRUE(May('b'));
}

TEST_F(GrammarTest, ReasoningIsFreeButDoesNotEndTheReply) {
  const auto grammar = grammars_.JsonSchema(R"({"type": "integer"})", true);
  ASSERT_TRUE(grammar.ok());
  const auto rules = grammars_.MakeRules(*grammar, {.starts_in_reasoning = true});
  EXPECT_TRUE(Takes(rules.get(), "Hello, 1 or {2}"));
  EXPECT_FALSE(MayEnd(rules.get()));
  EXPECT_FALSE(May(Id(SpecialRole::kDsml)));
  EXPECT_FALSE(May(*tokenizer_.SpecialId("<｜place▁holder▁no▁0｜>")));
  EXPECT_TRUE(May(Id(SpecialRole::kThinkEnd)));
  EXPECT_TRUE(Takes(rules.get(), "</think>\n\n4"));
  EXPECT_TRUE(MayEnd(rules.get()));
  EXPECT_FALSE(May('x'));
  EXPECT_FALSE(May('\n'));
}

TEST_F(GrammarTest, ABlockHoldsFromTheTokenOn) {
  const auto rules = grammars_.MakeRules(Tools(), {.when_called = true});
  EXPECT_FALSE(rules->Mask(mask_));
  // As text it is none; nor behind anything but "<", which may be part of a longer token.
  for (const int32_t id : tokenizer_.Encode("<｜DSML｜ a", false)) rules->Accept(id);
  rules->Accept(Id(SpecialRole::kDsml));
  EXPECT_FALSE(rules->Mask(mask_));
  EXPECT_TRUE(Takes(rules.get(), "Done.<"));
  rules->Accept(Id(SpecialRole::kDsml));
  EXPECT_EQ(Allowed(rules.get()), (std::vector<int32_t>{'t'}));
  EXPECT_TRUE(Takes(rules.get(), block_.substr(block_.find("tool_calls"))));
  EXPECT_EQ(Allowed(rules.get()), tokenizer_.end_ids());
}

TEST_F(GrammarTest, ACallEndsReasoning) {
  const auto asked = grammars_.MakeRules(Tools(), {.starts_in_reasoning = true});
  EXPECT_TRUE(Takes(asked.get(), "I call " + block_));
  EXPECT_TRUE(MayEnd(asked.get()));
  const auto at_will =
      grammars_.MakeRules(Tools(), {.starts_in_reasoning = true, .when_called = true});
  EXPECT_TRUE(Takes(at_will.get(), "I think</think>\n\n" + block_));
  EXPECT_EQ(Allowed(at_will.get()), tokenizer_.end_ids());
}

TEST_F(GrammarTest, ATokenAgainstTheRulesIsAnErrorOfThatRequestAlone) {
  const auto grammar = grammars_.JsonObject();
  ASSERT_TRUE(grammar.ok());
  const auto rules = grammars_.MakeRules(*grammar, {});
  const auto other = grammars_.MakeRules(*grammar, {});
  rules->Accept('x');
  EXPECT_FALSE(rules->error().ok());
  EXPECT_TRUE(Allowed(rules.get()).empty());
  rules->Accept('{');
  rules->Accept(-1);
  rules->Accept(1'000'000);
  EXPECT_TRUE(Takes(other.get(), "{\"a\": 1}"));
  EXPECT_TRUE(other->error().ok());
}

TEST_F(GrammarTest, AmbiguityEndsTheRequest) {
  std::string ebnf = "root ::= [a-z] | root root |";
  for (int i = 0; i < 80; ++i) ebnf += " root";
  const auto grammar = grammars_.Ebnf(ebnf);
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  const auto rules = grammars_.MakeRules(*grammar, {});
  for (int i = 0; i < 1000 && rules->error().ok(); ++i) {
    rules->Accept('a');
    EXPECT_TRUE(rules->Mask(mask_));
  }
  EXPECT_EQ(rules->error().code(), Code::kInvalidArgument) << rules->error().message();
  EXPECT_TRUE(Allowed(rules.get()).empty());
}

TEST(Expr, RepetitionsOfRepetitionsAreOne) {
  using grammar::Repeat;
  const grammar::Expr digit = grammar::Set(grammar::CharSet::Of("0"));
  for (const int64_t inner : {0, 1}) {
    for (const int64_t outer : {0, 1}) {
      const grammar::Expr both = Repeat(Repeat(digit, inner, -1), outer, -1);
      EXPECT_EQ(both->parts[0], digit);
      EXPECT_EQ(both->min, inner * outer);
    }
  }
  EXPECT_NE(Repeat(Repeat(digit, 2, -1), 0, -1)->parts[0], digit);
}

TEST_F(GrammarTest, IdsBeyondTheVocabularyAreNotAllowed) {
  const auto rules = grammars_.MakeRules(Tools(), {.starts_in_reasoning = true});
  for (const int32_t id : Allowed(rules.get())) EXPECT_LT(id, tokenizer_.vocab_size());
}

TEST_F(GrammarTest, RulesOutliveWhatMadeThem) {
  std::unique_ptr<TokenRules> rules;
  {
    const Grammars grammars(tokenizer_, ChatProfile::kPreview);
    const auto grammar = grammars.Regex("ab+");
    ASSERT_TRUE(grammar.ok());
    rules = grammars.MakeRules(*grammar, {});
  }
  EXPECT_TRUE(Takes(rules.get(), "abb"));
  EXPECT_TRUE(MayEnd(rules.get()));
}

TEST_F(GrammarTest, ThreadsCompileAndMaskAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        const auto grammar = grammars_.JsonSchema(
            R"({"type": "object", "properties": {"a": {"type": "integer", "maximum": )" +
                std::to_string(10 + (i + round) % 2) + "}}}",
            true);
        ASSERT_TRUE(grammar.ok());
        const auto rules = grammars_.MakeRules(*grammar, {});
        std::vector<uint32_t> mask(mask_.size());
        for (const int32_t id : Ids("{\"a\": 3}")) {
          ASSERT_TRUE(rules->Mask(mask));
          ASSERT_NE(mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1, 0u);
          rules->Accept(id);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace seacliff
