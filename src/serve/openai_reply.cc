// OpenAI's chat.completion and text_completion objects, whole and as a stream of chunks.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "serve/json_writer.h"
#include "serve/reply_form.h"

namespace seacliff::serve {
namespace {

constexpr std::string_view kDone = "data: [DONE]\n\n";
// What the API's clients are used to for a probability of zero, which JSON cannot say.
constexpr float kLowestLogprob = -9999.0f;

std::string Event(std::string_view json) {
  std::string out = "data: ";
  out += json;
  out += "\n\n";
  return out;
}

int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

void WriteUsage(const ReplyState& state, JsonWriter* json) {
  const Usage usage = state.usage();
  json->BeginObject()
      .Field("prompt_tokens", usage.prompt)
      .Field("completion_tokens", usage.completion)
      .Field("total_tokens", usage.prompt + usage.completion);
  json->Key("prompt_tokens_details").BeginObject().Field("cached_tokens", usage.cached).EndObject();
  json->Key("completion_tokens_details")
      .BeginObject()
      .Field("reasoning_tokens", usage.reasoning)
      .EndObject();
  json->Field("prompt_cache_hit_tokens", usage.cached)
      .Field("prompt_cache_miss_tokens", usage.prompt - usage.cached)
      .EndObject();
}

// In a stream: running totals where asked for, else null on every chunk if the client will get a
// usage at all.
void WriteChunkUsage(const ReplyState& state, bool is_last, JsonWriter* json) {
  const CommonRequest& common = state.spec.common;
  if (!common.include_usage) return;
  json->Key("usage");
  if (common.continuous_usage || is_last) {
    WriteUsage(state, json);
  } else {
    json->Value(nullptr);
  }
}

void WriteHead(const ReplyState& state, std::string_view object, JsonWriter* json) {
  json->Field("id", state.id)
      .Field("object", object)
      .Field("created", state.created)
      .Field("model", state.model);
}

void WriteIds(std::string_view key, const std::vector<int32_t>& ids, size_t from,
              JsonWriter* json) {
  json->Key(key).BeginArray();
  for (size_t i = from; i < ids.size(); ++i) json->Value(ids[i]);
  json->EndArray();
}

// New ids of a streamed choice.
void WriteChunkIds(const ReplyState& state, Choice* choice, JsonWriter* json) {
  if (!state.spec.common.return_token_ids) return;
  WriteIds("token_ids", choice->ids, choice->ids_sent, json);
  choice->ids_sent = choice->ids.size();
}

void WriteEnd(const Choice& choice, JsonWriter* json) {
  json->Field("finish_reason", choice.finish_reason).Key("stop_reason");
  if (choice.stop_string) {
    json->Value(*choice.stop_string);
  } else if (choice.stop_id) {
    json->Value(*choice.stop_id);
  } else {
    json->Value(nullptr);
  }
}

std::string UsageChunk(const ReplyState& state, std::string_view object) {
  if (!state.spec.common.include_usage) return "";
  JsonWriter json;
  json.BeginObject();
  WriteHead(state, object, &json);
  json.Key("choices").BeginArray().EndArray().Key("usage");
  WriteUsage(state, &json);
  json.EndObject();
  return Event(json.text());
}

// NaN, which stands for none, stays.
float Shown(float logprob) { return std::max(logprob, kLowestLogprob); }

class OpenAiForm : public ReplyForm {
 public:
  std::string StreamError(const ApiError& error) const override {
    return Event(ErrorBody(error)) + std::string(kDone);
  }
};

class ChatForm : public OpenAiForm {
 public:
  std::string_view id_prefix() const override { return "chatcmpl-"; }

  std::string StreamBegin(ReplyState* state) const override {
    std::string out;
    for (Choice& choice : state->choices) {
      JsonWriter json;
      BeginChunk(*state, choice, &json);
      json.Field("role", "assistant").Field("content", "").Field("reasoning_content", nullptr);
      json.EndObject().Field("logprobs", nullptr).Field("finish_reason", nullptr);
      EndChunk(*state, choice.index == 0, false, &json);
      out += Event(json.text());
    }
    return out;
  }

