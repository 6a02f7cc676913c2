// text_oracle TOKENIZER MODE: src/text behind pipes, for the Python tests. Not an interface for
// people.
//   encode, encode-special: u32 length, bytes -> u32 count, i32 ids    (little endian, until EOF)
//   time: as encode, but prints the best of three times in seconds for each input
//   decode: u32 count, i32 ids -> u32 length, bytes
//   chat: a JSON line {messages, tools, thinking, effort, ...} -> {ids, text, ...} or {error}
//   reply: a JSON line {pieces or ids, reasoning, continues, stop} -> {reasoning, content, ...}
#include <simdjson.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "seacliff/text.h"
#include "text/chat_render.h"
#include "text/json_text.h"

namespace {

using namespace seacliff;  // NOLINT: a test program
using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

template <typename T>
bool ReadBlock(std::vector<T>* block) {
  uint32_t count;
  if (!std::cin.read(reinterpret_cast<char*>(&count), sizeof count)) return false;
  block->resize(count);
  return static_cast<bool>(
      std::cin.read(reinterpret_cast<char*>(block->data()), std::streamsize{sizeof(T)} * count));
}

template <typename T>
void WriteBlock(const T* data, size_t size) {
  const auto count = static_cast<uint32_t>(size);
  std::cout.write(reinterpret_cast<const char*>(&count), sizeof count);
  std::cout.write(reinterpret_cast<const char*>(data),
                  static_cast<std::streamsize>(sizeof(T) * size));
}

int Encode(const Tokenizer& tokenizer, bool special) {
  for (std::vector<char> text; ReadBlock(&text);) {
    const auto ids = tokenizer.Encode({text.data(), text.size()}, special);
    WriteBlock(ids.data(), ids.size());
  }
  return 0;
}

int Time(const Tokenizer& tokenizer) {
  for (std::vector<char> text; ReadBlock(&text);) {
    double best = 1e9;
    size_t count = 0;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::chrono::steady_clock::now();
      count = tokenizer.Encode({text.data(), text.size()}, false).size();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      best = std::min(best, took.count());
    }
    std::cout << best << ' ' << count << std::endl;
  }
  return 0;
}

int Decode(const Tokenizer& tokenizer) {
  for (std::vector<int32_t> ids; ReadBlock(&ids);) {
    const std::string bytes = tokenizer.Decode(ids);
    WriteBlock(bytes.data(), bytes.size());
  }
  return 0;
}

