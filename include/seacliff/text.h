// Strings <-> token ids: the tokenizer, the chat encoding and the parsing of replies. It knows no
// HTTP, no model and no engine. Contract: encoding.md (summarised in docs/text.md).
//
// Thread safety: a const Tokenizer may be used from any thread at once. StreamDecoder, ReplyParser
// and PlainReply are one reply's state: one thread at a time, and the Tokenizer must outlive them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/status.h"

namespace seacliff {

// A stretch of prompt. Added tokens ("<think>", ...) are recognised only where every byte of the
// match is trusted: text that came from a client is not, the words of a template are.
struct TextSegment {
  std::string text;
  bool trusted = false;
};

class Tokenizer {
 public:
  // `path` is a tokenizer.json or the directory that holds it. NotFound if it cannot be read;
  // InvalidArgument (names file and field) if it is malformed; Unimplemented if it asks for a
  // normalizer, pre-tokenizer or model that this library does not have.
  static Result<Tokenizer> Load(const std::string& path);
  // As Load, from the text of a tokenizer.json; `name` stands for the file in errors.
  static Result<Tokenizer> FromJson(std::string_view json, const std::string& name);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Adds nothing: no BOS. Invalid UTF-8 is replaced by U+FFFD (one for each maximal subpart).
  // With `allow_special` the text of an added token becomes its id; without, ordinary tokens.
  std::vector<int32_t> Encode(std::string_view text, bool allow_special) const;
  // One prompt made of several segments. Ordinary tokens may span the border of two segments:
  // where no client text spells an added token, the ids are those of the concatenation.
  std::vector<int32_t> EncodeSegments(std::span<const TextSegment> segments) const;

  // The bytes of the ids, which need not be valid UTF-8 (a token may be half a character). Ids
  // that do not exist give nothing. `skip_special` leaves out tokens marked special in the file.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;
  // One token's bytes (an added token's text); empty if there is no such id. Lives as long as
  // *this.
  std::string_view TokenBytes(int32_t id) const;