  std::string StreamPiece(ReplyState* state, Choice* choice, const Piece& piece) const override {
    JsonWriter json;
    BeginChunk(*state, *choice, &json);
    if (piece.part == ReplyPart::kReasoning) {
      json.Field("reasoning_content", piece.text).Field("reasoning", piece.text);
    } else if (piece.part == ReplyPart::kContent) {
      json.Field("content", piece.text);
    } else if (piece.has_text()) {
      WriteCallDelta(*state, *choice, piece, &json);
    }
    json.EndObject().Key("logprobs");
    const bool of_reasoning = piece.part == ReplyPart::kReasoning;
    WriteLogprobs(*state, of_reasoning ? std::vector<Token>() : piece.tokens,
                  of_reasoning ? piece.tokens : std::vector<Token>(), &json);
    json.Field("finish_reason", nullptr);
    WriteChunkIds(*state, choice, &json);
    EndChunk(*state, false, false, &json);
    return Event(json.text());
  }

  std::string StreamFinish(ReplyState* state, Choice* choice) const override {
    JsonWriter json;
    BeginChunk(*state, *choice, &json);
    json.EndObject().Field("logprobs", nullptr);
    WriteEnd(*choice, &json);
    WriteChunkIds(*state, choice, &json);
    EndChunk(*state, false, state->finished(), &json);
    return Event(json.text());
  }

  std::string StreamEnd(ReplyState* state) const override {
    return UsageChunk(*state, "chat.completion.chunk") + std::string(kDone);
  }

  std::string Whole(ReplyState* state) const override {
    JsonWriter json;
    json.BeginObject();
    WriteHead(*state, "chat.completion", &json);
    json.Key("choices").BeginArray();
    for (const Choice& choice : state->choices) {
      json.BeginObject().Field("index", choice.index).Key("message").BeginObject();
      json.Field("role", "assistant").Key("content");
      if (choice.content.empty() && !choice.calls.empty()) {
        json.Value(nullptr);
      } else {
        json.Value(choice.content);
      }
      for (const char* key : {"reasoning_content", "reasoning"}) {
        json.Key(key);
        if (choice.reasoning.empty()) {
          json.Value(nullptr);
        } else {
          json.Value(choice.reasoning);
        }
      }
      if (!choice.calls.empty()) WriteCalls(*state, choice, &json);
      json.EndObject().Key("logprobs");
      WriteLogprobs(*state, choice.content_tokens_kept, choice.reasoning_tokens_kept, &json);
      WriteEnd(choice, &json);
      if (state->spec.common.return_token_ids) WriteIds("token_ids", choice.ids, 0, &json);
      json.EndObject();
    }
    json.EndArray().Key("usage");
    WriteUsage(*state, &json);
    if (state->spec.common.return_token_ids) {
      WriteIds("prompt_token_ids", state->spec.prompts[0].ids, 0, &json);
    }
    json.EndObject();
    return json.Take();
  }

 private:
  // Leaves the object `delta` open.
  static void BeginChunk(const ReplyState& state, const Choice& choice, JsonWriter* json) {
    json->BeginObject();
    WriteHead(state, "chat.completion.chunk", json);
    json->Key("choices").BeginArray().BeginObject().Field("index", choice.index);
    json->Key("delta").BeginObject();
  }

  static std::string CallId(const ReplyState& state, const Choice& choice, size_t call) {
    return fmt::format("{}_{}_{}", state.call_prefix, choice.index, call);
  }

  // The first of a call names it, the others only go on with its arguments.
  static void WriteCallDelta(const ReplyState& state, const Choice& choice, const Piece& piece,
                             JsonWriter* json) {
    json->Key("tool_calls").BeginArray().BeginObject().Field("index", piece.call);
    if (!piece.name.empty()) {
      json->Field("id", CallId(state, choice, static_cast<size_t>(piece.call)));
      json->Field("type", "function");
    }
    json->Key("function").BeginObject();
    if (!piece.name.empty()) json->Field("name", piece.name);
    json->Field("arguments", piece.text).EndObject().EndObject().EndArray();
  }

