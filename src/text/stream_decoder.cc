// StreamDecoder: what of the bytes so far is text that will not change.
#include "seacliff/text.h"
#include "text/utf8.h"

namespace seacliff {

std::string StreamDecoder::Feed(int32_t id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  return FeedBytes(tokenizer_->TokenBytes(id));
}

std::string StreamDecoder::FeedBytes(std::string_view bytes) {
  std::string text = std::move(held_);
  text += bytes;
  const size_t complete = utf8::CompleteLength(text);
  held_ = text.substr(complete);
  text.resize(complete);
  return utf8::IsValid(text) ? text : utf8::ReplaceInvalid(text);
}

std::string StreamDecoder::Finish() {
  std::string text = held_.empty() ? std::string() : std::string(utf8::kReplacement);
  held_.clear();
  return text;
}

}  // namespace seacliff
