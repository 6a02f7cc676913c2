// The settings table as CLI11 options, and the way of one request through the engine.
#include "tools/cmd_common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <semaphore>
#include <utility>

#include "base/file_map.h"
#include "base/json.h"
#include "base/log.h"
#include "checkpoint/progress_bar.h"
#include "kernels/machine.h"
#include "serve/banned_tokens.h"
#include "serve/mailbox.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using simdjson::dom::object;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The option of one row; its values go to `settings` while the line is parsed.
CLI::Option* AddOption(CLI::App& command, const Setting& setting, Settings& settings) {
  const std::string names = IsArgument(setting) ? std::string(SettingName(setting)) : setting.flag;
  if (IsSwitch(setting)) {
    return command.add_flag_callback(
        names, [&] { (void)SetFromText(setting, "", settings); }, setting.help);
  }
  CLI::Option* option = command.add_option(
      names,
      [&](const CLI::results_t& values) {
        for (const std::string& value : values) {
          if (!SetFromText(setting, value, settings).ok()) return false;
        }
        return true;
      },
      setting.help);
  option->check([&setting](const std::string& value) {
    Settings scratch;
    return SetFromText(setting, value, scratch).message();
  });
  option->type_name(IsArgument(setting) ? "" : setting.values);
  if (setting.initial[0] != '\0') option->default_str(setting.initial);
  if (IsArgument(setting) && setting.flag[0] != '[') option->required();
  option->multi_option_policy(IsList(setting) ? CLI::MultiOptionPolicy::TakeAll
                                              : CLI::MultiOptionPolicy::TakeLast);
  return option;
}

using Options = std::vector<std::pair<const Setting*, CLI::Option*>>;

Status ReadEnvironment(const Options& options, Settings& settings) {
  for (const auto& [setting, option] : options) {
    if (option->count() > 0) continue;
    const auto text = EnvironmentValue(*setting);
    if (!text) continue;
    if (const Status status = SetFromText(*setting, *text, settings); !status.ok()) {
      return Status(status.code(), fmt::format("{}: {}", setting->environment, status.message()));
    }
  }
  return OkStatus();
}

// A field of generation_config.json, where neither a flag nor null stands.
Status ReadDefault(object from, std::string_view key, bool given, auto& value) {
  if (given) return OkStatus();
  SC_ASSIGN_OR_RETURN(const double number, JsonGetOr<double>(from, key, value));
  value = static_cast<std::remove_reference_t<decltype(value)>>(number);
  return OkStatus();
}

Status ReadGenerationConfig(const Settings& settings, SamplingParams& sampling) {
  const std::string path = settings.dir + "/generation_config.json";
  if (settings.generation_config != "auto" || !std::filesystem::exists(path)) return OkStatus();
  SC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text, path));
  object from;
  if (document.root().get<object>().get(from) != simdjson::SUCCESS) {
    return InvalidArgument(path + ": must be a JSON object");
  }
  const auto read = [&]() -> Status {
    const Settings& s = settings;
    SC_RETURN_IF_ERROR(
        ReadDefault(from, "temperature", s.temperature.has_value(), sampling.temperature));
    SC_RETURN_IF_ERROR(ReadDefault(from, "top_p", s.top_p.has_value(), sampling.top_p));
    SC_RETURN_IF_ERROR(ReadDefault(from, "top_k", s.top_k.has_value(), sampling.top_k));
    SC_RETURN_IF_ERROR(ReadDefault(from, "min_p", s.min_p.has_value(), sampling.min_p));
    return ReadDefault(from, "repetition_penalty", s.repetition_penalty.has_value(),
                       sampling.repetition_penalty);
  };
  const Status status = read();
  if (!status.ok()) return Status(status.code(), fmt::format("{}: {}", path, status.message()));
  return OkStatus();
}

}  // namespace

