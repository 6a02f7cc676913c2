// The states inside a block of tool calls; see reply_calls.h.
#include "text/reply_calls.h"

#include <algorithm>
#include <array>
#include <utility>

#include "text/utf8.h"

namespace seacliff {
namespace {

constexpr size_t kMaxTag = 4096;  // bytes; what is longer is no tag
constexpr std::string_view kPipe = "｜";
constexpr std::string_view kMarker = "｜DSML｜";

// What tags begin with: the marker as text or as token, with a pipe too many, with ASCII's pipes.
// A further pipe behind the marker is part of the tag.
const std::vector<std::string> kTagsOfText = {"<｜DSML｜",    "</｜DSML｜", "<｜｜DSML｜",
                                              "</｜｜DSML｜", "<|DSML|",    "</|DSML|",
                                              "<||DSML|",     "</||DSML|"};
const std::vector<std::string> kTagsOfTokens = {"<\xFE",   "</\xFE",   "<｜\xFE",  "</｜\xFE",
                                                "<|DSML|", "</|DSML|", "<||DSML|", "</||DSML|"};

// Of these the closing ones; only the first in blocks whose own tag was as it should be.
std::vector<std::string> Ends(const std::vector<std::string>& tags, bool strict) {
  std::vector<std::string> out;
  for (const std::string& tag : tags) {
    if (tag[1] == '/' && (out.empty() || !strict)) out.push_back(tag);
  }
  return out;
}

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool IsBlank(std::string_view text) { return std::all_of(text.begin(), text.end(), IsSpace); }
bool IsBlockName(std::string_view word) { return word == "tool_calls" || word == "calls"; }

// What stands between `name="` and the last quote, if anything.
std::optional<std::string> NameOf(std::string_view attributes) {
  constexpr std::string_view kName = "name=\"";
  const size_t begin = attributes.find(kName);
  const size_t end = attributes.rfind('"');
  if (begin == attributes.npos || end <= begin + kName.size()) return std::nullopt;
  return std::string(attributes.substr(begin + kName.size(), end - begin - kName.size()));
}

// Also without those that come together where one was.
std::string WithoutMarkers(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    if (byte != kDsmlMark && byte != kThinkEndMark) out += byte;
    if (out.ends_with(kMarker)) out.resize(out.size() - kMarker.size());
  }
  return out;
}

}  // namespace

ReplyCallReader::ReplyCallReader(const ReplyOptions& options, const ReplyTools* tools,
                                 Opening opening)
    : deliver_(options.deliver_calls),
      one_call_(options.one_call),
      known_names_(options.known_names),
      tools_(tools),
      at_(opening == Opening::kForced ? At::kBlock : At::kTag),
      opening_(opening != Opening::kForced),
      certain_(opening == Opening::kMarker || opening == Opening::kForced),
      plain_(opening == Opening::kPlain),
      tags_of_text_(kTagsOfText),
      tags_of_tokens_(kTagsOfTokens),
      ends_of_text_(Ends(kTagsOfText, certain_)),
      ends_of_tokens_(Ends(kTagsOfTokens, certain_)) {}

ReplyCallReader::State ReplyCallReader::state() const {
  if (at_ == At::kNoBlock) return State::kNoBlock;
  if (opening_ || plain_) return State::kOpening;
  if (at_ == At::kClosed) return State::kClosed;
  return at_ == At::kEnough ? State::kEnough : State::kOpen;
}

std::string ReplyCallReader::rest() const { return WithoutMarkers(plain_ ? raw_ : header_); }

bool ReplyCallReader::Feed(char byte, bool find_tags, std::vector<ReplyDelta>* deltas,
                           ReplyCalls* calls) {
  deltas_ = deltas;
  calls_ = deliver_ ? calls : &unwanted_;
  const bool was_open = state() == State::kOpen;
  if (plain_ || (call_ && call_->refused)) raw_ += byte;
  Take(byte, find_tags);
  if (std::exchange(begins_raw_, false)) raw_ += byte;
  if (!deliver_ && !was_open && state() == State::kOpen) {
    ++calls->faults[static_cast<size_t>(CallFault::kUnwanted)];
  }
  if (at_ == At::kClosed) return byte == '>';  // else it ended a tag that has no bracket
  if (at_ != At::kNoBlock) return true;
  if (plain_) raw_.pop_back();
  return false;
}

