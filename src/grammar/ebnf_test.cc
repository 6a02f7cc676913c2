// Grammars that must not reach xgrammar's compiler, and some that must.
#include "grammar/ebnf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "grammar/xgrammar_wall.h"

namespace seacliff::grammar {
namespace {

Status Check(const std::string& text) {
  if (Status status = CheckEbnf(text); !status.ok()) return status;
  const auto printed = Guarded(
      Code::kInvalidArgument, [&] { return xgrammar::Grammar::FromEBNF(text, "root").ToString(); });
  return printed.ok() ? CheckRules(*printed) : printed.status();
}

TEST(Ebnf, RulesThatEnd) {
  for (const char* text : {
           "root ::= \"a\"",
           "root ::= \"a\" | root root",
           "root ::= (\"(\" root \")\")?",
           "root ::= \"a\" root{0,3}",
           "root ::= x{3}\nx ::= y{2,} | \"|\"\ny ::= [a-z|(\\]] \"\\\"\" z*\n"
           "z ::= \"\" | \"root\" y",
           "root ::= x (= \"b\")\nx ::= [a-b]+",
       }) {
    EXPECT_TRUE(Check(text).ok()) << text << ": " << Check(text).message();
  }
}

TEST(Ebnf, RulesThatNeverEnd) {
  for (const char* text :
       {"root ::= root", "root ::= root{5}", "root ::= x{3}\nx ::= root", "root ::= root \"a\"",
        "root ::= \"a\" | x{3}\nx ::= x{3}", "root ::= x{2}\nx ::= y{2}\ny ::= x{2}",
        "root ::= \"a\" root{5}", "root ::= \"a\" | \"b\" x\nx ::= x \"c\"", "root ::= root{0,3}",
        "root ::= x\nx ::= (x{0,3}){2}"}) {
    EXPECT_EQ(Check(text).code(), Code::kInvalidArgument) << text;
    EXPECT_NE(Check(text).message().find("can never end"), std::string::npos)
        << text << ": " << Check(text).message();
  }
}

TEST(Ebnf, Sizes) {
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 3000; ++i) chain += fmt::format("r{} ::= r{} | \"b\"\n", i, i + 1);
  EXPECT_NE(Check(chain + "r3000 ::= \"x\"").message().find("rules"), std::string::npos);
  EXPECT_FALSE(Check("root ::= " + std::string(200, '(') + "\"a\"" + std::string(200, ')')).ok());
  EXPECT_FALSE(Check("root ::= ((\"a\"{1000}){1000}){1000}").ok());
  EXPECT_FALSE(Check("root ::= a{60}\na ::= \"x\" b{60}\nb ::= c{60} \"y\"\nc ::= [a-z]").ok());
  EXPECT_FALSE(Check("root ::= \"a\"{4294967297}").ok());
  EXPECT_FALSE(Check("root ::= \"" + std::string(300 << 10, 'a') + "\"").ok());
  EXPECT_FALSE(Check("root ::= \"\xff\"").ok());
}

TEST(Ebnf, RepetitionsOneBehindTheOtherAddUp) {
  std::string sequence = "root ::= a";
  for (int i = 0; i < 30; ++i) sequence += " [a-z]{2} a{3,}";
  EXPECT_TRUE(Check(sequence + "\na ::= \"-\" b b\nb ::= [0-9]{20}").ok());
  for (int i = 0; i < 300; ++i) sequence += fmt::format(" \"{}\"{{0,100}}", i);
  EXPECT_FALSE(Check(sequence + "\na ::= \"-\"").ok());
}

}  // namespace
}  // namespace seacliff::grammar
