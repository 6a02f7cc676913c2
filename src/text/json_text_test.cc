// Spelling, order and refusal of JSON that goes into prompts.
#include "text/json_text.h"

#include <gtest/gtest.h>

namespace seacliff {
namespace {

std::string Printed(std::string_view json) {
  const auto value = ParseJsonObject(json, "field");
  if (!value.ok()) return "error: " + value.status().message();
  std::string out;
  AppendJson(*value, &out);
  return out;
}

TEST(JsonText, PrintsAsPythonDoesButKeepsNumbers) {
  EXPECT_EQ(
      Printed(R"({"b":1.0,"a":[1e30,-0,12345678901234567890123,true,null],"c":{},"d":[]})"),
      R"({"b": 1.0, "a": [1e30, -0, 12345678901234567890123, true, null], "c": {}, "d": []})");
  EXPECT_EQ(Printed("{\"x\": \"\\u00e9 \\/ \\n \\u0001 \\\" \\\\ \x7f\"}"),
            "{\"x\": \"é / \\n \\u0001 \\\" \\\\ \x7f\"}");
  EXPECT_EQ(Printed(" { } \n"), "{}");
}

TEST(JsonText, LastOfDuplicateKeysWinsAtTheFirstPlace) {
  EXPECT_EQ(Printed(R"({"a": 1, "b": 2, "a": {"x": 3}})"), R"({"a": {"x": 3}, "b": 2})");
}

TEST(JsonText, RefusesWhatIsNotAnObject) {
  for (const char* json : {"",
                           "[]",
                           "1",
                           "null",
                           "{",
                           "{}x",
                           "{} {}",
                           "{\"a\"}",
                           "{\"a\": 01}",
                           "{\"a\": 1.}",
                           "{\"a\": tru}",
                           "{\"a\": \"\\ud800\"}",
                           "{\"a\": \"\\q\"}",
                           "{\"a\": nul}",
                           "{\"a\" 1}",
                           "{\"a\": 1,}",
                           "{\"a\": --1}",
                           "{\"a\": 1e}",
                           "{\"a\": \"\x80\"}",
                           "{\"a\": [1 2]}",
                           "{\"a\": \"x}",
                           "{\"a\": [}"}) {
    EXPECT_TRUE(Printed(json).starts_with("error: field: ")) << json;
  }
}

TEST(JsonText, ReadsAnyValue) {
  for (const char* json : {"1", " -2.5e3 ", "\"a\"", "null", "true", "[1, [2]]", "{\"a\": 1}"}) {
    EXPECT_TRUE(ParseJsonValue(json)) << json;
  }
  for (const char* json : {"", " ", "1 2", "1, 2", "1], [2", "tru", "01", "'a'", "{\"a\": 1,}", "]",
                           "\"a", "NaN", "\"\n\""}) {
    EXPECT_FALSE(ParseJsonValue(json)) << json;
  }
}

TEST(JsonText, FollowsReferences) {
  const auto root = ParseJsonObject(
      R"({"$defs": {"a/b": 1, "a b": 2, "~": 3, "%4": 4, "": 5}, "allOf": [6, {"x": 7}]})", "");
  ASSERT_TRUE(root.ok());
  const auto at = [&root](std::string_view reference) {
    const JsonText* value = &*root;
    const auto steps = ReferenceSteps(reference);
    if (!steps) return std::string("elsewhere");
    for (const std::string& step : *steps) value = value == nullptr ? nullptr : value->At(step);
    return value == nullptr ? "nothing" : value == &*root ? "root" : value->text;
  };
  EXPECT_EQ(at("#"), "root");
  EXPECT_EQ(at("#/$defs/a~1b"), "1");
  EXPECT_EQ(at("#/$defs/a%2Fb"), "1");
  EXPECT_EQ(at("#/%24defs/a%20b"), "2");
  EXPECT_EQ(at("#/$defs/~0"), "3");
  EXPECT_EQ(at("#/$defs/%4"), "4");
  EXPECT_EQ(at("#/$defs/"), "5");
  EXPECT_EQ(at("#/allOf/0"), "6");
  EXPECT_EQ(at("#/allOf/1/x"), "7");
  for (const char* step : {"2", "-1", "0x", "", "99999999999999999999"}) {
    EXPECT_EQ(at("#/allOf/" + std::string(step)), "nothing") << step;
  }
  EXPECT_EQ(at("#/no/such"), "nothing");
  for (const char* other : {"", "a", "#a", "http://a/#/b"}) EXPECT_EQ(at(other), "elsewhere");
}

TEST(JsonText, RefusesBottomlessNesting) {
  const std::string deep(100000, '[');
  EXPECT_TRUE(Printed("{\"a\": " + deep).starts_with("error: "));
  EXPECT_TRUE(Printed("{\"a\": " + deep + std::string(100000, ']') + "}").starts_with("error: "));
}

}  // namespace
}  // namespace seacliff
