// The rows of the settings table, the parsing of one value, and the table's printed form.
#include "config/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "base/check.h"

namespace seacliff {
namespace {

using S = Settings;

constexpr uint32_t kEngine = kServe | kGenerate | kChat;
constexpr uint32_t kModel = kEngine | kLogits;
constexpr uint32_t kText = kEngine | kTokenize;
constexpr uint32_t kOnce = kGenerate | kChat;
constexpr double kInt32 = std::numeric_limits<int32_t>::max();
constexpr double kInt53 = 9007199254740992.0;  // a double counts exactly up to here
constexpr double kDay = 86400;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// clang-format off
constexpr Setting kSettings[] = {
  // flag, field, initial, values, low, high, commands, help
  {"DIR", &S::dir, "", "DIR", 0, 0, kText | kLogits,
   "the model: config.json, weights and tokenizer.json as published"},

  // The server.
  {"--host", &S::host, "127.0.0.1", "HOST", 0, 0, kServe,
   "address to listen on; 0.0.0.0 for every network of this machine"},
  {"--port", &S::port, "8000", "PORT", 0, 65535, kServe,
   "port to listen on; 0: a free one"},
  {"--served-model-name", &S::served_model_names, "", "NAME", 0, 0, kServe,
   "name in requests and replies, default the folder's; again for further names"},
  {"--api-key", &S::api_keys, "", "KEY", 0, 0, kServe,
   "a key that requests must bring; again for further keys", "SEACLIFF_API_KEY"},
  {"--chat-profile", &S::chat_profile, "auto", "auto|preview|0731|v41", 0, 0, kServe | kOnce,
   "rules of the chat encoding; auto: from the model's files"},
  {"--max-waiting", &S::max_waiting, "1024", "N", 1, kInt32, kServe,
   "requests that may wait; further ones get 503"},
  {"--max-logprobs", &S::max_logprobs, "20", "N", 0, 1000, kServe,
   "most logprobs that a request may ask for"},
  {"--default-max-tokens", &S::default_max_tokens, "0", "N", 0, kInt32, kServe,
   "of chat requests that name no limit; 0: what the context leaves free"},
  {"--trust-special-tokens", &S::trust_special_tokens, "", "", 0, 0, kServe,
   "special tokens spelled in raw prompts count as such"},
  {"--keep-alive", &S::keep_alive, "5", "SECONDS", 0.1, kDay, kServe,
   "silence of a stream after which a comment is sent"},
  {"--stall-timeout", &S::stall_timeout, "60", "SECONDS", 1, kDay, kServe,
   "the engine is stalled when there is work and no step ends for so long (the first of its size: ten "
   "times as long); also the time that /health?deep=1 has for its token"},
  {"--on-stall", &S::on_stall, "exit", "exit|report", 0, 0, kServe,
   "exit: with status 4; report: /health says 503 until a step ends"},
  {"--request-timeout", &S::request_timeout, "0", "SECONDS", 0, kDay, kServe,
   "of requests without a timeout of their own, which then end with an error; 0: none"},
  {"--drain-timeout", &S::drain_timeout, "300", "SECONDS", 0, kDay, kServe,
   "after the first SIGINT or SIGTERM running requests have this long to finish"},
  {"--reply-memory", &S::reply_memory, "64M", "BYTES", 0, kInt53, kServe,
   "memory for the tokens of replies: a turn that comes back is read as it was sampled; 0: none"},
  {"--idle-prefill", &S::idle_prefill, "on", "on|off", 0, 0, kServe,
   "while nothing else runs, compute how the next turn's prompt begins where old reasoning is dropped"},
  {"--think-fallback", &S::think_fallback, "reasoning", "reasoning|content", 0, 0, kServe,
   "what a reply is that ends without ending its thinking; content: both"},
  {"--text-threads", &S::text_threads, "1", "N", 1, 256, kServe,
   "threads that read long requests and turn their prompts into token ids"},

  // The model.
  {"--max-model-len", &S::max_model_len, "0", "TOKENS", 0, kInt32, kEngine | kBench | kShow,
   "longest prompt and reply together; 0: what the model and the cache take"},
  {"--max-num-seqs", &S::max_num_seqs, "16", "N", 1, 65536, kServe | kShow,
   "sequences that are worked on at once"},
  {"--max-num-batched-tokens", &S::max_num_batched_tokens, "512", "N", 1, 1048576,
   kEngine | kBench | kShow,
   "tokens of one step; longer prompts are taken in chunks"},
  {"--long-prefill-token-threshold", &S::long_prefill_token_threshold, "-1", "N", -1, 1048576,
   kServe | kBench,
   "tokens that a prompt may have computed before it gives way to requests that decode; -1: 4,096 on "
   "a GPU, 0 on the CPU"},
  {"--kv-cache-memory", &S::kv_cache_memory, "0", "BYTES", 0, kInt53, kEngine | kShow,
   "memory for the cache, as 512M or 8G; 0: on a GPU what --gpu-memory-utilization leaves for it, on "
   "the CPU from the sequences and their length"},
  {"--gpu-memory-utilization", &S::gpu_memory_utilization, "0.9", "X", 0.01, 1,
   kEngine | kBench | kShow,
   "part of a GPU's memory that weights, steps and cache may take together"},
  {"--enable-prefix-caching", &S::enable_prefix_caching, "", "", 0, 0, kEngine | kShow,
   "the default: keep what was computed, for prompts that begin alike"},
  {"--no-enable-prefix-caching", &S::no_prefix_caching, "", "", 0, 0, kEngine | kShow,
   "compute every prompt anew"},
  {"--load-format", &S::load_format, "auto", "auto|dummy", 0, 0, kModel | kBench,
   "dummy: weights made up from the seed, DIR needs no weights"},
  {"--repack-cache", &S::repack_cache, "", "FILE", 0, 0, kModel | kBench,
   "keep the packed weights in this file, which later starts map and check instead of packing"},
  {"--numerics", &S::numerics, "checkpoint", "checkpoint|exact", 0, 0, kModel | kBench,
   "exact: f32 throughout, nothing quantised but the weights as stored"},
  {"--output-projection", &S::output_projection, "bf16", "bf16|fp8", 0, 0, kModel | kBench,
   "activations of wo_a: bf16 as in the official code, fp8 as vLLM serves it"},
  {"--device", &S::device, "auto", "auto|cpu|cuda", 0, 0, kModel | kBench,
   "where the model runs; auto: on the first GPU, else on the CPU"},
  {"--tensor-parallel-size,--tp", &S::tensor_parallel_size, "1", "N", 1, 64,
   kModel | kBench | kShow,
   "ranks that share the model: a GPU each, or on the CPU some threads each; show: the memory of each"},
  {"--nnodes", &S::nnodes, "1", "N", 1, 64, kModel | kBench,
   "hosts that share the ranks evenly; each runs the same command with its own --node-rank"},
  {"--node-rank", &S::node_rank, "0", "N", 0, 63, kModel | kBench,
   "this host's number; 0 does what the command says, the others compute for it until it ends"},
  {"--rendezvous", &S::rendezvous, "", "HOST:PORT", 0, 0, kModel | kBench,
   "where host 0 listens and the others find it"},
  {"--rank-timeout", &S::rank_timeout, "20", "SECONDS", 0.1, kDay, kModel | kBench,
   "a rank that lets the others wait for so long in a step counts as hung, which ends them all"},
  {"--kernels", &S::kernels, "", "OP=ROW,...", 0, 0, kModel | kBench | kShow,
   "rows to use instead of the chosen ones (seacliff show kernels); portable: none that is for one "
   "architecture"},
  {"--nccl-library", &S::nccl_library, "", "FILE", 0, 0, kModel | kBench | kShow,
   "of NCCL, for long messages between two GPUs; default libnccl.so.2 where it is installed"},
  {"--echo-ranks", &S::echo_ranks, "", "", 0, 0, kModel | kBench,
   "to measure one rank of several on one GPU: what the others would send it gets from itself (dummy "
   "weights)"},
  {"--threads", &S::threads, "0", "N", 0, 4096, kModel | kCheck | kBench,
   "threads of the CPU kernels; 0: one per core"},
  {"--seed", &S::seed, "", "N", 0, kInt53, kModel,
   "of sampling where a request brings none, and of dummy weights; default 0"},

  // What is generated.
  {"-p,--prompt", &S::prompt, "", "TEXT", 0, 0, kGenerate | kTokenize,
   "the prompt; without one it is read from standard input"},
  {"-f,--file", &S::prompt_file, "", "FILE", 0, 0, kGenerate | kTokenize,
   "read the prompt from a file"},
  {"-n,--max-tokens", &S::max_tokens, "256", "N", 1, kInt32, kGenerate,
   "most tokens to generate"},
  {"-n,--max-tokens", &S::max_tokens, "0", "N", 0, kInt32, kChat,
   "most tokens of a reply; 0: what the context leaves free"},
  {"--chat", &S::chat, "", "", 0, 0, kGenerate,
   "the prompt is a user's message, not raw text"},
  {"--think", &S::think, "", "", 0, 0, kOnce,
   "the model reasons before it replies, as with --reasoning-effort (generate: implies --chat)"},
  {"--system", &S::system, "", "TEXT", 0, 0, kOnce,
   "a system message before the conversation (generate: with --chat)"},
  {"--reasoning-effort", &S::reasoning_effort, "", "none|low|medium|high|max", 0, 0, kEngine,
   "how long to reason, where the request says nothing; default the checkpoint's"},
  {"--generation-config", &S::generation_config, "auto", "auto|none", 0, 0, kEngine,
   "auto: sampling defaults from the model's generation_config.json"},
  {"--temperature,--temp", &S::temperature, "", "X", 0, 100, kEngine,
   "0: the likeliest token; default generation_config.json's, else 1"},
  {"--top-p", &S::top_p, "", "X", 0.0001, 1, kEngine,
   "sample from the likeliest tokens that have this much probability together"},
  {"--top-k", &S::top_k, "", "N", -1, kInt32, kEngine,
   "sample from this many of the likeliest tokens; 0 or -1: all"},
  {"--min-p", &S::min_p, "", "X", 0, 1, kEngine,
   "leave out tokens less likely than this part of the likeliest"},
  {"--repetition-penalty", &S::repetition_penalty, "", "X", 0.01, 100, kEngine,
   "above 1: tokens of prompt and output become less likely"},
  {"--presence-penalty", &S::presence_penalty, "0", "X", -2, 2, kEngine,
   "taken from the logits of tokens that the output has"},
  {"--frequency-penalty", &S::frequency_penalty, "0", "X", -2, 2, kEngine,
   "the same, times how often it has them"},
  {"--stop", &S::stop, "", "TEXT", 0, 0, kOnce,
   "end before this text; again for further texts"},
  {"--ignore-eos", &S::ignore_eos, "", "", 0, 0, kGenerate,
   "go on after the end-of-sentence token"},

  // tokenize
  {"--ids", &S::ids_only, "", "", 0, 0, kTokenize,
   "print the ids alone, on one line"},
  {"--special", &S::special, "", "", 0, 0, kTokenize,
   "special tokens spelled in the text count as such"},
  {"--decode", &S::decode, "", "", 0, 0, kTokenize,
   "the other way: token ids in, text out"},

  // logits
  {"--ids-file", &S::ids_file, "", "FILE", 0, 0, kLogits,
   "token ids, separated by white space"},
  {"--prefill", &S::prefill, "-1", "N", -1, kInt32, kLogits,
   "ids fed as one prefill, the rest one at a time; -1: all"},
  {"--chunk", &S::chunk, "0", "N", 0, kInt32, kLogits,
   "tokens of a prefill step; 0: the whole prefill"},
  {"--from", &S::from, "-1", "N", -1, kInt32, kLogits,
   "first position written; -1: the last of the prefill"},
  {"--layers", &S::layers, "", "", 0, 0, kLogits,
   "also write the layers' outputs for the last token of the prefill"},
  {"--margins", &S::margins, "", "", 0, 0, kLogits,
   "also write how close each layer's choice of experts and of top-k blocks was"},
  {"--mtp", &S::mtp, "", "", 0, 0, kLogits,
   "also write the MTP layer's logits after the prefill"},
  {"--out", &S::out, "", "FILE", 0, 0, kLogits,
   "the safetensors file to write"},

  // check
  {"[OP]", &S::op, "", "OP", 0, 0, kCheck,
   "check this op alone"},
  {"--row", &S::row, "", "ROW", 0, 0, kCheck,
   "check this row alone"},
  {"--case", &S::case_name, "", "TEXT", 0, 0, kCheck,
   "the cases alone whose names contain this"},
  {"--isa", &S::isa, "", "NAME", 0, 0, kCheck | kBench,
   "instruction set of the cpu rows, default the best of this machine; a wrong one lists them"},
  {"--device", &S::device, "cpu", "cpu|cuda", 0, 0, kCheck,
   "whose rows are checked"},
  {"--smem-limit", &S::smem_limit, "0", "BYTES", 0, 0, kCheck | kBench,
   "shared memory of a block that CUDA rows may use, as 99K: a smaller card; 0: the card's; bench: of "
   "steps, and of throughput without --max-concurrency"},
  {"--max-sms", &S::max_sms, "0", "N", 0, 1024, kCheck | kBench,
   "multiprocessors that CUDA rows plan for; 0: the card's; bench: as --smem-limit"},
  {"--full", &S::full, "", "", 0, 0, kCheck,
   "the models' real sizes too"},
  {"--bench", &S::bench, "", "", 0, 0, kCheck,
   "the real sizes alone, each row timed on them"},
  {"--seed", &S::seed, "1", "N", 0, kInt53, kCheck,
   "of the inputs"},
  {"--machine", &S::machine, "", "NAME", 0, 0, kCheck | kBench,
   "the machine's name in result lines; default the CPU's or the GPU's"},
  {"--results", &S::results, "", "FILE", 0, 0, kCheck,
   "append a JSON line for each measurement"},

  // show
  {"TABLE", &S::table, "", "kernels|tensors|cache|memory|settings|routes|specials", 0, 0, kShow,
   "the table to print"},
  {"--config", &S::config_file, "", "FILE", 0, 0, kShow,
   "tensors, cache, memory: of the model with this config.json"},
  {"--model", &S::model, "", "DIR", 0, 0, kShow,
   "tensors, cache, memory, specials: of the model in this folder"},
  {"--device", &S::device, "auto", "auto|cpu|cuda", 0, 0, kShow,
   "kernels, memory: of the GPU, or of the CPU alone; auto: of a GPU if there is one"},
  {"--device-memory", &S::device_memory, "0", "BYTES", 0, kInt53, kShow,
   "memory: of a machine whose GPU (--device cpu: whose host) has this much; 0: of this one"},

  // bench
  {"BENCHMARK", &S::benchmark, "", "throughput|steps|serve|all-reduce", 0, 0, kBench,
   "what to measure: throughput, of prefill and of decoding; steps, where a decode step's time goes; "
   "serve, of a server over HTTP; all-reduce, of the GPUs' way to add up"},
  {"--model", &S::model, "", "DIR", 0, 0, kBench,
   "the model, as published; serve: its name in requests, default the first that the server lists"},
  {"--config", &S::config_file, "", "FILE", 0, 0, kBench,
   "a config.json alone, with --load-format dummy"},
  {"--input-len,--random-input-len", &S::input_len, "512", "TOKENS", 0, 1048576, kBench,
   "of each prompt (random ids); 0: no prefill is measured"},
  {"--output-len,--random-output-len", &S::output_len, "128", "TOKENS", 0, 1048576, kBench,
   "decoded for each prompt; 0: no decoding is measured"},
  {"--num-prompts", &S::num_prompts, "0", "N", 0, 65536, kBench,
   "sequences that are worked on at once (0: one); with requests (serve, or --max-concurrency) those "
   "of each run (0: as many as run at once)"},
  {"--max-concurrency", &S::max_concurrency, "", "N,...", 0, 0, kBench,
   "requests under way at once, a run for each number (0: all); throughput: through the engine, as "
   "serve does without HTTP; steps: sequences"},
  {"--request-rate", &S::request_rate, "inf", "X", 0.0001, kInfinity, kBench,
   "requests a second that arrive on average, at random times; inf: as soon as the concurrency allows"},
  {"--num-warmups", &S::num_warmups, "1", "N", 0, 65536, kBench,
   "requests before each run that do not count, with 16 tokens out at most"},
  {"--base-url", &S::base_url, "", "URL", 0, 0, kBench,
   "serve: http://host:port of the server, instead of --host and --port"},
  {"--host", &S::host, "127.0.0.1", "HOST", 0, 0, kBench,
   "serve: of the server"},
  {"--port", &S::port, "8000", "PORT", 1, 65535, kBench,
   "serve: of the server"},
  {"--endpoint", &S::endpoint, "/v1/completions", "PATH", 0, 0, kBench,
   "serve: where requests go"},
  {"--api-key", &S::api_keys, "", "KEY", 0, 0, kBench,
   "serve: the key that the server wants", "OPENAI_API_KEY"},
  {"--vocab-size", &S::vocab_size, "0", "N", 0, kInt32, kBench,
   "serve: ids are drawn below this; 0: as the server's list of models says, else 32000"},
  {"--label", &S::label, "", "TEXT", 0, 0, kBench,
   "in the JSON lines of a load: what is measured, as the server's kernels"},
  {"--save-detailed", &S::save_detailed, "", "", 0, 0, kBench,
   "each request's times in the JSON lines of a load too"},
  {"-d,--depth", &S::depth, "0", "TOKENS", 0, 1048576, kBench,
   "tokens of each sequence that are in the cache before"},
  {"--warmup", &S::warmup, "1", "N", 1, 1000, kBench,
   "runs before those that count; the first one also counts the bytes that are read"},
  {"-r,--repeat", &S::repeat, "5", "N", 1, 1000, kBench,
   "runs that count; the median is reported"},
  {"--seed", &S::seed, "0", "N", 0, kInt53, kBench,
   "of the token ids and of dummy weights"},
  {"--profile", &S::profile, "", "", 0, 0, kBench,
   "afterwards one more run each, with the time of every op; steps: what each call adds to the step"},
  {"--output-json", &S::output_json, "", "FILE", 0, 0, kBench,
   "append a JSON line for each measurement"},

  {"--log-level", &S::log_level, "info", "debug|info|warning|error", 0, 0, kServe,
   "least important messages to write to standard error"},
  {"--log-level", &S::log_level, "warning", "debug|info|warning|error", 0, 0,
   kOnce | kTokenize | kLogits | kCheck | kBench | kShow,
   "least important messages to write to standard error"},
};
// clang-format on

struct CommandName {
  Command command;
  const char* name;
};
constexpr CommandName kCommands[] = {
    {kServe, "serve"},   {kGenerate, "generate"}, {kChat, "chat"},   {kTokenize, "tokenize"},
    {kLogits, "logits"}, {kCheck, "check"},       {kBench, "bench"}, {kShow, "show"},
};

template <typename T>
Result<T> ParseNumber(std::string_view text, const char* what) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) {
    return InvalidArgument(fmt::format("{} is out of range", text));
  }
  if (error != std::errc() || stop != end) {
    return InvalidArgument(fmt::format("must be {}, not \"{}\"", what, text));
  }
  return value;
}

