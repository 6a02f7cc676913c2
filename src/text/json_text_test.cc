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

TEST(JsonText, RefusesBottomlessNesting) {
  const std::string deep(100000, '[');
  EXPECT_TRUE(Printed("{\"a\": " + deep).starts_with("error: "));
  EXPECT_TRUE(Printed("{\"a\": " + deep + std::string(100000, ']') + "}").starts_with("error: "));
}

}  // namespace
}  // namespace seacliff
