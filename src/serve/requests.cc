// The fields that all generations share, and the requests without a chat.
#include "serve/requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace seacliff::serve {
namespace {

using simdjson::dom::element;

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();
constexpr int64_t kMinInt64 = std::numeric_limits<int64_t>::min();
constexpr size_t kMaxStops = 16, kMaxStopBytes = 4096;  // bytes: of all together
// What every step looks through for the sake of one request is kept short.
constexpr size_t kMaxBiases = 4096, kMaxStopIds = 4096;
constexpr double kMaxTimeout = 7 * 86400;
constexpr const char* kPromptForms =
    "must be a string, a list of strings, a list of token ids or a list of such lists";

// Fields that change what a reply means, and that we cannot honour: refused unless they say "off".
constexpr const char* kNotYet[] = {
    "suffix",
    "prompt_embeds",
    "use_beam_search",
    "bad_words",
    "allowed_token_ids",
    "truncate_prompt_tokens",
    "logits_processors",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structural_tag",
    "functions",
    "function_call",
    "kv_transfer_params",
    "regex",
    "ebnf",
    "json_schema",
    "chat_template",
    "documents",
    "lora_path",
    "stop_regex",
    "no_stop_trim",
    "thinking_token_budget",
    "logprob_token_ids",
    "return_tokens_as_token_ids",
    "custom_logit_processor",
    "return_hidden_states",
    "session_params",
};

// The same for fields whose harmless value is another one.
void RefuseNotYet(Fields* fields) {
  for (const char* name : kNotYet) {
    const auto found = fields->Find(name);
    if (found && !SaysOff(*found)) fields->Fail(NotSupportedYet(name));
  }
  const auto scores = fields->Find("prompt_logprobs");  // 0 asks for them
  if (scores && !(scores->is_bool() && SaysOff(*scores))) {
    fields->Fail(NotSupportedYet("prompt_logprobs"));
  }
  bool separate = true;
  fields->Bool("separate_reasoning", &separate);
  if (!separate) fields->Fail(NotSupportedYet("separate_reasoning"));
  std::vector<std::string> modalities;
  fields->Strings("modalities", kMaxStops, &modalities);
  for (const std::string& one : modalities) {
    if (one != "text") fields->Fail(NotSupportedYet("modalities"));
  }
}

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// The value of the escape \uXXXX at `at`; -1 if there is none.
int EscapedUnit(std::string_view json, size_t at) {
  unsigned unit = 0;
  const std::string_view escape = json.substr(std::min(at, json.size()), 6);
  if (escape.size() < 6 || !escape.starts_with("\\u")) return -1;
  const auto end = std::from_chars(escape.data() + 2, escape.data() + 6, unit, 16);
  return end.ptr == escape.data() + 6 ? static_cast<int>(unit) : -1;
}

// Texts are cut anywhere, inside an emoji too: surrogates without their other half become U+FFFD.
std::string WithoutHalves(std::string_view json) {
  std::string out(json);
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] != '\\') continue;
    const int unit = EscapedUnit(out, i), next = EscapedUnit(out, i + 6);
    if (unit >= 0xD800 && unit < 0xDC00 && next >= 0xDC00 && next < 0xE000) {
      i += 11;
    } else if (unit >= 0xD800 && unit < 0xE000) {
      out.replace(i, 6, "\\ufffd");
      i += 5;
    } else {
      ++i;
    }
  }
  return out;
}

void ReadLogitBias(Fields* fields, SamplingParams* sampling) {
  const auto map = fields->Object("logit_bias");
  if (!map) return;
  for (const auto [key, value] : map->object()) {
    int32_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0) {
      return fields->Fail("logit_bias", fmt::format("\"{}\" is not a token id", key));
    }
    double bias = 0;
    if (!value.is_number() || value.get<double>().get(bias) != simdjson::SUCCESS || bias < -100 ||
        bias > 100) {
      return fields->Fail("logit_bias",
                          fmt::format("the value of \"{}\" must be between -100 and 100", key));
    }
    if (sampling->logit_bias.size() == kMaxBiases) {
      return fields->Fail("logit_bias", fmt::format("at most {} tokens", kMaxBiases));
    }
    sampling->logit_bias.emplace_back(id, static_cast<float>(bias));
  }
}

void ReadStreamOptions(Fields* fields, CommonRequest* request) {
  auto options = fields->Object("stream_options");
  if (!options) return;
  if (!request->stream) return fields->Fail("stream_options", "is allowed only with stream");
  options->Bool("include_usage", &request->include_usage);
  options->Bool("continuous_usage_stats", &request->continuous_usage);
  request->continuous_usage = request->continuous_usage && request->include_usage;
}