Status CheckRange(const Setting& setting, double value) {
  if (setting.low == 0 && setting.high == 0) return OkStatus();
  if (value >= setting.low && value <= setting.high) return OkStatus();  // false for NaN
  return InvalidArgument(
      fmt::format("must be between {} and {}, not {}", setting.low, setting.high, value));
}

bool HasChoices(const Setting& setting) {
  return std::string_view(setting.values).find('|') != std::string_view::npos;
}

Status CheckChoice(const Setting& setting, std::string_view text) {
  if (!HasChoices(setting)) return OkStatus();
  std::string_view left = setting.values;
  std::string listed;
  while (true) {
    const size_t bar = left.find('|');
    const std::string_view choice = left.substr(0, bar);
    if (choice == text) return OkStatus();
    listed += fmt::format("{}{}", listed.empty() ? "" : ", ", choice);
    if (bar == std::string_view::npos) break;
    left.remove_prefix(bar + 1);
  }
  return InvalidArgument(fmt::format("must be one of {}, not \"{}\"", listed, text));
}

Result<int64_t> ParseInteger(const Setting& setting, std::string_view text) {
  SC_ASSIGN_OR_RETURN(const int64_t value, ParseNumber<int64_t>(text, "a whole number"));
  SC_RETURN_IF_ERROR(CheckRange(setting, static_cast<double>(value)));
  return value;
}