void AddCommand(CLI::App& app, Command command, const char* name, const char* help, Status& status,
                std::function<Status(const Settings&)> run) {
  CLI::App* sub = app.add_subcommand(name, help);
  auto settings = std::make_shared<Settings>(InitialSettings(command));
  Options options;
  for (const Setting& setting : SettingsTable()) {
    if ((setting.commands & command) == 0) continue;
    options.emplace_back(&setting, AddOption(*sub, setting, *settings));
  }
  sub->callback([&status, settings, options = std::move(options), run = std::move(run)] {
    status = ReadEnvironment(options, *settings);
    if (!status.ok()) return;
    InitLog(settings->log_level.c_str());
    status = run(*settings);
  });
}

EngineOptions EngineOptionsOf(const Settings& settings) {
  EngineOptions options;
  options.model_dir = settings.dir;
  options.load_format = settings.load_format;
  options.numerics = settings.numerics;
  options.output_projection = settings.output_projection;
  options.repack_cache = settings.repack_cache;
  options.device = settings.device;
  options.kernels = settings.kernels;
  SetRanks(settings, options);
  options.threads = static_cast<int32_t>(settings.threads);
  options.max_model_len = static_cast<int32_t>(settings.max_model_len);
  options.max_num_seqs = static_cast<int32_t>(settings.max_num_seqs);
  options.max_num_batched_tokens = static_cast<int32_t>(settings.max_num_batched_tokens);
  if (settings.max_waiting > 0) options.max_waiting = static_cast<int32_t>(settings.max_waiting);
  options.long_prefill_token_threshold =
      static_cast<int32_t>(settings.long_prefill_token_threshold);
  options.prefix_caching = !settings.no_prefix_caching;
  options.kv_cache_memory = settings.kv_cache_memory.value;
  options.gpu_memory_utilization = settings.gpu_memory_utilization;
  options.seed = static_cast<uint64_t>(settings.seed.value_or(0));
  return options;
}

Status FollowNode0(const Settings& settings) {
  return Engine::Follow(EngineOptionsOf(settings), ShowProgress());
}

std::string MachineName(const Settings& settings) {
  if (!settings.machine.empty()) return settings.machine;
  const Machine machine = InspectMachine();
  const bool on_cpu = settings.device == "cpu" ||
                      (settings.device == "auto" && settings.numerics == "exact") ||
                      machine.gpus.empty();
  if (on_cpu) return machine.cpu;
  const std::string& name = machine.gpus.front().name;
  const int64_t gpus = settings.tensor_parallel_size;
  if (settings.echo_ranks) return fmt::format("{}, one rank of {}", name, gpus);
  return gpus == 1 ? name : fmt::format("{}x {}", gpus, name);
}

Result<SamplingParams> SamplingOf(const Settings& settings) {
  SamplingParams sampling;
  SC_RETURN_IF_ERROR(ReadGenerationConfig(settings, sampling));
  const auto take = [](const auto& given, auto& value) {
    if (given) value = static_cast<std::remove_reference_t<decltype(value)>>(*given);
  };
  take(settings.temperature, sampling.temperature);
  take(settings.top_p, sampling.top_p);
  take(settings.top_k, sampling.top_k);
  take(settings.min_p, sampling.min_p);
  take(settings.repetition_penalty, sampling.repetition_penalty);
  sampling.presence_penalty = static_cast<float>(settings.presence_penalty);
  sampling.frequency_penalty = static_cast<float>(settings.frequency_penalty);
  return sampling;
}

Result<ChatProfile> ProfileOf(const Settings& settings) {
  if (settings.chat_profile == "auto") return DetectChatProfile(settings.dir);
  return ParseChatProfile(settings.chat_profile);
}

Result<ChatEffortChoice> EffortOf(const Settings& settings) {
  ChatEffortChoice choice;
  if (!settings.reasoning_effort.empty()) {
    SC_ASSIGN_OR_RETURN(choice, ParseChatEffort(settings.reasoning_effort));
  }
  // An effort alone asks for reasoning too.
  choice.thinking = choice.thinking && (settings.think || !settings.reasoning_effort.empty());
  return choice;
}

