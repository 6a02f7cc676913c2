// From request bodies to prompts of token ids, and of /tokenize and /detokenize to their answers.
// Runs on the server's thread or on a worker, with nothing but a PromptContext.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string_view>

#include "serve/json_writer.h"
#include "serve/service.h"

namespace seacliff::serve {
namespace {

constexpr std::string_view kHeader = "<｜Assistant｜>";  // <think> or </think> follows
// Of all choices together: each is a request with the prompt's tokens of its own.
constexpr size_t kMaxPromptTokens = size_t{16} << 20;

ApiError CheckModelName(const ServeOptions& options, const std::string& model) {
  if (model.empty()) return {};
  for (const std::string& name : options.model_names) {
    if (name == model) return {};
  }
  return {404,
          fmt::format("The model `{}` does not exist. This server has: {}", model,
                      fmt::join(options.model_names, ", ")),
          "model", "model_not_found", 0};
}

ApiError CheckPrompts(const PromptContext& context, const GenerationSpec& spec) {
  const std::string field(spec.prompt_field);
  const auto n = static_cast<size_t>(spec.common.n);
  const std::string number = n > 1 && spec.prompts.size() == 1 ? "n" : field;
  if (spec.prompts.size() * n > static_cast<size_t>(context.options->max_waiting)) {
    return BadRequest(number, fmt::format("{}: {} requests, and this server lets {} wait", number,
                                          spec.prompts.size() * n, context.options->max_waiting));
  }
  size_t tokens = 0;
  for (const Prompt& prompt : spec.prompts) {
    if (prompt.ids.empty()) return BadRequest(field, field + ": must not be empty");
    for (const int32_t id : prompt.ids) {
      if (id >= context.vocab_size) {
        return BadRequest(field, fmt::format("{}: there is no token {} (the model has {})", field,
                                             id, context.vocab_size));
      }
    }
    if (prompt.ids.size() + 1 > static_cast<size_t>(context.max_model_len)) {
      return ContextExceeded(field, prompt.ids.size(), context.max_model_len);
    }
    tokens += n * prompt.ids.size();
  }
  if (tokens > kMaxPromptTokens) {
    return BadRequest(number, fmt::format("{}: prompts x n have {} tokens, and the limit is {}",
                                          number, tokens, kMaxPromptTokens));
  }
  for (const auto& [id, bias] : spec.common.sampling.logit_bias) {
    if (id >= context.vocab_size) {
      return BadRequest("logit_bias", fmt::format("logit_bias: there is no token {}", id));
    }
  }
  return {};
}

// The turn is the number of all messages, the one before it of those before the last answer; so a
// conversation is known again whatever its encoding became.
void NumberTurns(const std::vector<ChatMessage>& messages, Prompt* prompt) {
  uint64_t number = 1;
  const auto add = [&number](std::string_view text) {
    number = (number ^ std::hash<std::string_view>()(text)) * 0x9E3779B97F4A7C15;
    number ^= number >> 29;
  };
  for (const ChatMessage& message : messages) {
    if (message.role == "assistant") prompt->continues = number;
    add(message.role);
    add(message.content);
    for (const ChatContentPart& part : message.parts) add(part.text);
    for (const ChatToolCall& call : message.tool_calls) add(call.arguments);
  }
  prompt->turn = number;
}

// Whether the prompt ends inside an open <think>, as far as its ids tell.
bool EndsInReasoning(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const auto begin = tokenizer.SpecialId("<think>"), end = tokenizer.SpecialId("</think>");
  const auto last =
      std::find_if(ids.rbegin(), ids.rend(), [&](int32_t id) { return id == begin || id == end; });
  return last != ids.rend() && *last == begin;
}

// How calls in the reply are read.
void ReadCalls(const ToolRules& rules, ReplyOptions* reply) {
  reply->deliver_calls = rules.use != ToolUse::kNone;
  for (const GrammarTool& tool : rules.tools) reply->tools.push_back({tool.name, tool.parameters});
  reply->one_call = rules.one_call;
  reply->known_names = reply->deliver_calls && rules.all_strict();
}

// The prompt of a chat's messages.
ApiError EncodeMessages(const PromptContext& context, std::string_view api_key,
                        ChatRequest* request, GenerationSpec* spec) {
  Prompt prompt;
  auto encoded = EncodeChat(*context.tokenizer, request->messages, request->chat);
  if (!encoded.ok()) return FromStatus(encoded.status());
  prompt.place = SpliceReplies(*context.tokenizer, SpliceScope(api_key, spec->common.cache_salt),
                               *context.turns, &encoded.value(), &spec->splices);
  prompt.ids = std::move(encoded->ids);
  prompt.starts_in_reasoning = encoded->starts_in_reasoning;
  prompt.continues_message = encoded->continues_message;
  NumberTurns(request->messages, &prompt);
  spec->prompts.push_back(std::move(prompt));
  spec->forgets_reasoning = encoded->forgets_reasoning;
  spec->prompt_field = "messages";
  if (context.options->idle_prefill) {
    spec->messages = std::move(request->messages);
    spec->chat = std::move(request->chat);
  }
  return {};
}

}  // namespace

Prepared PrepareChat(const PromptContext& context, std::string_view body,
                     std::string_view api_key) {
  Prepared out;
  ChatRequest request;
  out.error = ParseChatRequest(body, *context.options, &request);
  out.spec.common = std::move(request.common);  // an error's reply has the client's id too
  if (out.error.any()) return out;
  out.error = CheckModelName(*context.options, out.spec.common.model);
  if (out.error.any()) return out;
  request.chat.profile = context.profile;
  out.spec.is_chat = true;
  out.spec.include_reasoning = request.include_reasoning;
  if (request.input_ids.empty()) {
    out.error = EncodeMessages(context, api_key, &request, &out.spec);
    if (out.error.any()) return out;
  } else {
    Prompt prompt;
    prompt.starts_in_reasoning = EndsInReasoning(*context.tokenizer, request.input_ids);
    prompt.ids = std::move(request.input_ids);
    out.spec.prompts.push_back(std::move(prompt));
    out.spec.prompt_field = "input_ids";
  }
  ReadCalls(request.tools, &out.spec.reply);
  out.spec.rules.output = std::move(out.spec.common.output);
  out.spec.rules.tools = std::move(request.tools);
  out.error = CheckPrompts(context, out.spec);
  return out;
}

std::vector<int32_t> NextTurn(const PromptContext& context, GenerationSpec spec,
                              const SampledReply& reply) {
  const Prompt& prompt = spec.prompts[reply.prompt];
  ChatMessage answer;
  answer.role = "assistant";
  answer.content = reply.content;
  if (spec.include_reasoning) answer.reasoning = reply.reasoning;
  answer.tool_calls = reply.calls;
  for (size_t i = 0; i < answer.tool_calls.size(); ++i) answer.tool_calls[i].id = std::to_string(i);
  spec.messages.push_back(std::move(answer));
  // Whatever the question or the results will be.
  ChatMessage next;
  next.role = "user";
  for (size_t i = 0; i < reply.calls.size(); ++i) {
    next.role = "tool";
    next.tool_call_id = std::to_string(i);
    spec.messages.push_back(next);
  }
  if (reply.calls.empty()) spec.messages.push_back(std::move(next));
  auto encoded = EncodeChat(*context.tokenizer, spec.messages, spec.chat);
  if (!encoded.ok() || encoded->replies.empty()) return {};
  SpliceCounts counts;
  SpliceReplies(*context.tokenizer, prompt.place.scope, *context.turns, &encoded.value(), &counts);
  std::vector<int32_t>& ids = encoded->ids;
  // The answer's end of sentence is the last that is certain.
  ids.resize(encoded->replies.back().end + 1);
  if (ids.size() + 1 > static_cast<size_t>(context.max_model_len)) return {};

  std::vector<int32_t> cached = prompt.ids;
  cached.insert(cached.end(), reply.ids.begin(), reply.ids.end());
  const auto parted = std::mismatch(ids.begin(), ids.end(), cached.begin(), cached.end()).first;
  const auto common = static_cast<size_t>(parted - ids.begin());
  if (ids.size() / kCacheBlock == common / kCacheBlock) return {};
  return std::move(ids);
}

Prepared PrepareCompletion(const PromptContext& context, std::string_view body,
                           std::string_view /*api_key*/) {
  Prepared out;
  CompletionRequest request;
  out.error = ParseCompletionRequest(body, *context.options, &request);
  out.spec.common = std::move(request.common);
  if (out.error.any()) return out;
  out.error = CheckModelName(*context.options, out.spec.common.model);
  if (out.error.any()) return out;
  for (std::string& text : request.texts) {
    Prompt prompt;
    prompt.ids = context.tokenizer->Encode(text, context.options->trust_special_tokens);
    if (request.echo) prompt.echo = std::move(text);
    out.spec.prompts.push_back(std::move(prompt));
  }
  for (std::vector<int32_t>& ids : request.ids) {
    Prompt prompt;
    if (request.echo) {
      StreamDecoder decoder(*context.tokenizer, out.spec.common.skip_special_tokens);
      std::string& echo = prompt.echo.emplace();
      for (const int32_t id : ids) echo += decoder.Feed(id);
      echo += decoder.Finish();
    }
    prompt.ids = std::move(ids);
    out.spec.prompts.push_back(std::move(prompt));
  }
  out.spec.rules.output = std::move(out.spec.common.output);
  out.error = CheckPrompts(context, out.spec);
  return out;
}

ApiError AnswerTokenize(const PromptContext& context, std::string_view body, std::string* answer) {
  TokenizeRequest request;
  ApiError error = ParseTokenizeRequest(body, *context.options, &request);
  if (error.any()) return error;
  error = CheckModelName(*context.options, request.model);
  if (error.any()) return error;
  std::vector<int32_t> ids;
  if (request.is_chat) {
    request.chat.chat.profile = context.profile;
    auto encoded = EncodeChat(*context.tokenizer, request.chat.messages, request.chat.chat);
    if (!encoded.ok()) return FromStatus(encoded.status());
    ids = std::move(encoded.value().ids);
    const auto header = context.tokenizer->SpecialId(kHeader);
    const bool has_header = ids.size() > 1 && ids[ids.size() - 2] == header;
    if (has_header && !request.chat.add_header) ids.resize(ids.size() - 2);
  } else {
    ids = context.tokenizer->Encode(request.prompt, context.options->trust_special_tokens);
  }
  JsonWriter json;
  json.BeginObject().Field("count", ids.size()).Field("max_model_len", context.max_model_len);
  json.Key("tokens").BeginArray();
  for (const int32_t id : ids) json.Value(id);
  json.EndArray().Key("token_strs");
  if (request.return_token_strs) {
    json.BeginArray();
    for (const int32_t id : ids) json.Value(context.tokenizer->TokenBytes(id));
    json.EndArray();
  } else {
    json.Value(nullptr);
  }
  json.EndObject();
  *answer = json.Take();
  return {};
}

ApiError AnswerDetokenize(const PromptContext& context, std::string_view body,
                          std::string* answer) {
  DetokenizeRequest request;
  ApiError error = ParseDetokenizeRequest(body, &request);
  if (error.any()) return error;
  error = CheckModelName(*context.options, request.model);
  if (error.any()) return error;
  for (const int32_t id : request.tokens) {
    if (id >= context.vocab_size) {
      return BadRequest("tokens", fmt::format("tokens: there is no token {}", id));
    }
  }
  JsonWriter json;
  json.BeginObject().Field("prompt", context.tokenizer->Decode(request.tokens)).EndObject();
  *answer = json.Take();
  return {};
}

}  // namespace seacliff::serve