void ReplyCallReader::Take(char byte, bool find_tags) {
  switch (at_) {
    case At::kTag:
      return TagByte(byte, find_tags);
    case At::kBlock:
    case At::kCall:
      return TextByte(byte, find_tags);
    case At::kValue:
      return ValueByte(byte, find_tags);
    case At::kClosed:
    case At::kEnough:
    case At::kNoBlock:
      return;
  }
}

void ReplyCallReader::BeginTag(bool closes, At around) {
  at_ = At::kTag;
  around_ = around;
  closes_ = closes;
  in_quotes_ = false;
  header_.clear();
}

void ReplyCallReader::TextByte(char byte, bool find_tags) {
  PatternWatcher& tags = find_tags ? tags_of_text_ : tags_of_tokens_;
  (find_tags ? tags_of_tokens_ : tags_of_text_).Reset();
  text_ += byte;
  if (!tags.Feed(byte)) {
    if (plain_ && at_ == At::kBlock && tags.depth() == 0 && !IsSpace(byte)) at_ = At::kNoBlock;
    return;
  }
  const std::string& tag = (find_tags ? kTagsOfText : kTagsOfTokens)[tags.match()];
  tags.Reset();
  text_.resize(text_.size() - tag.size());
  TakeText();
  if (plain_ && tag.find('|') == tag.npos) {
    plain_ = false;
    Count(CallFault::kWrapper);
  }
  BeginTag(tag[1] == '/', at_);
}

// Text between tags has no meaning, but models write all arguments there.
void ReplyCallReader::TakeText() {
  if (!IsBlank(text_)) {
    if (at_ == At::kCall && !call_->arguments.between_values()) {
      call_->body += text_;
    } else {
      Count(CallFault::kMarkup);
    }
  }
  text_.clear();
}

