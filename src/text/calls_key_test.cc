// Which tool calls are the same.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "seacliff/text.h"

namespace seacliff {
namespace {

std::string Key(const std::string& arguments, const std::string& name = "f") {
  const ChatToolCall call{"", name, arguments};
  return CallsKey({&call, 1});
}

TEST(CallsKey, IsTheSameForWhatIsEqualAsJson) {
  const std::string key = Key(R"({"a": 1, "b": {"x": "é\n", "y": [true, null]}})");
  EXPECT_NE(key, "");
  EXPECT_EQ(Key(R"({"b":{"y":[true,null],"x":"\u00e9\u000a"},"a":1.0})"), key);
  EXPECT_EQ(Key(R"({"a": 1e0, "b": {"x": "é\n", "y": [true, null]}})"), key);
  EXPECT_EQ(Key("{}"), Key(" { } "));
  EXPECT_EQ(Key(R"({"a": 1.50})"), Key(R"({"a": 15e-1})"));
}

TEST(CallsKey, DiffersForAnythingElse) {
  const std::string key = Key(R"({"a": 1, "b": [1, 2]})");
  for (const char* other :
       {R"({"a": 2, "b": [1, 2]})", R"({"a": "1", "b": [1, 2]})", R"({"a": 1, "b": [2, 1]})",
        R"({"a": 1})", R"({"a": 1, "b": [1, 2], "c": null})", R"({"A": 1, "b": [1, 2]})",
        R"({"a": 1.5, "b": [1, 2]})", R"({"a": true, "b": [1, 2]})"}) {
    EXPECT_NE(Key(other), key) << other;
  }
  EXPECT_NE(Key("{}", "g"), Key("{}"));
  // Beyond what a double can tell apart.
  EXPECT_NE(Key(R"({"a": 12345678901234567890})"), Key(R"({"a": 12345678901234567891})"));
  // Beyond what a double can hold.
  for (const char* number : {"1e400", "-1e400", "1e-400"}) {
    const std::string huge = Key(fmt::format("{{\"a\": {}}}", number));
    EXPECT_NE(huge, Key(R"({"a": 0.0})")) << number;
    EXPECT_NE(huge, Key(R"({"a": 1e401})")) << number;
  }
  const ChatToolCall one{"", "f", "{}"};
  const std::vector<ChatToolCall> two = {one, one};
  EXPECT_NE(CallsKey(two), Key("{}"));
}

TEST(CallsKey, IsEmptyWithoutCallsOrArguments) {
  EXPECT_EQ(CallsKey({}), "");
  EXPECT_EQ(Key("[1]"), "");
  EXPECT_EQ(Key("{"), "");
}

}  // namespace
}  // namespace seacliff
