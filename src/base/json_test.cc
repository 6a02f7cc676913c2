// Typed JSON fields and the paths in their errors.
#include "base/json.h"

#include <gtest/gtest.h>

namespace seacliff {
namespace {

class JsonTest : public testing::Test {
 protected:
  void SetUp() override {
    auto parsed = JsonDocument::Parse(
        R"({"i": -3, "u": 18446744073709551615, "d": 2.5, "whole": 2, "b": true, "s": "text",
            "null": null, "o": {"k": 1}, "a": [1, 2]})",
        "test");
    ASSERT_TRUE(parsed.ok());
    document_ = std::move(parsed).value();
    object_ = document_.root().get_object().value();
  }
  template <typename T>
  std::string Error(std::string_view key, std::string_view path = "") {
    const auto result = JsonGet<T>(object_, key, path);
    EXPECT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), Code::kInvalidArgument);
    return result.status().message();
  }

  JsonDocument document_;
  simdjson::dom::object object_;
};

TEST_F(JsonTest, GetsEveryType) {
  EXPECT_EQ(JsonGet<int64_t>(object_, "i").value(), -3);
  EXPECT_EQ(JsonGet<uint64_t>(object_, "u").value(), 18446744073709551615u);
  EXPECT_EQ(JsonGet<double>(object_, "d").value(), 2.5);
  EXPECT_EQ(JsonGet<double>(object_, "whole").value(), 2.0);
  EXPECT_EQ(JsonGet<bool>(object_, "b").value(), true);
  EXPECT_EQ(JsonGet<std::string_view>(object_, "s").value(), "text");
  auto inner = JsonGet<simdjson::dom::object>(object_, "o");
  ASSERT_TRUE(inner.ok());
  EXPECT_EQ(JsonGet<int64_t>(*inner, "k", "o").value(), 1);
  EXPECT_EQ(JsonGet<simdjson::dom::array>(object_, "a").value().size(), 2u);
}

TEST_F(JsonTest, ErrorsNameThePath) {
  EXPECT_EQ(Error<int64_t>("absent"), "absent: missing");
  EXPECT_EQ(Error<int64_t>("absent", "rope.scaling"), "rope.scaling.absent: missing");
  EXPECT_EQ(Error<int64_t>("d"), "d: must be an integer");
  EXPECT_EQ(Error<uint64_t>("i"), "i: must be a non-negative integer");
  EXPECT_EQ(Error<double>("s", "x"), "x.s: must be a number");
  EXPECT_EQ(Error<bool>("i"), "i: must be true or false");
  EXPECT_EQ(Error<std::string_view>("null"), "null: must be a string");
  EXPECT_EQ(Error<simdjson::dom::object>("a"), "a: must be an object");
  EXPECT_EQ(Error<simdjson::dom::array>("o"), "o: must be an array");
}

TEST_F(JsonTest, AbsentAndNullFieldsFallBack) {
  EXPECT_EQ(JsonGetOr<int64_t>(object_, "absent", 7).value(), 7);
  EXPECT_EQ(JsonGetOr<int64_t>(object_, "null", 7).value(), 7);
  EXPECT_EQ(JsonGetOr<int64_t>(object_, "i", 7).value(), -3);
  const auto wrong = JsonGetOr<int64_t>(object_, "s", 7, "config");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().message(), "config.s: must be an integer");
}

TEST(JsonDocument, BadTextNamesItsSource) {
  for (const char* text : {"", "{", "{\"a\": 01}", "{\"a\": 1} x"}) {
    const auto document = JsonDocument::Parse(text, "config.json");
    ASSERT_FALSE(document.ok()) << text;
    EXPECT_TRUE(document.status().message().starts_with("config.json: not valid JSON: "));
  }
}

}  // namespace
}  // namespace seacliff