Result<double> ParseReal(const Setting& setting, std::string_view text) {
  SC_ASSIGN_OR_RETURN(const double value, ParseNumber<double>(text, "a number"));
  SC_RETURN_IF_ERROR(CheckRange(setting, value));
  return value;
}

// "8G", "512MiB", "1000".
Result<ByteSize> ParseBytes(const Setting& setting, std::string_view text) {
  constexpr const char* kWhat = "a size such as 512M or 8G";
  std::string_view digits = text;
  if (digits.ends_with("iB")) {
    digits.remove_suffix(2);
  } else if (digits.ends_with("B")) {
    digits.remove_suffix(1);
  }
  int shift = 0;
  const size_t unit = digits.empty() ? std::string_view::npos
                                     : std::string_view("KMGT").find(digits.back() & ~0x20);
  if (unit != std::string_view::npos) {
    shift = 10 * (static_cast<int>(unit) + 1);
    digits.remove_suffix(1);
  }
  auto number = ParseNumber<int64_t>(digits, kWhat);
  if (!number.ok()) return InvalidArgument(fmt::format("must be {}, not \"{}\"", kWhat, text));
  const double value = std::ldexp(static_cast<double>(*number), shift);
  SC_RETURN_IF_ERROR(CheckRange(setting, value));
  return ByteSize{static_cast<int64_t>(value)};
}

