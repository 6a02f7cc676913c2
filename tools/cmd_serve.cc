// seacliff serve: the HTTP server. It listens at once and answers 503 until the model is loaded.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "base/log.h"
#include "checkpoint/progress_bar.h"
#include "serve/server.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

constexpr int kStalledStatus = 4;

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

// The folder's own name, also where it is given as "." or with a slash at its end.
std::string FolderName(const std::string& dir) {
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(dir, error);
  return error || path.filename().empty() ? dir : path.filename().string();
}

Result<serve::ServeOptions> ServeOptionsOf(const Settings& settings) {
  serve::ServeOptions options;
  options.host = settings.host;
  options.port = static_cast<int32_t>(settings.port);
  options.model_names = settings.served_model_names;
  if (options.model_names.empty()) options.model_names.push_back(FolderName(settings.dir));
  options.model_root = settings.dir;
  options.version = SEACLIFF_VERSION;
  options.machine = MachineName(settings);
  options.api_keys = settings.api_keys;
  options.max_waiting = static_cast<int32_t>(settings.max_waiting);
  options.max_logprobs = static_cast<int32_t>(settings.max_logprobs);
  options.default_max_tokens = static_cast<int32_t>(settings.default_max_tokens);
  SC_ASSIGN_OR_RETURN(options.default_sampling, SamplingOf(settings));
  if (!settings.reasoning_effort.empty()) {
    SC_ASSIGN_OR_RETURN(const ChatEffortChoice choice, ParseChatEffort(settings.reasoning_effort));
    options.default_thinking = choice.thinking;
    options.default_effort = choice.effort;
  }
  options.trust_special_tokens = settings.trust_special_tokens;
  options.reply_memory = settings.reply_memory.value;
  options.thinking_is_content = settings.think_fallback == "content";
  options.idle_prefill = settings.idle_prefill == "on" && !settings.no_prefix_caching;
  options.text_threads = static_cast<int32_t>(settings.text_threads);
  options.keep_alive = Milliseconds(settings.keep_alive);
  options.stall_timeout = Milliseconds(settings.stall_timeout);
  options.request_timeout = Milliseconds(settings.request_timeout);
  // The engine's thread hangs, so an orderly end would wait for it.
  if (settings.on_stall == "exit") options.on_stall = [] { std::_Exit(kStalledStatus); };
  options.drain_timeout = Milliseconds(settings.drain_timeout);
  return options;
}

Status Serve(const Settings& settings) {
  if (settings.node_rank != 0) return FollowNode0(settings);
  // What fails fast comes first, so that no client sees a server that will go away again.
  SC_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(settings.dir));
  SC_ASSIGN_OR_RETURN(const ChatProfile profile, ProfileOf(settings));
  SC_ASSIGN_OR_RETURN(serve::ServeOptions options, ServeOptionsOf(settings));
  const std::string name = options.model_names.front();

  std::mutex mutex;
  bool serving = true;
  Status lost;  // why the engine's device is gone
  // Its thread uses what stands above, and it outlives the server.
  std::unique_ptr<Engine> engine;
  SC_ASSIGN_OR_RETURN(auto server, serve::Server::Start(std::move(options)));
  EngineOptions engine_options = EngineOptionsOf(settings);
  engine_options.on_lost = [&](const Status& error) {
    const std::lock_guard lock(mutex);
    lost = error;
    if (serving) server->Quit();
  };
  SC_ASSIGN_OR_RETURN(engine, Engine::Load(engine_options, ShowProgress()));
  server->AttachEngine(engine.get(), &tokenizer, profile);
  SC_LOG_INFO(
      "serving {} as \"{}\", chat profile {}, {} tokens of context: "
      "http://{}:{}/v1/chat/completions",
      settings.dir, name, ChatProfileName(profile), engine->max_model_len(), settings.host,
      server->port());
  server->RunUntilSignal();
  const std::lock_guard lock(mutex);
  serving = false;
  return lost;
}

}  // namespace

void AddServe(CLI::App& app, Status& status) {
  AddCommand(app, kServe, "serve", "Serve a model over HTTP (OpenAI API)", status, Serve);
}

}  // namespace seacliff