void ReadSampling(Fields* fields, SamplingParams* sampling) {
  fields->Float("temperature", 0, 2, &sampling->temperature);
  fields->Float("top_p", 0, 1, &sampling->top_p);
  if (sampling->top_p <= 0) fields->Fail("top_p", "must be above 0 and at most 1");
  fields->Int("top_k", -1, kMaxInt32, &sampling->top_k);
  fields->Float("min_p", 0, 1, &sampling->min_p);
  fields->Float("presence_penalty", -2, 2, &sampling->presence_penalty);
  fields->Float("frequency_penalty", -2, 2, &sampling->frequency_penalty);
  fields->Float("repetition_penalty", 0, 100, &sampling->repetition_penalty);
  if (sampling->repetition_penalty <= 0) fields->Fail("repetition_penalty", "must be above 0");
  if (fields->Has("seed")) {
    int64_t seed = 0;
    fields->Int("seed", kMinInt64, kMaxInt64, &seed);
    sampling->seed = static_cast<uint64_t>(seed);
  }
  fields->Int("min_tokens", 0, kMaxInt32, &sampling->min_tokens);
  ReadLogitBias(fields, sampling);
}

// A string, a list of strings, a list of ids, or a list of lists of ids.
void ReadPrompt(Fields* fields, CompletionRequest* request) {
  const auto prompt = fields->Find("prompt");
  if (!prompt) return fields->Fail("prompt", "is missing");
  std::string_view text;
  if (prompt->get<std::string_view>().get(text) == simdjson::SUCCESS) {
    request->texts.emplace_back(text);
    return;
  }
  simdjson::dom::array list;
  if (prompt->get<simdjson::dom::array>().get(list) != simdjson::SUCCESS) {
    return fields->Fail("prompt", kPromptForms);
  }
  const auto read_ids = [&](simdjson::dom::array ids) {
    std::vector<int32_t>& into = request->ids.emplace_back();
    into.reserve(ids.size());
    for (const element item : ids) {
      const auto id = AsInt(item);
      if (!id) return fields->Fail("prompt", kPromptForms);
      if (*id < 0 || *id > kMaxInt32) {
        return fields->Fail("prompt", fmt::format("there is no token {}", *id));
      }
      into.push_back(static_cast<int32_t>(*id));
    }
  };
  if (list.size() == 0) return fields->Fail("prompt", "must not be empty");
  if (list.at(0).is_number()) return read_ids(list);
  const bool of_strings = list.at(0).is_string();
  for (const element item : list) {
    simdjson::dom::array ids;
    if (of_strings && item.get<std::string_view>().get(text) == simdjson::SUCCESS) {
      request->texts.emplace_back(text);
    } else if (!of_strings && item.get<simdjson::dom::array>().get(ids) == simdjson::SUCCESS) {
      read_ids(ids);
    } else {
      return fields->Fail("prompt", kPromptForms);
    }
  }
}

}  // namespace

ApiError ParseBody(std::string_view text, RequestBody* body) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  body->text = text;
  auto parsed = JsonDocument::Parse(text, "the request body");
  if (!parsed.ok()) {
    body->text = body->mended = WithoutHalves(text);
    if (body->mended != text) parsed = JsonDocument::Parse(body->text, "the request body");
  }
  if (!parsed.ok()) {
    ApiError error = BadRequest("", parsed.status().message());
    error.code = "invalid_json";
    return error;
  }
  body->document = std::move(parsed).value();
  if (body->document.root().get<simdjson::dom::object>().get(body->object) != simdjson::SUCCESS) {
    return BadRequest("", "the request body must be a JSON object");
  }
  return {};
}