bool ReplyCallReader::TagMayHave(char byte) const {
  if (byte == '\n' || byte == '<' || byte == kThinkEndMark) return false;
  const bool in_character = (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
  if (header_.size() >= kMaxTag && !in_character) return false;
  if (in_quotes_) return true;
  return static_cast<signed char>(byte) > 0 || kPipe.starts_with(header_ + byte);
}

void ReplyCallReader::TagByte(char byte, bool find_tags) {
  if (byte == '>' && !in_quotes_) return OnTag(true);
  if (TagMayHave(byte)) {
    in_quotes_ ^= byte == '"';
    if (byte == kDsmlMark) {
      header_ += kMarker;
    } else {
      header_ += byte;
    }
    return;
  }
  OnTag(false);
  Take(byte, find_tags);
}

// `whole`: with its bracket.
void ReplyCallReader::OnTag(bool whole) {
  std::string_view header = header_;
  if (header.starts_with(kPipe)) header.remove_prefix(kPipe.size());
  header.remove_prefix(std::min(header.find_first_not_of("| "), header.size()));
  const auto end = std::find_if_not(header.begin(), header.end(), IsWord);
  const auto size = static_cast<size_t>(end - header.begin());
  const std::string_view word = header.substr(0, size), attributes = header.substr(size);
  at_ = around_;
  const bool closes_value = std::exchange(closes_value_, false);
  if (opening_) return OnOpeningTag(word, attributes, whole);
  if (!whole) Count(CallFault::kMarkup);
  if (around_ == At::kCall) {
    OnTagOfCall(word, attributes, closes_value);
  } else {
    OnTagOfBlock(word, attributes, whole);
  }
}

void ReplyCallReader::OnOpeningTag(std::string_view word, std::string_view attributes, bool whole) {
  const bool is_call = word == "invoke" && NameOf(attributes);
  const bool is_parameter = word == "parameter" && NameOf(attributes) && !plain_;
  const bool is_block = IsBlank(attributes) && (whole || IsBlockName(word));
  if (!is_call && !is_parameter && (!is_block || (plain_ && !(whole && !word.empty())))) {
    at_ = At::kNoBlock;
    return;
  }
  opening_ = false;
  certain_ = certain_ && is_block && whole && IsBlockName(word);
  if (!certain_ && !plain_) Count(CallFault::kWrapper);
  if (is_call) BeginCall(attributes);
}

void ReplyCallReader::OnTagOfBlock(std::string_view word, std::string_view attributes, bool whole) {
  const bool is_inner = word == "invoke" || word == "parameter";
  if (!closes_ && word == "invoke") return BeginCall(attributes);
  if (!IsBlockName(word) || !closes_) Count(CallFault::kMarkup);
  if (closes_ && !is_inner && (whole || IsBlockName(word))) EndBlock();
}

void ReplyCallReader::OnTagOfCall(std::string_view word, std::string_view attributes,
                                  bool closes_value) {
  if (closes_value && word != "parameter") Count(CallFault::kMarkup);
  if (word == "invoke" && closes_) return CloseCall();
  if (word == "invoke") {
    AbandonCall(true, true);
    if (at_ != At::kNoBlock && at_ != At::kEnough) BeginCall(attributes);
    return;
  }
  if (word == "parameter" && !closes_) return BeginParameter(attributes);
  if (closes_ && IsBlockName(word)) {
    AbandonCall(true, true);
    if (at_ != At::kNoBlock) EndBlock();
    return;
  }
  if (!closes_value) Count(CallFault::kMarkup);
}

void ReplyCallReader::BeginCall(std::string_view attributes) {
  auto name = NameOf(attributes);
  if (!name) {
    if (plain_) at_ = At::kNoBlock;
    return Count(CallFault::kMarkup);
  }
  const ReplyToolSchema* tool = tools_->Find(*name);
  if (tool == nullptr && plain_) {
    at_ = At::kNoBlock;
    return;
  }
  Call& call = call_.emplace(std::move(*name), tool, calls_);
  if (tool == nullptr) {
    Count(CallFault::kUnknownTool);
    call.refused = known_names_ && deliver_;
    if (call.refused) {
      raw_ = '<' + header_;
      begins_raw_ = true;
    }
  }
  at_ = At::kCall;
}

void ReplyCallReader::BeginParameter(std::string_view attributes) {
  constexpr std::string_view kForm = "\" string=\"";
  using Form = ReplyArguments::Form;
  Form form = Form::kUnsaid;
  const size_t at = attributes.rfind(kForm);
  if (at != attributes.npos) {
    const std::string_view said = attributes.substr(at + kForm.size());
    if (said.starts_with("true\"")) form = Form::kString;
    if (said.starts_with("false\"")) form = Form::kJson;
    attributes = attributes.substr(0, at + 1);
  }
  auto key = NameOf(attributes);
  if (form == Form::kUnsaid || !key) Count(CallFault::kMarkup);
  if (!key) return;
  call_->arguments.BeginParameter(std::move(*key), form);
  value_.clear();
  at_ = At::kValue;
  Send(false);
}

void ReplyCallReader::ValueByte(char byte, bool find_tags) {
  PatternWatcher& ends = find_tags ? ends_of_text_ : ends_of_tokens_;
  (find_tags ? ends_of_tokens_ : ends_of_text_).Reset();
  value_ += byte;
  if (!ends.Feed(byte)) {
    FlushValue(ends.depth());
    return Send(false);
  }
  const size_t tag = ends.depth();
  ends.Reset();
  value_.resize(value_.size() - tag);
  FlushValue(0);
  call_->arguments.EndParameter();
  Send(false);
  BeginTag(true, At::kCall);
  closes_value_ = true;
}

// Only the closing tag means something in a value, so other tags that came as tokens are its text.
void ReplyCallReader::FlushValue(size_t keep) {
  const size_t size = value_.size() - keep;
  for (const char byte : std::string_view(value_).substr(0, size)) {
    if (byte == kDsmlMark) {
      call_->arguments.Value(kMarker);
    } else if (byte == kThinkEndMark) {
      call_->arguments.Value("</think>");
    } else {
      call_->arguments.Value({&byte, 1});
    }
  }
  value_.erase(0, size);
}

// What is certain goes out at once, but for a call without any argument: to many clients no
// arguments are all arguments, so it could not be cut off any more.
void ReplyCallReader::Send(bool whole) {
  Call& call = *call_;
  const std::string_view text = call.arguments.text();
  if (!deliver_ || call.refused || text.empty() || !(certain_ || whole)) return;
  if (!call.begun) {
    call.begun = true;
    call.index = next_index_++;
    deltas_->push_back({ReplyPart::kToolCall, "", call.index, call.name});
  }
  if (call.sent == text.size()) return;
  const auto goes_on = [&call](const ReplyDelta& last) {
    return last.part == ReplyPart::kToolCall && last.call == call.index && last.name.empty();
  };
  if (deltas_->empty() || !goes_on(deltas_->back())) {
    deltas_->push_back({ReplyPart::kToolCall, "", call.index});
  }
  deltas_->back().text += text.substr(call.sent);
  call.sent = text.size();
}

void ReplyCallReader::CloseCall() {
  at_ = At::kBlock;
  call_->arguments.Close(call_->body);
  if (call_->refused) {
    Refuse();
  } else if (certain_ || call_->arguments.has_required()) {
    Deliver();
  } else if (plain_) {
    at_ = At::kNoBlock;
    return;
  } else {
    has_all_ = false;
    Count(CallFault::kMarkup);
  }
  call_.reset();
}

// Ends a call that has no closing tag, maybe at another tag. False if it is not delivered.
bool ReplyCallReader::AbandonCall(bool closable, bool from_tag) {
  at_ = At::kBlock;
  Count(CallFault::kCut);
  if (call_->refused && from_tag) raw_.resize(raw_.rfind('<'));
  const ReplyArguments& arguments = call_->arguments;
  const bool is_complete = closable && arguments.between_values() && arguments.has_required();
  if (call_->refused) {
    Refuse();
  } else if (is_complete) {
    call_->arguments.Close("");
    Deliver();
  } else if (plain_) {
    at_ = At::kNoBlock;
  } else {
    has_all_ = false;
  }
  call_.reset();
  return is_complete;
}

void ReplyCallReader::Deliver() {
  if (plain_) Count(CallFault::kWrapper);
  plain_ = false;
  raw_.clear();
  Send(true);
  calls_->delivered.push_back({"", std::move(call_->name), call_->arguments.text()});
  if (one_call_ && deliver_) at_ = At::kEnough;
}

// Content behind calls would come too late.
void ReplyCallReader::Refuse() {
  has_all_ = false;
  std::string text = WithoutMarkers(std::exchange(raw_, {}));
  text.resize(utf8::CompleteLength(text));  // the byte that ended a tag may begin a character
  if (next_index_ == 0) deltas_->push_back({ReplyPart::kContent, std::move(text)});
}

void ReplyCallReader::EndBlock() {
  at_ = plain_ ? At::kNoBlock : At::kClosed;
  calls_->closed = !plain_;
  const auto has = [this](CallFault fault) {
    return calls_->faults[static_cast<size_t>(fault)] != 0;
  };
  calls_->whole = certain_ && has_all_ && !calls_->delivered.empty() && !has(CallFault::kCut) &&
                  !has(CallFault::kWrapped) && !has(CallFault::kMarkup);
}

void ReplyCallReader::End(std::vector<ReplyDelta>* deltas, ReplyCalls* calls) {
  deltas_ = deltas;
  calls_ = deliver_ ? calls : &unwanted_;
  if (at_ == At::kClosed || at_ == At::kEnough || at_ == At::kNoBlock) return;
  if (opening_) {
    at_ = At::kNoBlock;
    header_.clear();
    return;
  }
  const bool in_opening_tag = at_ == At::kTag && !closes_;
  if (call_) {
    const bool closable = !in_opening_tag && at_ != At::kValue && !text_.ends_with('<');
    calls_->cut = !AbandonCall(closable, at_ == At::kTag);
  } else {
    calls_->cut = in_opening_tag;
  }
  if (plain_) at_ = At::kNoBlock;
  if (at_ == At::kNoBlock) {
    calls_->cut = false;
    return;
  }
  Count(CallFault::kOpenBlock);
  at_ = At::kEnough;
}

}  // namespace seacliff