  // One more than the largest id, added tokens included.
  int32_t vocab_size() const;
  // The id of an added token by its exact text.
  std::optional<int32_t> SpecialId(std::string_view text) const;
  // True for added tokens (whether or not the file marks them special).
  bool IsAdded(int32_t id) const;
  // True for added tokens marked "special" in the file.
  bool IsSpecial(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  // Tokens that end a reply: end of sentence, and the headers a model must never write (begin of
  // sentence, user, assistant). For Request::stop_token_ids. Ascending.
  const std::vector<int32_t>& end_ids() const;
  // Tokens that must never be sampled: padding, placeholders, image parts, ids without a token.
  // Ascending.
  const std::vector<int32_t>& never_sampled_ids() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Token bytes to text that can be sent at once: an incomplete UTF-8 character (at most 3 bytes) is
// held back until its rest arrives, invalid bytes become U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // Each returns complete, valid UTF-8 (maybe empty).
  std::string Feed(int32_t id);
  std::string FeedBytes(std::string_view bytes);
  // U+FFFD if a character stayed incomplete, else empty. The decoder is then as new.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string held_;
};

// Which checkpoint's rendering rules apply (encoding.md 2.1).
enum class ChatProfile : int32_t { kPreview, k0731, kV41 };

// "preview", "0731", "v41"; InvalidArgument lists them otherwise.
Result<ChatProfile> ParseChatProfile(std::string_view name);
const char* ChatProfileName(ChatProfile profile);
// Looks at encoding/ and config.json of a model directory; kPreview if nothing there tells.
Result<ChatProfile> DetectChatProfile(const std::string& model_dir);

// kDefault: what the checkpoint's hosted service does (no prefix for preview, high for 0731, v41).
enum class ChatEffort : int32_t { kDefault, kLow, kHigh, kMax };

// The words of `reasoning_effort`: none, off | minimal, low | medium, high, xhigh | max, ultra.
struct ChatEffortChoice {
  bool thinking = true;  // false for none and off
  ChatEffort effort = ChatEffort::kDefault;
};
Result<ChatEffortChoice> ParseChatEffort(std::string_view word);

struct ChatToolCall {
  std::string id;  // only its match with a later tool_call_id matters
  std::string name;
  std::string arguments;  // the text of a JSON object; "" and "null" mean no arguments
};

// A part of a list-valued content. Types other than "text" are refused, except in the result of a
// tool, where they are rendered as "[Unsupported TYPE]".
struct ChatContentPart {
  std::string type = "text";
  std::string text;
};

struct ChatMessage {
  std::string role;  // system | developer | user | assistant | tool | latest_reminder
  std::string content;
  std::vector<ChatContentPart> parts;    // if not empty, stands in place of content
  std::string name;                      // accepted, not rendered: V4 has no place for it
  std::string reasoning;                 // assistant: text between <think> and </think>
  bool has_reasoning = false;            // the client sent `reasoning` (it may be empty)
  std::vector<ChatToolCall> tool_calls;  // assistant
  std::string tool_call_id;              // tool
  std::string task;     // "" | action | query | authority | domain | title | read_url
  bool prefix = false;  // last message, assistant: the reply continues it (no end of sentence)
  // system, developer: JSON text of each tool / of the schema, rendered after the content.
  std::vector<std::string> tools;
  std::string response_format;
};

struct ChatOptions {
  ChatProfile profile = ChatProfile::kPreview;
  bool thinking = true;
  ChatEffort effort = ChatEffort::kDefault;
  // Each the JSON text of one element of the request's `tools`: {"type": "function", "function":
  // {...}}, or the inner object alone. They go to the first system message.
  std::vector<std::string> tools = {};
  // JSON text of the schema that the reply must follow, or "". It goes to the first system message.
  std::string response_format = {};
  // Forget the reasoning before the last user message (thinking mode; never when there are tools).
  bool drop_thinking = true;
  // As `prefix` on the last message, which must be an assistant's.
  bool continue_final_message = false;
};

// Where the body of an assistant's turn stands in a prompt: behind its header, before its end of
// sentence.
struct ReplySpan {
  size_t begin = 0, end = 0;      // of EncodedPrompt::ids
  bool forgot_reasoning = false;  // rendered without it by the rules of drop_thinking
  std::string calls;              // CallsKey of its tool calls, "" without
};

// Names and arguments of calls in one text, which is the same for calls that are equal as JSON. ""
// if the arguments of one are no JSON object.
std::string CallsKey(std::span<const ChatToolCall> calls);

struct EncodedPrompt {
  std::vector<int32_t> ids;
  // The prompt ends inside an open <think>: what the ReplyParser must start with.
  bool starts_in_reasoning = false;
  // The prompt ends inside an assistant message (prefix, continue_final_message).
  bool continues_message = false;
  // The turns of the assistant, in order, but for those that stand behind ordinary tokens (behind a
  // reminder). Special tokens border them, so other ids of the same text can take their place.
  std::vector<ReplySpan> replies;
  // The reply's reasoning will be dropped when a message follows it.
  bool forgets_reasoning = false;
};

// InvalidArgument names the message by index and the field ("messages[2].tool_calls[0].arguments").
// Text of clients never gives an added token's id, whatever it spells.
Result<EncodedPrompt> EncodeChat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options);

enum class ReplyPart : int32_t { kReasoning, kContent, kToolCall };

// A piece of a reply, of one part only; valid UTF-8. Either text or name is not empty.
struct ReplyDelta {
  ReplyPart part = ReplyPart::kContent;
  std::string text;  // kToolCall: a piece of the JSON text of the arguments
  int32_t call = 0;  // kToolCall: which one, from 0
  // kToolCall: stands in the first delta of a call, which has no text.
  std::string name = {};
};

// A tool that may be called. `parameters` is the JSON text of the schema of its arguments, "" if
// there is none.
struct ReplyTool {
  std::string name, parameters;
};

struct ReplyOptions {
  bool starts_in_reasoning = false;  // EncodedPrompt::starts_in_reasoning
  bool continues_message = false;    // EncodedPrompt's; else newlines at the beginning are dropped
  std::vector<std::string> stop = {};  // looked for in the content only; empty strings are ignored
  bool include_stop = false;           // the matched stop string is part of the content
  bool skip_special = true;            // added tokens are not printed (tags never are)
  bool ignore_end = false;             // end_ids() end nothing (a request's ignore_eos)

