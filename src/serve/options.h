// What the server is told at its start. The main program fills it from the settings table.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/http.h"

namespace seacliff::serve {

struct ServeOptions {
  std::string host = "127.0.0.1";
  int32_t port = 8000;                   // 0: a free one
  std::vector<std::string> model_names;  // --served-model-name; at least one, the first is told
  std::string model_root;                // "root" in /v1/models: where the model lies
  std::string version, machine;          // GET /version; machine: "2x NVIDIA H200"
  std::vector<std::string> api_keys;     // empty: everybody may
  int32_t max_waiting = 1024;            // requests that are prepared or queued; more: 503
  int32_t max_choices = 1024;            // prompts x n of one call
  int32_t max_logprobs = 20;
  int32_t default_max_tokens = 0;   // chat; 0: what the context leaves free
  SamplingParams default_sampling;  // where a request says nothing
  bool default_thinking = true;
  ChatEffort default_effort = ChatEffort::kDefault;
  bool trust_special_tokens = false;  // in the text of raw prompts
  bool vllm_metric_names = true;
  int64_t reply_memory = 64 << 20;              // bytes, for the ids of replies (sampled_turns.h)
  bool idle_prefill = true;                     // idle_prefill.h
  bool thinking_is_content = false;             // --think-fallback=content
  int32_t text_threads = 1;                     // for prompts from long bodies
  std::chrono::milliseconds keep_alive{5'000};  // silence of a stream before a comment
  std::chrono::milliseconds stall_timeout{60'000};  // work without a step's end: unhealthy
  // Called when the engine has stalled and the clients have been told, or a second later; empty: it
  // may go on.
  std::function<void()> on_stall;
  std::chrono::milliseconds request_timeout{0};      // of requests that name none; 0: none
  std::chrono::milliseconds drain_timeout{300'000};  // after the first signal
  HttpLimits http;
};

}  // namespace seacliff::serve
