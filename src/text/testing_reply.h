// For tests of replies: what a reply comes to, however it is cut, and the blocks that models write.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seacliff/text.h"
#include "text/json_text.h"
#include "text/testing_tokenizer.h"

namespace seacliff::testing_reply {

struct Outcome {
  std::string reasoning, content;
  // Name and arguments of each call, in the order in which they began: as deltas told them, and as
  // the parser tells them at the end.
  std::vector<std::pair<std::string, std::string>> streamed, calls;
  std::optional<std::string> stop;
  bool cut = false, closed = false, whole = false;
  std::array<int32_t, kCallFaultNames.size()> faults = {};

  bool operator==(const Outcome&) const = default;
  int fault(CallFault fault) const { return faults[static_cast<size_t>(fault)]; }
};

inline void PrintTo(const Outcome& outcome, std::ostream* out) {
  *out << "R[" << outcome.reasoning << "] C[" << outcome.content << "] stop "
       << outcome.stop.value_or("none") << (outcome.cut ? " cut" : "")
       << (outcome.closed ? " closed" : "") << (outcome.whole ? " whole" : "");
  for (const auto& [name, arguments] : outcome.streamed) *out << "\n  " << name << arguments;
  for (const auto& [name, arguments] : outcome.calls) *out << "\n  = " << name << arguments;
  for (size_t i = 0; i < outcome.faults.size(); ++i) {
    if (outcome.faults[i] != 0) *out << "\n  " << outcome.faults[i] << " " << kCallFaultNames[i];
  }
}

inline bool IsJson(std::string_view text) { return ParseJsonValue(text).has_value(); }

// Reads a reply in pieces and checks each delta of it.
class Reader {
 public:
  Reader(const Tokenizer& tokenizer, const ReplyOptions& options) : parser_(tokenizer, options) {}

  void Ids(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) Keep(parser_.Feed(id));
  }
  void Bytes(std::string_view bytes) { Keep(parser_.FeedBytes(bytes)); }

  Outcome End() {
    Keep(parser_.Finish());
    EXPECT_TRUE(parser_.done());
    outcome_.stop = parser_.matched_stop();
    const ReplyCalls& calls = parser_.calls();
    for (const ChatToolCall& call : calls.delivered) {
      outcome_.calls.emplace_back(call.name, call.arguments);
      EXPECT_TRUE(IsJson(call.arguments)) << call.arguments;
    }
    outcome_.cut = calls.cut;
    outcome_.closed = calls.closed;
    outcome_.whole = calls.whole;
    outcome_.faults = calls.faults;
    CheckCalls();
    return outcome_;
  }

 private:
  void Keep(const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      EXPECT_TRUE(utf8::IsValid(delta.text));
      if (delta.part == ReplyPart::kToolCall) {
        // A call begins with its name alone; calls do not mix.
        EXPECT_NE(delta.name.empty(), delta.text.empty());
        if (!delta.name.empty()) outcome_.streamed.emplace_back(delta.name, "");
        EXPECT_EQ(static_cast<size_t>(delta.call) + 1, outcome_.streamed.size());
        if (!outcome_.streamed.empty()) outcome_.streamed.back().second += delta.text;
        continue;
      }
      EXPECT_FALSE(delta.text.empty());
      EXPECT_TRUE(outcome_.streamed.empty()) << "content behind calls: " << delta.text;
      const bool reasoning = delta.part == ReplyPart::kReasoning;
      EXPECT_TRUE(!reasoning || outcome_.content.empty());
      (reasoning ? outcome_.reasoning : outcome_.content) += delta.text;
    }
  }

  // A call that was begun is delivered if and only if its arguments are JSON text.
  void CheckCalls() {
    std::vector<std::pair<std::string, std::string>> complete;
    for (const auto& call : outcome_.streamed) {
      if (IsJson(call.second)) complete.push_back(call);
    }
    EXPECT_EQ(complete, outcome_.calls);
  }

  ReplyParser parser_;
  Outcome outcome_;
};

class ReplyFixture : public ::testing::Test {
 protected:
  Outcome OfPieces(const std::vector<std::string>& pieces, const ReplyOptions& options) const {
    Reader reader(tokenizer_, options);
    for (const std::string& piece : pieces) reader.Bytes(piece);
    return reader.End();
  }
  Outcome OfIds(const std::vector<int32_t>& ids, const ReplyOptions& options) const {
    Reader reader(tokenizer_, options);
    reader.Ids(ids);
    return reader.End();
  }

  // The text as tokens, tags as their tokens, and as bytes: in every way to cut it once, byte by
  // byte and at random. Always the same.
  Outcome Run(const std::string& text, const ReplyOptions& options = {}) const {
    const Outcome outcome = OfIds(tokenizer_.Encode(text, true), options);
    std::vector<std::string> bytes;
    for (const char byte : text) bytes.emplace_back(1, byte);
    EXPECT_EQ(OfPieces(bytes, options), outcome) << text;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      EXPECT_EQ(OfPieces({text.substr(0, cut), text.substr(cut)}, options), outcome) << text;
    }
    std::mt19937 random(1);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::string> pieces;
      for (size_t at = 0; at < text.size();) {
        const size_t size = 1 + random() % 9;
        pieces.push_back(text.substr(at, size));
        at += size;
      }
      EXPECT_EQ(OfPieces(pieces, options), outcome) << text;
    }
    EXPECT_EQ(outcome.content.find("｜DSML｜"), std::string::npos) << text;
    return outcome;
  }

  const Tokenizer tokenizer_ = testing_tokenizer::Make();
};

// The tools of the tests.
inline std::vector<ReplyTool> Tools() {
  return {{"get_weather", R"({"type": "object", "properties": {"city": {"type": "string"},
             "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}}, "required": ["city"]})"},
          {"now", R"({"type": "object", "properties": {}})"},
          {"write", R"({"type": "object", "properties": {"path": {"type": "string"},
             "text": {"type": "string"}}, "required": ["path", "text"]})"},
          {"set", R"({"type": "object", "properties": {"n": {"type": "number"},
             "i": {"type": "integer"}, "on": {"type": "boolean"}, "list": {"type": "array"},
             "map": {"$ref": "#/$defs/map"}, "text": {"type": ["string", "null"]},
             "or": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "any": {}},
             "$defs": {"map": {"type": "object"}}})"}};
}

inline ReplyOptions WithTools() { return {.deliver_calls = true, .tools = Tools()}; }

// Blocks as the template writes them.
inline std::string Parameter(std::string_view key, std::string_view value, bool string = true) {
  return "<｜DSML｜parameter name=\"" + std::string(key) + "\" string=\"" +
         (string ? "true" : "false") + "\">" + std::string(value) + "</｜DSML｜parameter>\n";
}
inline std::string Invoke(std::string_view name, std::string_view parameters) {
  return "<｜DSML｜invoke name=\"" + std::string(name) + "\">\n" + std::string(parameters) +
         "</｜DSML｜invoke>\n";
}
inline std::string Block(std::string_view invokes) {
  return "\n\n<｜DSML｜tool_calls>\n" + std::string(invokes) + "</｜DSML｜tool_calls>";
}

inline std::string Replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += by.size()) {
    text.replace(at, what.size(), by);
  }
  return text;
}
// In the words of V4.1.
inline std::string AsV41(const std::string& text) {
  std::string out = Replaced(text, "｜DSML｜tool_calls", "｜DSML｜ calls");
  out = Replaced(out, "｜DSML｜invoke", "｜DSML｜ invoke");
  return Replaced(out, "｜DSML｜parameter", "｜DSML｜ parameter");
}

}  // namespace seacliff::testing_reply