std::string Text(object fields, const char* key) {
  std::string_view text;
  return fields[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

bool Flag(object fields, const char* key, bool fallback) {
  bool value = fallback;
  return fields[key].get(value) == simdjson::SUCCESS ? value : fallback;
}

std::vector<element> List(object fields, const char* key) {
  std::vector<element> items;
  array list;
  if (fields[key].get(list) == simdjson::SUCCESS) items.assign(list.begin(), list.end());
  return items;
}

std::vector<std::string> Strings(object fields, const char* key) {
  std::vector<std::string> texts;
  for (const element item : List(fields, key)) texts.emplace_back(std::string_view(item));
  return texts;
}

ChatMessage ReadMessage(object fields) {
  ChatMessage message;
  message.role = Text(fields, "role");
  message.content = Text(fields, "content");
  message.name = Text(fields, "name");
  for (const element part : List(fields, "parts")) {
    message.parts.push_back({Text(part, "type"), Text(part, "text")});
  }
  message.has_reasoning = fields["reasoning"].is_string();
  message.reasoning = Text(fields, "reasoning");
  for (const element call : List(fields, "tool_calls")) {
    message.tool_calls.push_back({Text(call, "id"), Text(call, "name"), Text(call, "arguments")});
  }
  message.tool_call_id = Text(fields, "tool_call_id");
  message.task = Text(fields, "task");
  message.prefix = Flag(fields, "prefix", false);
  message.tools = Strings(fields, "tools");
  message.response_format = Text(fields, "response_format");
  return message;
}

std::string ChatLine(const Tokenizer& tokenizer, object request) {
  std::vector<ChatMessage> messages;
  for (const element message : List(request, "messages")) messages.push_back(ReadMessage(message));
  ChatOptions options;
  const std::string profile = Text(request, "profile");
  if (!profile.empty()) options.profile = *ParseChatProfile(profile);
  options.thinking = Flag(request, "thinking", true);
  const std::string effort = Text(request, "effort");
  if (!effort.empty()) options.effort = ParseChatEffort(effort)->effort;
  options.tools = Strings(request, "tools");
  options.response_format = Text(request, "response_format");
  options.drop_thinking = Flag(request, "drop_thinking", true);
  options.continue_final_message = Flag(request, "continue_final_message", false);

  std::string out;
  const auto prompt = EncodeChat(tokenizer, messages, options);
  if (!prompt.ok()) {
    out = "{\"error\": ";
    AppendJsonString(prompt.status().message(), &out);
    return out + "}";
  }
  out = "{\"ids\": [";
  for (size_t i = 0; i < prompt->ids.size(); ++i) {
    out += (i > 0 ? ", " : "") + std::to_string(prompt->ids[i]);
  }
  out += "], \"text\": ";
  AppendJsonString(RenderTurns(*MakeTurns(messages, options), options).Text(), &out);
  out += prompt->starts_in_reasoning ? ", \"reasoning\": true}" : ", \"reasoning\": false}";
  return out;
}

std::string ReplyLine(const Tokenizer& tokenizer, object request) {
  ReplyOptions options;
  options.starts_in_reasoning = Flag(request, "reasoning", false);
  options.continues_message = Flag(request, "continues", false);
  options.stop = Strings(request, "stop");
  options.deliver_calls = Flag(request, "calls", false);
  ReplyParser parser(tokenizer, options);
  std::string parts[3];
  const auto keep = [&parts](const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) parts[static_cast<int>(delta.part)] += delta.text;
  };
  for (const std::string& piece : Strings(request, "pieces")) keep(parser.FeedBytes(piece));
  for (const element id : List(request, "ids"))
    keep(parser.Feed(static_cast<int32_t>(int64_t(id))));
  keep(parser.Finish());
  std::string out = "{\"reasoning\": ";
  AppendJsonString(parts[0], &out);
  out += ", \"content\": ";
  AppendJsonString(parts[1], &out);
  out += ", \"calls\": [";
  for (const ChatToolCall& call : parser.calls().delivered) {
    out += out.ends_with('[') ? "[" : ", [";
    AppendJsonString(call.name, &out);
    out += ", ";
    AppendJsonString(call.arguments, &out);
    out += ']';
  }
  out += "], \"stop\": ";
  if (parser.matched_stop()) {
    AppendJsonString(*parser.matched_stop(), &out);
  } else {
    out += "null";
  }
  return out + "}";
}

int Lines(const Tokenizer& tokenizer, std::string (*answer)(const Tokenizer&, object)) {
  simdjson::dom::parser parser;
  for (std::string line; std::getline(std::cin, line);) {
    object request;
    if (parser.parse(line).get(request) != simdjson::SUCCESS) {
      std::cerr << "not a JSON object: " << line << '\n';
      return 1;
    }
    std::cout << answer(tokenizer, request) << '\n';
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: text_oracle TOKENIZER MODE\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  const auto tokenizer = Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().message() << '\n';
    return 1;
  }
  const std::string mode = argv[2];
  if (mode == "encode") return Encode(*tokenizer, false);
  if (mode == "encode-special") return Encode(*tokenizer, true);
  if (mode == "time") return Time(*tokenizer);
  if (mode == "decode") return Decode(*tokenizer);
  if (mode == "chat") return Lines(*tokenizer, ChatLine);
  if (mode == "reply") return Lines(*tokenizer, ReplyLine);
  std::cerr << "unknown mode " << mode << '\n';
  return 2;
}