// One overload for each alternative of SettingField.
struct Setter {
  const Setting& setting;
  std::string_view text;
  Settings& settings;

  template <typename T>
  Status Put(Result<T> value, auto field) const {
    if (!value.ok()) return value.status();
    settings.*field = std::move(*value);
    return OkStatus();
  }

  Status operator()(bool Settings::*field) const {
    settings.*field = true;
    return OkStatus();
  }
  Status operator()(int64_t Settings::*field) const {
    return Put(ParseInteger(setting, text), field);
  }
  Status operator()(std::optional<int64_t> Settings::*field) const {
    return Put(ParseInteger(setting, text), field);
  }
  Status operator()(double Settings::*field) const { return Put(ParseReal(setting, text), field); }
  Status operator()(std::optional<double> Settings::*field) const {
    return Put(ParseReal(setting, text), field);
  }
  Status operator()(ByteSize Settings::*field) const {
    return Put(ParseBytes(setting, text), field);
  }
  Status operator()(std::string Settings::*field) const {
    SC_RETURN_IF_ERROR(CheckChoice(setting, text));
    settings.*field = text;
    return OkStatus();
  }
  Status operator()(std::vector<std::string> Settings::*field) const {
    SC_RETURN_IF_ERROR(CheckChoice(setting, text));
    (settings.*field).emplace_back(text);
    return OkStatus();
  }
};