  static void WriteCalls(const ReplyState& state, const Choice& choice, JsonWriter* json) {
    json->Key("tool_calls").BeginArray();
    for (size_t i = 0; i < choice.calls.size(); ++i) {
      json->BeginObject().Field("id", CallId(state, choice, i)).Field("type", "function");
      json->Key("function").BeginObject().Field("name", choice.calls[i].name);
      json->Field("arguments", choice.calls[i].arguments).EndObject().EndObject();
    }
    json->EndArray();
  }

  static void EndChunk(const ReplyState& state, bool is_first, bool is_last, JsonWriter* json) {
    json->EndObject().EndArray();
    if (is_first && state.spec.common.return_token_ids) {
      WriteIds("prompt_token_ids", state.spec.prompts[0].ids, 0, json);
    }
    WriteChunkUsage(state, is_last, json);
    json->EndObject();
  }

  static void WriteToken(const ReplyState& state, int32_t id, float logprob, JsonWriter* json) {
    const std::string_view bytes = state.tokenizer->TokenBytes(id);
    json->Field("token", bytes).Field("logprob", Shown(logprob)).Key("bytes").BeginArray();
    for (const char byte : bytes) json->Value(static_cast<int>(static_cast<unsigned char>(byte)));
    json->EndArray();
  }

  static void WriteTokens(const ReplyState& state, const std::vector<Token>& tokens,
                          JsonWriter* json) {
    const auto most = static_cast<size_t>(state.spec.common.sampling.top_logprobs);
    json->BeginArray();
    for (const Token& token : tokens) {
      json->BeginObject();
      WriteToken(state, token.id, token.logprob, json);
      json->Key("top_logprobs").BeginArray();
      for (size_t i = 0; i < std::min(most, token.top.size()); ++i) {
        json->BeginObject();
        WriteToken(state, token.top[i].id, token.top[i].logprob, json);
        json->EndObject();
      }
      json->EndArray().EndObject();
    }
    json->EndArray();
  }

  static void WriteLogprobs(const ReplyState& state, const std::vector<Token>& content,
                            const std::vector<Token>& reasoning, JsonWriter* json) {
    if (state.spec.common.sampling.top_logprobs < 0) {
      json->Value(nullptr);
      return;
    }
    json->BeginObject().Key("content");
    WriteTokens(state, content, json);
    json->Key("reasoning_content");
    WriteTokens(state, reasoning, json);
    json->Field("refusal", nullptr).EndObject();
  }
};

class CompletionForm : public OpenAiForm {
 public:
  std::string_view id_prefix() const override { return "cmpl-"; }

  std::string StreamBegin(ReplyState* state) const override {
    std::string out;
    for (Choice& choice : state->choices) {
      if (!state->spec.common.return_token_ids) continue;
      JsonWriter json;
      BeginChunk(*state, choice, "", &json);
      json.Field("logprobs", nullptr).Field("finish_reason", nullptr);
      WriteIds("prompt_token_ids", state->spec.prompts[choice.prompt].ids, 0, &json);
      WriteIds("token_ids", {}, 0, &json);
      EndChunk(*state, false, &json);
      out += Event(json.text());
    }
    return out;
  }

  std::string StreamPiece(ReplyState* state, Choice* choice, const Piece& piece) const override {
    JsonWriter json;
    BeginChunk(*state, *choice, piece.text, &json);
    json.Key("logprobs");
    WriteLogprobs(*state, piece.tokens, &choice->text_offset, &json);
    json.Field("finish_reason", nullptr);
    WriteChunkIds(*state, choice, &json);
    EndChunk(*state, false, &json);
    return Event(json.text());
  }

  std::string StreamFinish(ReplyState* state, Choice* choice) const override {
    JsonWriter json;
    BeginChunk(*state, *choice, "", &json);
    json.Field("logprobs", nullptr);
    WriteEnd(*choice, &json);
    WriteChunkIds(*state, choice, &json);
    EndChunk(*state, state->finished(), &json);
    return Event(json.text());
  }

  std::string StreamEnd(ReplyState* state) const override {
    return UsageChunk(*state, "text_completion") + std::string(kDone);
  }

