// Checks of a request; see validate.h.
#include "engine/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace seacliff {
namespace {

Status CheckSampling(const RequestLimits& limits, const SamplingParams& sampling) {
  // Written so that NaN fails.
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    return InvalidArgument(
        fmt::format("temperature must be a number of at least 0, got {}", sampling.temperature));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return InvalidArgument(fmt::format("top_p must be in (0, 1], got {}", sampling.top_p));
  }
  if (sampling.top_k < -1) {
    return InvalidArgument(
        fmt::format("top_k must be at least 1, or 0 or -1 for all, got {}", sampling.top_k));
  }
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    return InvalidArgument(fmt::format("min_p must be in [0, 1], got {}", sampling.min_p));
  }
  if (!(sampling.repetition_penalty > 0) || std::isinf(sampling.repetition_penalty)) {
    return InvalidArgument(
        fmt::format("repetition_penalty must be above 0, got {}", sampling.repetition_penalty));
  }
  if (!(std::fabs(sampling.presence_penalty) <= 2)) {
    return InvalidArgument(
        fmt::format("presence_penalty must be in [-2, 2], got {}", sampling.presence_penalty));
  }
  if (!(std::fabs(sampling.frequency_penalty) <= 2)) {
    return InvalidArgument(
        fmt::format("frequency_penalty must be in [-2, 2], got {}", sampling.frequency_penalty));
  }
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < 0 || id >= limits.vocab_size) {
      return InvalidArgument(fmt::format("logit_bias: token id {} is not in the vocabulary of {}",
                                         id, limits.vocab_size));
    }
    if (!std::isfinite(bias)) {
      return InvalidArgument(fmt::format("logit_bias: the bias of token {} is not finite", id));
    }
  }
  if (sampling.min_tokens < 0) {
    return InvalidArgument(
        fmt::format("min_tokens must not be negative, got {}", sampling.min_tokens));
  }
  if (sampling.top_logprobs < -1) {
    return InvalidArgument(
        fmt::format("top_logprobs must not be negative, got {}", sampling.top_logprobs));
  }
  return OkStatus();
}

}  // namespace

Status ValidateRequest(const RequestLimits& limits, Request& request) {
  if (request.prompt.empty()) return InvalidArgument("the prompt is empty");
  if (request.max_tokens < 1) {
    return InvalidArgument(
        fmt::format("max_tokens must be at least 1, got {}", request.max_tokens));
  }
  const int64_t free = limits.max_model_len - static_cast<int64_t>(request.prompt.size());
  if (free < 1) {
    return InvalidArgument(fmt::format(
        "This model's maximum context length is {} tokens, but the prompt has {} tokens and at "
        "least one more is needed for the completion (context_length_exceeded)",
        limits.max_model_len, request.prompt.size()));
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const int32_t id = request.prompt[i];
    if (id < 0 || id >= limits.vocab_size) {
      return InvalidArgument(
          fmt::format("prompt: token id {} at position {} is not in the "
                      "vocabulary of {}",
                      id, i, limits.vocab_size));
    }
  }
  for (const int32_t id : request.stop_token_ids) {
    if (id < 0 || id >= limits.vocab_size) {
      return InvalidArgument(fmt::format(
          "stop_token_ids: token id {} is not in the vocabulary of {}", id, limits.vocab_size));
    }
  }
  SC_RETURN_IF_ERROR(CheckSampling(limits, request.sampling));
  if (request.prompt_logprobs < -1) {
    return InvalidArgument(
        fmt::format("prompt_logprobs must not be negative, got {}", request.prompt_logprobs));
  }
  request.max_tokens = static_cast<int32_t>(std::min<int64_t>(request.max_tokens, free));
  return OkStatus();
}

}  // namespace seacliff
