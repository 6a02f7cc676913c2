// What several commands share: options from the settings table, loading a model with its tokenizer,
// and following one reply as it is generated.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "seacliff/engine.h"
#include "seacliff/text.h"

namespace seacliff {

// Adds subcommand `name` with every row of the settings table that `command` has. When it is asked
// for, `run` gets what the flags, the environment and the defaults say.
void AddCommand(CLI::App& app, Command command, const char* name, const char* help, Status& status,
                std::function<Status(const Settings&)> run);

EngineOptions EngineOptionsOf(const Settings& settings);
// How ranks share the model, in the options of an engine or of a model.
template <typename Options>
void SetRanks(const Settings& settings, Options& options) {
  options.tensor_parallel_size = static_cast<int32_t>(settings.tensor_parallel_size);
  options.nodes = static_cast<int32_t>(settings.nnodes);
  options.node_rank = static_cast<int32_t>(settings.node_rank);
  options.rendezvous = settings.rendezvous;
  options.rank_timeout = settings.rank_timeout;
  options.nccl_library = settings.nccl_library;
  options.echo_ranks = settings.echo_ranks;
}
// --machine, else what the model runs on by --device: "2x NVIDIA H200", or the CPU.
std::string MachineName(const Settings& settings);
// Runs this host's ranks for node 0 until that has done what the command says (--node-rank).
Status FollowNode0(const Settings& settings);
// Flags, else the model's generation_config.json, else the model's own: temperature 1, no cuts.
Result<SamplingParams> SamplingOf(const Settings& settings);
// --chat-profile; "auto" looks at the model's files.
Result<ChatProfile> ProfileOf(const Settings& settings);
// --think, --reasoning-effort: whether and how long a reply is reasoned about.
Result<ChatEffortChoice> EffortOf(const Settings& settings);
// --prompt, --file, or standard input.
Result<std::string> PromptOf(const Settings& settings);

ChatMessage NewMessage(std::string role, std::string content);

struct LoadedModel {
  Tokenizer tokenizer;
  ChatProfile profile;
  SamplingParams sampling;
  std::unique_ptr<Engine> engine;
};
Result<LoadedModel> LoadModel(const Settings& settings);

// How one reply went.
struct ReplyTally {
  int64_t prompt_tokens = 0, tokens = 0;
  double first_token_seconds = 0, seconds = 0;  // from the start of the request

  // "42 tokens, 13.5 tok/s, first token after 0.21 s (17 tokens of prompt)"
  std::string Describe() const;
};

// Runs one request to its end. `on_token` gets each token that was generated and says whether to go
// on; `stopped` is asked often and ends the reply when it says so.
Result<ReplyTally> FollowReply(const LoadedModel& model, Request request,
                               const std::function<bool(int32_t id)>& on_token,
                               const std::function<bool()>& stopped);

// Prints a reply to standard output as it comes. On a terminal reasoning is dimmed; elsewhere it
// stands between <think> and </think>.
class ReplyPrinter {
 public:
  ReplyPrinter();
  void Print(const ReplyDelta& delta);
  void Print(const std::vector<ReplyDelta>& deltas);
  // Closes what is open and ends the line.
  void Finish();

 private:
  void EndReasoning();

  bool terminal_, reasoning_ = false, line_open_ = false;
};

}  // namespace seacliff
