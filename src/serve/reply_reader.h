// One choice's tokens to pieces of reply: the chat parser or the plain one of seacliff/text.h
// behind one face.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seacliff/text.h"

namespace seacliff::serve {

class ReplyReader {
 public:
  explicit ReplyReader(ReplyParser parser) : reader_(std::move(parser)) {}
  explicit ReplyReader(PlainReply plain) : reader_(std::move(plain)) {}

  std::vector<ReplyDelta> Feed(int32_t id) {
    if (auto* parser = std::get_if<ReplyParser>(&reader_)) return parser->Feed(id);
    return Wrap(std::get<PlainReply>(reader_).Feed(id));
  }
  std::vector<ReplyDelta> Finish() {
    if (auto* parser = std::get_if<ReplyParser>(&reader_)) return parser->Finish();
    return Wrap(std::get<PlainReply>(reader_).Finish());
  }
  bool done() const {
    return std::visit([](const auto& reader) { return reader.done(); }, reader_);
  }
  const std::optional<std::string>& matched_stop() const {
    return std::visit(
        [](const auto& reader) -> const std::optional<std::string>& {
          return reader.matched_stop();
        },
        reader_);
  }
  ReplyPart part() const {
    const auto* parser = std::get_if<ReplyParser>(&reader_);
    return parser ? parser->part() : ReplyPart::kContent;
  }
  // Null for a completion.
  const ReplyCalls* calls() const {
    const auto* parser = std::get_if<ReplyParser>(&reader_);
    return parser ? &parser->calls() : nullptr;
  }
  int32_t reasoning_tokens() const {
    const auto* parser = std::get_if<ReplyParser>(&reader_);
    return parser ? parser->reasoning_tokens() : 0;
  }

 private:
  static std::vector<ReplyDelta> Wrap(std::string text) {
    std::vector<ReplyDelta> out;
    if (!text.empty()) out.push_back({ReplyPart::kContent, std::move(text)});
    return out;
  }

  std::variant<ReplyParser, PlainReply> reader_;
};

}  // namespace seacliff::serve