  std::string Whole(ReplyState* state) const override {
    JsonWriter json;
    json.BeginObject();
    WriteHead(*state, "text_completion", &json);
    json.Key("choices").BeginArray();
    for (const Choice& choice : state->choices) {
      const Prompt& prompt = state->spec.prompts[choice.prompt];
      json.BeginObject().Field("index", choice.index).Field("text", choice.content);
      json.Key("logprobs");
      int64_t offset = 0;
      WriteLogprobs(*state, choice.content_tokens_kept, &offset, &json);
      WriteEnd(choice, &json);
      if (state->spec.common.return_token_ids) {
        WriteIds("prompt_token_ids", prompt.ids, 0, &json);
        WriteIds("token_ids", choice.ids, 0, &json);
      }
      json.EndObject();
    }
    json.EndArray().Key("usage");
    WriteUsage(*state, &json);
    json.EndObject();
    return json.Take();
  }

 private:
  // Leaves the choice open.
  static void BeginChunk(const ReplyState& state, const Choice& choice, std::string_view text,
                         JsonWriter* json) {
    json->BeginObject();
    WriteHead(state, "text_completion", json);
    json->Key("choices").BeginArray().BeginObject();
    json->Field("index", choice.index).Field("text", text);
  }

  static void EndChunk(const ReplyState& state, bool is_last, JsonWriter* json) {
    json->EndObject().EndArray();
    WriteChunkUsage(state, is_last, json);
    json->EndObject();
  }

  static void WriteLogprobs(const ReplyState& state, const std::vector<Token>& tokens,
                            int64_t* offset, JsonWriter* json) {
    if (state.spec.common.sampling.top_logprobs < 0) {
      json->Value(nullptr);
      return;
    }
    const auto most = static_cast<size_t>(state.spec.common.sampling.top_logprobs);
    json->BeginObject().Key("tokens").BeginArray();
    for (const Token& token : tokens) json->Value(state.tokenizer->TokenBytes(token.id));
    json->EndArray().Key("token_logprobs").BeginArray();
    for (const Token& token : tokens) json->Value(Shown(token.logprob));
    json->EndArray().Key("top_logprobs").BeginArray();
    for (const Token& token : tokens) {
      if (std::isnan(token.logprob)) {
        json->Value(nullptr);
        continue;
      }
      json->BeginObject();
      bool has_chosen = false;
      for (size_t i = 0; i < std::min(most, token.top.size()); ++i) {
        has_chosen = has_chosen || token.top[i].id == token.id;
        json->Field(state.tokenizer->TokenBytes(token.top[i].id), Shown(token.top[i].logprob));
      }
      // The API always tells the chosen one too.
      if (!has_chosen) json->Field(state.tokenizer->TokenBytes(token.id), Shown(token.logprob));
      json->EndObject();
    }
    json->EndArray().Key("text_offset").BeginArray();
    for (const Token& token : tokens) {
      json->Value(*offset);
      *offset += Characters(state.tokenizer->TokenBytes(token.id));
    }
    json->EndArray().EndObject();
  }
};

}  // namespace

Usage ReplyState::usage() const {
  Usage usage;
  // What the choice that began first found: the others find what that one computes.
  std::vector<std::optional<int32_t>> cached(spec.prompts.size());
  for (const Choice& choice : choices) {
    usage.completion += choice.completion_tokens;
    usage.reasoning += choice.reasoning_tokens;
    if (choice.completion_tokens == 0) continue;
    std::optional<int32_t>& least = cached[choice.prompt];
    least = std::min(least.value_or(choice.cached_tokens), choice.cached_tokens);
  }
  // A prompt counts once, however many choices were drawn from it.
  for (size_t i = 0; i < spec.prompts.size(); ++i) {
    usage.prompt += static_cast<int64_t>(spec.prompts[i].ids.size());
    usage.cached += cached[i].value_or(0);
  }
  return usage;
}

bool ReplyState::finished() const {
  return std::all_of(choices.begin(), choices.end(),
                     [](const Choice& choice) { return !choice.finish_reason.empty(); });
}

std::unique_ptr<ReplyForm> MakeChatForm() { return std::make_unique<ChatForm>(); }
std::unique_ptr<ReplyForm> MakeCompletionForm() { return std::make_unique<CompletionForm>(); }

}  // namespace seacliff::serve
