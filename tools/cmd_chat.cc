// seacliff chat: a conversation in the terminal, or in a pipe with one message a line. Keeps the
// history; Ctrl-C ends the reply and not the program.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "serve/json_writer.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

std::atomic<bool> interrupted = false;  // written by the signal handler, hence not a member
static_assert(std::atomic<bool>::is_always_lock_free);

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: it must get a waiting read to return
}

constexpr const char* kHelp =
    "/new        forget the conversation\n"
    "/think      reason before replying, or no longer\n"
    "/save FILE  write the conversation as JSON messages\n"
    "/quit       leave (also Ctrl-D); Ctrl-C ends a reply\n";

class Chat {
 public:
  Chat(const Settings& settings, const LoadedModel& model, const ChatEffortChoice& effort)
      : settings_(settings), model_(model), thinking_(effort.thinking), effort_(effort.effort) {
    Restart();
  }

  Status Run() {
    if (terminal_) std::fputs("/help lists the commands.\n", stdout);
    while (const auto line = ReadLine()) {
      if (line->empty()) continue;
      if (line->front() != '/') {
        Report(Reply(*line));
      } else if (*line == "/quit" || *line == "/exit") {
        break;
      } else {
        Report(Do(*line));
      }
    }
    return worst_;
  }

 private:
  // A line without its end; nothing at the end of input.
  std::optional<std::string> ReadLine() {
    while (true) {
      if (terminal_) std::fputs("> ", stdout);
      std::fflush(stdout);
      char* text = nullptr;
      size_t capacity = 0;
      errno = 0;
      const ssize_t length = getline(&text, &capacity, stdin);
      std::string line(text == nullptr || length < 0 ? "" : text);
      std::free(text);
      if (length >= 0) {
        while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
        return line;
      }
      if (terminal_) std::fputc('\n', stdout);
      if (errno != EINTR) return std::nullopt;
      std::clearerr(stdin);  // Ctrl-C at the prompt: a new line
      interrupted = false;
    }
  }

  // On a terminal an error is something to read and go on; in a pipe it is the exit status too.
  void Report(const Status& status) {
    if (status.ok()) return;
    if (terminal_) {
      std::fprintf(stderr, "seacliff: %s\n", status.message().c_str());
    } else if (worst_.ok()) {
      worst_ = status;
    }
  }

  void Restart() {
    messages_.clear();
    if (settings_.system.empty()) return;
    messages_.push_back(NewMessage("system", settings_.system));
  }

  Status Do(const std::string& line) {
    if (line == "/new") {
      Restart();
      return OkStatus();
    }
    if (line == "/think") {
      thinking_ = !thinking_;
      std::fprintf(stderr, "reasoning is %s\n", thinking_ ? "on" : "off");
      return OkStatus();
    }
    if (line == "/help") {
      std::fputs(kHelp, stderr);
      return OkStatus();
    }
    constexpr std::string_view kSave = "/save ";
    if (line.starts_with(kSave)) return Save(line.substr(kSave.size()));
    return InvalidArgument(fmt::format("{}: no such command (/help)", line));
  }

  Status Save(const std::string& path) const {
    serve::JsonWriter json;
    json.BeginArray();
    for (const ChatMessage& message : messages_) {
      json.BeginObject().Field("role", message.role).Field("content", message.content);
      if (message.has_reasoning) json.Field("reasoning_content", message.reasoning);
      json.EndObject();
    }
    json.EndArray();
    std::ofstream file(path);
    file << json.text() << '\n';
    file.close();
    if (!file) return InvalidArgument(path + ": cannot be written");
    std::fprintf(stderr, "%zu messages in %s\n", messages_.size(), path.c_str());
    return OkStatus();
  }

  // The user's message and the reply join the conversation together, or neither does.
  Status Reply(const std::string& text) {
    messages_.push_back(NewMessage("user", text));
    const Status status = ReplyToLast();
    if (!status.ok()) messages_.pop_back();
    return status;
  }

  Status ReplyToLast() {
    ChatOptions options;
    options.profile = model_.profile;
    options.thinking = thinking_;
    options.effort = effort_;
    SC_ASSIGN_OR_RETURN(EncodedPrompt prompt, EncodeChat(model_.tokenizer, messages_, options));
    Request request;
    request.prompt = std::move(prompt.ids);
    request.max_tokens = static_cast<int32_t>(
        settings_.max_tokens > 0 ? settings_.max_tokens : model_.engine->max_model_len());
    request.stop_token_ids = model_.tokenizer.end_ids();
    request.sampling = model_.sampling;

    ReplyOptions reply_options;
    reply_options.starts_in_reasoning = prompt.starts_in_reasoning;
    reply_options.stop = settings_.stop;
    ReplyParser parser(model_.tokenizer, std::move(reply_options));
    ReplyPrinter printer;
    ChatMessage reply = NewMessage("assistant", "");
    const auto take = [&](const std::vector<ReplyDelta>& deltas) {
      printer.Print(deltas);
      for (const ReplyDelta& delta : deltas) {
        const bool reasoning = delta.part == ReplyPart::kReasoning;
        (reasoning ? reply.reasoning : reply.content) += delta.text;
        reply.has_reasoning = reply.has_reasoning || reasoning;
      }
    };
    interrupted = false;
    const auto tally = FollowReply(
        model_, std::move(request),
        [&](int32_t id) {
          take(parser.Feed(id));
          return !parser.done();
        },
        [] { return interrupted.load(); });
    interrupted = false;
    take(parser.Finish());
    printer.Finish();
    if (!tally.ok()) return tally.status();
    if (terminal_) std::fprintf(stderr, "\x1b[2m[%s]\x1b[0m\n", tally->Describe().c_str());
    messages_.push_back(std::move(reply));
    return OkStatus();
  }

  const Settings& settings_;
  const LoadedModel& model_;
  bool thinking_;
  ChatEffort effort_;
  const bool terminal_ = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  std::vector<ChatMessage> messages_;
  Status worst_;
};

Status RunChat(const Settings& settings) {
  if (settings.node_rank != 0) return FollowNode0(settings);
  SC_ASSIGN_OR_RETURN(const ChatEffortChoice effort, EffortOf(settings));
  SC_ASSIGN_OR_RETURN(const LoadedModel model, LoadModel(settings));
  CatchInterrupts();
  return Chat(settings, model, effort).Run();
}

}  // namespace

void AddChat(CLI::App& app, Status& status) {
  AddCommand(app, kChat, "chat", "Talk with a model in the terminal", status, RunChat);
}

}  // namespace seacliff