Result<std::string> PromptOf(const Settings& settings) {
  if (!settings.prompt_file.empty()) return ReadFile(settings.prompt_file);
  if (!settings.prompt.empty()) return settings.prompt;
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

ChatMessage NewMessage(std::string role, std::string content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

Result<LoadedModel> LoadModel(const Settings& settings) {
  SC_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(settings.dir));
  SC_ASSIGN_OR_RETURN(const ChatProfile profile, ProfileOf(settings));
  SC_ASSIGN_OR_RETURN(SamplingParams sampling, SamplingOf(settings));
  SC_ASSIGN_OR_RETURN(auto engine, Engine::Load(EngineOptionsOf(settings), ShowProgress()));
  LoadedModel model{std::move(tokenizer), profile, std::move(sampling), std::move(engine)};
  model.sampling.logit_bias = serve::BannedTokens(model.tokenizer, model.engine->vocab_size());
  if (settings.seed) model.sampling.seed = static_cast<uint64_t>(*settings.seed);
  return model;
}

std::string ReplyTally::Describe() const {
  // The first token's time is the prompt's; the rate is of those after it.
  const double rest = seconds - first_token_seconds;
  const std::string rate =
      tokens > 1 && rest > 0 ? fmt::format(", {:.1f} tok/s", static_cast<double>(tokens - 1) / rest)
                             : "";
  return fmt::format("{} tokens{}, first token after {:.2f} s ({} tokens of prompt)", tokens, rate,
                     first_token_seconds, prompt_tokens);
}

Result<ReplyTally> FollowReply(const LoadedModel& model, Request request,
                               const std::function<bool(int32_t id)>& on_token,
                               const std::function<bool()>& stopped) {
  constexpr std::chrono::milliseconds kLook{50};
  ReplyTally tally;
  tally.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const RequestId id = request.id = model.engine->NextId();

  std::counting_semaphore<> filled(0);
  serve::Mailbox mailbox([&filled] { filled.release(); });
  const auto begin = Clock::now();
  SC_RETURN_IF_ERROR(model.engine->Submit(std::move(request),
                                          [&mailbox](const Event& event) { mailbox.Put(event); }));

  bool enough = false, ended = false;
  Status error;
  std::vector<Event> events;
  while (!ended) {  // also after Cancel, so that no event comes when the mailbox is gone
    const bool any = filled.try_acquire_for(kLook);
    if (!enough && stopped()) {
      enough = true;
      model.engine->Cancel(id);
    }
    if (!any) continue;
    mailbox.TakeAll(&events);
    for (const Event& event : events) {
      for (const Token& token : event.tokens) {
        if (enough) break;
        if (tally.tokens++ == 0) tally.first_token_seconds = SecondsSince(begin);
        tally.seconds = SecondsSince(begin);
        if (on_token(token.id)) continue;
        enough = true;
        model.engine->Cancel(id);
      }
      if (event.finish == Finish::kError) error = event.error;
      ended = ended || event.finish != Finish::kNone;
    }
  }
  if (!error.ok()) return error;
  return tally;
}

ReplyPrinter::ReplyPrinter() : terminal_(isatty(STDOUT_FILENO) == 1) {}

void ReplyPrinter::EndReasoning() {
  if (!reasoning_) return;
  std::fputs(terminal_ ? "\x1b[0m\n\n" : "\n</think>\n", stdout);
  reasoning_ = false;
}

void ReplyPrinter::Print(const ReplyDelta& delta) {
  if (delta.part == ReplyPart::kReasoning) {
    if (!reasoning_) std::fputs(terminal_ ? "\x1b[2m" : "<think>\n", stdout);
    reasoning_ = true;
  } else {
    EndReasoning();
  }
  std::fwrite(delta.text.data(), 1, delta.text.size(), stdout);
  line_open_ = delta.text.back() != '\n';
  std::fflush(stdout);
}

void ReplyPrinter::Print(const std::vector<ReplyDelta>& deltas) {
  for (const ReplyDelta& delta : deltas) Print(delta);
}

void ReplyPrinter::Finish() {
  EndReasoning();
  if (line_open_) std::fputc('\n', stdout);
  line_open_ = false;
  std::fflush(stdout);
}

}  // namespace seacliff