void ReadCommon(std::string_view body, Fields* fields, const ServeOptions& options,
                CommonRequest* request, int32_t least_tokens) {
  request->sampling = options.default_sampling;
  fields->String("model", &request->model);
  fields->Bool("stream", &request->stream);
  ReadStreamOptions(fields, request);
  fields->Int("n", 1, options.max_choices, &request->n);
  int32_t best_of = request->n;
  fields->Int("best_of", 1, kMaxInt32, &best_of);
  if (best_of != request->n) fields->Fail(NotSupportedYet("best_of"));
  fields->Int("max_tokens", least_tokens, kMaxInt32, &request->max_tokens);
  ReadSampling(fields, &request->sampling);
  fields->Strings("stop", kMaxStops, &request->stop);
  size_t stop_bytes = 0;
  for (const std::string& stop : request->stop) {
    if (stop.empty()) fields->Fail("stop", "must not hold an empty string");
    stop_bytes += stop.size();
  }
  if (stop_bytes > kMaxStopBytes) {
    fields->Fail("stop", fmt::format("at most {} bytes in all", kMaxStopBytes));
  }
  fields->Ints("stop_token_ids", 0, kMaxInt32, &request->stop_token_ids);
  if (request->stop_token_ids.size() > kMaxStopIds) {
    fields->Fail("stop_token_ids", fmt::format("at most {} ids", kMaxStopIds));
  }
  fields->Bool("ignore_eos", &request->ignore_eos);
  fields->Bool("skip_special_tokens", &request->skip_special_tokens);
  fields->Bool("include_stop_str_in_output", &request->include_stop);
  fields->Bool("return_token_ids", &request->return_token_ids);
  fields->Int("priority", std::numeric_limits<int32_t>::min(), kMaxInt32, &request->priority);
  request->timeout = std::chrono::duration<float>(options.request_timeout).count();
  fields->Float("timeout", 0, kMaxTimeout, &request->timeout);
  if (fields->Has("timeout") && request->timeout <= 0) fields->Fail("timeout", "must be above 0");
  fields->String("cache_salt", &request->cache_salt);
  if (fields->Has("cache_salt") && request->cache_salt.empty()) {
    fields->Fail("cache_salt", "must not be empty");
  }
  RefuseNotYet(fields);
  fields->String("request_id", &request->request_id);
  if (fields->Has("request_id") && !IsPlainId(request->request_id)) {
    fields->Fail("request_id", "must be 1 to 128 printable ASCII characters without spaces");
  }
  ReadOutputRule(body, fields, &request->output, &request->output_appendix);
  // The end of such a reply is an end token, behind which nothing can be right.
  if (request->output.any() && request->ignore_eos) {
    fields->Fail("ignore_eos", fmt::format("cannot go with {}", request->output.field));
  }
}

bool IsPlainId(std::string_view id) {
  return !id.empty() && id.size() <= 128 &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7F; });
}

ApiError ParseCompletionRequest(std::string_view text, const ServeOptions& options,
                                CompletionRequest* request) {
  RequestBody body;
  ApiError error = ParseBody(text, &body);
  if (error.any()) return error;
  Fields fields(body.object, "", &error);
  CommonRequest& common = request->common;
  fields.Bool("echo", &request->echo);
  ReadCommon(body.text, &fields, options, &common, request->echo ? 0 : 1);
  if (common.max_tokens < 0) common.max_tokens = 16;  // the API's own default
  if (common.sampling.min_tokens > common.max_tokens) {
    fields.Fail("min_tokens", "must not be larger than max_tokens");
  }
  fields.Int("logprobs", 0, options.max_logprobs, &common.sampling.top_logprobs);
  bool add_special_tokens = true;  // read for its type: V4's tokenizer adds none either way
  fields.Bool("add_special_tokens", &add_special_tokens);
  ReadPrompt(&fields, request);
  const size_t prompts = request->texts.size() + request->ids.size();
  if (prompts * static_cast<size_t>(common.n) > static_cast<size_t>(options.max_choices)) {
    fields.Fail("prompt", fmt::format("{} prompts x n = {} is more than this server's limit of {}",
                                      prompts, common.n, options.max_choices));
  }
  return error;
}

ApiError ParseTokenizeRequest(std::string_view text, const ServeOptions& options,
                              TokenizeRequest* request) {
  RequestBody body;
  ApiError error = ParseBody(text, &body);
  if (error.any()) return error;
  Fields fields(body.object, "", &error);
  fields.String("model", &request->model);
  fields.Bool("return_token_strs", &request->return_token_strs);
  request->is_chat = fields.Has("messages");
  if (request->is_chat) {
    CommonRequest& common = request->chat.common;
    ReadOutputRule(body.text, &fields, &common.output, &common.output_appendix);
    ReadChat(body.text, &fields, options, &request->chat);
  } else if (fields.Has("prompt")) {
    fields.String("prompt", &request->prompt);
  } else {
    fields.Fail("prompt", "is missing (or messages)");
  }
  return error;
}

ApiError ParseDetokenizeRequest(std::string_view text, DetokenizeRequest* request) {
  RequestBody body;
  ApiError error = ParseBody(text, &body);
  if (error.any()) return error;
  Fields fields(body.object, "", &error);
  fields.String("model", &request->model);
  if (!fields.Has("tokens")) fields.Fail("tokens", "is missing");
  fields.Ints("tokens", 0, kMaxInt32, &request->tokens);
  return error;
}

}  // namespace seacliff::serve
