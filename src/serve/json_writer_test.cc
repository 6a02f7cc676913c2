// The JSON writer: commas, escapes, invalid bytes, numbers.
#include "serve/json_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace seacliff::serve {
namespace {

TEST(JsonWriter, PlacesCommas) {
  JsonWriter json;
  json.BeginObject().Field("a", 1).Key("b").BeginArray().Value(true).Value(nullptr);
  json.BeginObject().EndObject().EndArray().Field("c", "x,{").Field("d", 0.5).EndObject();
  EXPECT_EQ(json.text(), R"({"a":1,"b":[true,null,{}],"c":"x,{","d":0.5})");
}

TEST(JsonWriter, EscapesStrings) {
  JsonWriter json;
  json.Value(std::string("\"\\\n\r\t\x01\x7f/") + '\0' + "é😀");
  EXPECT_EQ(json.text(), "\"\\\"\\\\\\n\\r\\t\\u0001\\u007f/\\u0000é😀\"");
}

TEST(JsonWriter, ReplacesInvalidUtf8) {
  for (const std::string bad : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xe4\xb8", "a\x80z",
                                "\xf5\x80\x80\x80", "\xf0\x80\x80\x80"}) {
    JsonWriter json;
    json.Value(bad);
    EXPECT_NE(json.text().find("\xEF\xBF\xBD"), std::string::npos);
    EXPECT_TRUE(nlohmann::json::accept(json.text())) << json.text();
  }
}

TEST(JsonWriter, NumbersReadBackTheSame) {
  for (const float value : {0.1f, -1e-30f, 3.4e38f, 0.0f, -0.00012207031f}) {
    JsonWriter json;
    json.Value(value);
    EXPECT_EQ(std::stof(json.text()), value);
  }
  JsonWriter json;
  json.BeginArray().Value(NAN).Value(static_cast<double>(INFINITY)).Value(uint64_t{1} << 63);
  json.EndArray();
  EXPECT_EQ(json.text(), "[null,null,9223372036854775808]");
}

}  // namespace
}  // namespace seacliff::serve