std::string NamesOf(uint32_t commands) {
  std::vector<std::string_view> names;
  for (const CommandName& command : kCommands) {
    if ((commands & command.command) != 0) names.emplace_back(command.name);
  }
  return fmt::format("{}", fmt::join(names, " "));
}

std::string RangeOf(const Setting& setting) {
  if (setting.low == 0 && setting.high == 0) return "";
  if (setting.high == kInt32 || setting.high == kInt53) return fmt::format(" >= {}", setting.low);
  return fmt::format(" {}..{}", setting.low, setting.high);
}

}  // namespace

std::span<const Setting> SettingsTable() { return kSettings; }

bool IsArgument(const Setting& setting) { return setting.flag[0] != '-'; }

bool IsSwitch(const Setting& setting) {
  return std::holds_alternative<bool Settings::*>(setting.field);
}

bool IsList(const Setting& setting) {
  return std::holds_alternative<std::vector<std::string> Settings::*>(setting.field);
}

std::string_view SettingName(const Setting& setting) {
  std::string_view name = setting.flag;
  if (name.front() == '[') return name.substr(1, name.size() - 2);
  if (name.starts_with("--")) return name.substr(0, name.find(','));
  return name.substr(name.find(',') + 1);  // "-n,--max-tokens"
}

Settings InitialSettings(Command command) {
  Settings settings;
  for (const Setting& setting : kSettings) {
    if ((setting.commands & command) == 0 || setting.initial[0] == '\0') continue;
    SC_CHECK(SetFromText(setting, setting.initial, settings).ok());
  }
  return settings;
}

std::optional<std::string> EnvironmentValue(const Setting& setting) {
  if (setting.environment[0] == '\0') return std::nullopt;
  const char* text = std::getenv(setting.environment);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return text;
}

Status SetFromText(const Setting& setting, std::string_view text, Settings& settings) {
  return std::visit(Setter{setting, text, settings}, setting.field);
}

std::string DescribeSettings() {
  std::string out =
      fmt::format("{:<26} {:<26} {:<11} {}\n", "flag", "value", "default", "commands");
  for (const Setting& setting : kSettings) {
    const std::string value = IsSwitch(setting) ? "-" : setting.values + RangeOf(setting);
    out +=
        fmt::format("{:<26} {:<26} {:<11} {}\n", setting.flag, value,
                    setting.initial[0] == '\0' ? "-" : setting.initial, NamesOf(setting.commands));
    out += fmt::format("    {}\n", setting.help);
    if (setting.environment[0] != '\0') {
      out += fmt::format("    (environment: {})\n", setting.environment);
    }
  }
  return out;
}

}  // namespace seacliff