  // Tool calls. Blocks of calls are never content; they are delivered as deltas only if wanted,
  // which is so when the request has tools and its tool_choice is not "none".
  bool deliver_calls = false;
  std::vector<ReplyTool> tools = {};
  bool one_call = false;         // parallel_tool_calls is false: the reply ends with its first call
  bool known_names = false;      // strict tools: a call of another name is content (3.4)
  bool starts_in_calls = false;  // the prompt ends with the opening tag of a block
};

// What went wrong in the tool calls of a reply (encoding.md 3.4), for counting.
enum class CallFault : int32_t {
  kCut,          // the reply or the block ended inside a call
  kOpenBlock,    // the reply ended without the closing tag of its block
  kWrapper,      // the tag around the calls is missing or misspelt
  kUnknownTool,  // a name that is not in the tools
  kRepeated,     // a parameter came twice
  kNotJson,      // string="false" with text that is not JSON
  kWrongType,    // string="true" for a type that is no string
  kWrapped,      // all arguments inside one parameter, or as JSON without parameters
  kMarkup,       // other tags or text than calls have
  kUnwanted,     // a block although no tool was to be called
};
inline constexpr std::array<const char*, 10> kCallFaultNames = {
    "cut",      "open_block", "wrapper", "unknown_tool", "repeated_parameter",
    "not_json", "wrong_type", "wrapped", "markup",       "unwanted"};

// The tool calls of a reply. A call that was begun in deltas and is not among these was cut off:
// its arguments are no JSON text. Those of all others are, and are the sum of their deltas.
struct ReplyCalls {
  std::vector<ChatToolCall> delivered;  // without ids
  // The reply ended inside a call that is not delivered.
  bool cut = false;
  // The block has its closing tag: the reply is complete, and nothing that follows counts.
  bool closed = false;
  // The block is whole and all of its calls are delivered, so that its tokens may stand for them.
  bool whole = false;
  std::array<int32_t, kCallFaultNames.size()> faults = {};  // by CallFault
};

// A chat reply, token by token. Concatenated deltas do not depend on how the reply was cut.
class ReplyParser {
 public:
  ReplyParser(const Tokenizer& tokenizer, ReplyOptions options);
  ReplyParser(ReplyParser&&) noexcept;
  ReplyParser& operator=(ReplyParser&&) noexcept;
  ~ReplyParser();

  // One sampled token. Tags count only as their own token, so a reply may talk about "</think>".
  // Nothing comes out after done().
  std::vector<ReplyDelta> Feed(int32_t id);
  // Bytes whose ids are unknown: tags are matched as text.
  std::vector<ReplyDelta> FeedBytes(std::string_view bytes);
  // Generation is over: what was held back comes out.
  std::vector<ReplyDelta> Finish();

  // The reply ended by itself: stop string, one of the tokenizer's end_ids(), text behind a block
  // of tool calls, or the one call that is wanted.
  bool done() const;
  // The stop string that ended the reply.
  const std::optional<std::string>& matched_stop() const;
  // Complete once the reply is done or finished.
  const ReplyCalls& calls() const;
  // The part that the next byte belongs to. Read before Feed(id), it tells to which list the
  // logprob of that token goes.
  ReplyPart part() const;
  // Tokens fed while in reasoning, the closing tag included.
  int32_t reasoning_tokens() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A completion without a chat: detokenised text and stop strings.
class PlainReply {
 public:
  PlainReply(const Tokenizer& tokenizer, std::vector<std::string> stop, bool include_stop = false,
             bool skip_special = true);
  PlainReply(PlainReply&&) noexcept;
  PlainReply& operator=(PlainReply&&) noexcept;
  ~PlainReply();

  std::string Feed(int32_t id);
  std::string FeedBytes(std::string_view bytes);
  std::string Finish();
  bool done() const;  // a stop string was matched
  const std::optional<std::string>& matched_stop() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace seacliff
