// THE settings table: every flag of every command, with its default, its range and what it is for.
// The command line is made from it (tools/cmd_common.h) and `seacliff show settings` prints it. It
// knows no parser of command lines; values come as text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"

namespace seacliff {

// A size in memory. Written as a number with an optional K, M, G or T (powers of 1024).
struct ByteSize {
  int64_t value = 0;
};

// What the flags of one command say. A field that the command has no row for keeps its value here.
struct Settings {
  std::string dir;

  // The model.
  std::string load_format, repack_cache, numerics, output_projection, kernels, nccl_library;
  int64_t threads = 0;
  int64_t max_model_len = 0, max_num_seqs = 1, max_num_batched_tokens = 512;
  int64_t long_prefill_token_threshold = -1;
  ByteSize kv_cache_memory, device_memory;
  double gpu_memory_utilization = 0.9;
  bool enable_prefix_caching = false, no_prefix_caching = false;
  int64_t tensor_parallel_size = 1, nnodes = 1, node_rank = 0;
  bool echo_ranks = false;
  std::string rendezvous;
  double rank_timeout = 20;
  std::optional<int64_t> seed;

  // The server.
  std::string host;
  int64_t port = 0;
  std::vector<std::string> served_model_names, api_keys;
  std::string chat_profile;
  int64_t max_waiting = 0, max_logprobs = 0, default_max_tokens = 0;
  double keep_alive = 0, stall_timeout = 0, request_timeout = 0, drain_timeout = 0;
  std::string on_stall;
  bool trust_special_tokens = false;
  ByteSize reply_memory;
  std::string idle_prefill;
  std::string think_fallback;
  int64_t text_threads = 1;

  // What is generated. Where a sampling value is not given, generation_config.json says it.
  std::string prompt, prompt_file, system, reasoning_effort, generation_config;
  int64_t max_tokens = 0;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  double presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::string> stop;
  bool chat = false, think = false, ignore_eos = false;

  // tokenize, logits, check, bench, show.
  bool ids_only = false, decode = false, special = false;
  std::string ids_file, out;
  int64_t prefill = -1, chunk = 0, from = -1;
  bool layers = false, mtp = false, margins = false;
  std::string op, row, case_name, isa, machine, results;
  bool full = false, bench = false;
  ByteSize smem_limit;
  int64_t max_sms = 0;
  std::string table, config_file, model;
  std::string benchmark, device, output_json;
  int64_t input_len = 0, output_len = 0, num_prompts = 1, depth = 0, warmup = 1, repeat = 1;
  bool profile = false;
  std::string max_concurrency, base_url, endpoint, label;
  double request_rate = 0;
  int64_t num_warmups = 0, vocab_size = 0;
  bool save_detailed = false;

  std::string log_level;
};

// Bits of Setting::commands.
enum Command : uint32_t {
  kServe = 1,
  kGenerate = 2,
  kChat = 4,
  kTokenize = 8,
  kLogits = 16,
  kCheck = 32,
  kShow = 64,
  kBench = 128,
};

using SettingField =
    std::variant<bool Settings::*, int64_t Settings::*, double Settings::*, ByteSize Settings::*,
                 std::string Settings::*, std::vector<std::string> Settings::*,
                 std::optional<int64_t> Settings::*, std::optional<double> Settings::*>;

struct Setting {
  const char* flag;  // "--port", "-n,--max-tokens"; without a dash: an argument, "[OP]" optional
  SettingField field;
  const char* initial;  // the default, as typed; "": none (an argument without [] must be given)
  const char* values;   // "a|b": one of these; else a word that stands for the value in the help
  double low, high;     // of numbers; both 0: any
  uint32_t commands;
  const char* help;
  const char* environment = "";  // a variable that is read where the flag is not given
};

std::span<const Setting> SettingsTable();

// "--max-tokens": the longest spelling, which errors use. "OP" for "[OP]".
std::string_view SettingName(const Setting& setting);
bool IsArgument(const Setting& setting);
bool IsSwitch(const Setting& setting);
bool IsList(const Setting& setting);  // may be given several times

// The initial values of a command.
Settings InitialSettings(Command command);

// What the environment says, for settings that are not given.
std::optional<std::string> EnvironmentValue(const Setting& setting);

// Puts one value as typed into `settings` (at a list's end; a switch wants ""). The message of an
// error says what is wrong with the value and does not name the flag.
Status SetFromText(const Setting& setting, std::string_view text, Settings& settings);

// The table as text.
std::string DescribeSettings();

}  // namespace seacliff
