// seacliff generate: one prompt, one reply on standard output as it is generated, one line of
// figures on standard error.
#include <cstdio>

#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

bool Never() { return false; }

Request NewRequest(const Settings& settings, const LoadedModel& model,
                   std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = static_cast<int32_t>(settings.max_tokens);
  request.stop_token_ids = model.tokenizer.end_ids();
  request.ignore_eos = settings.ignore_eos;
  request.sampling = model.sampling;
  return request;
}

Result<ReplyTally> Complete(const Settings& settings, const LoadedModel& model,
                            const std::string& prompt) {
  PlainReply reply(model.tokenizer, settings.stop);
  ReplyPrinter printer;
  const auto print = [&](std::string text) {
    if (!text.empty()) printer.Print({ReplyPart::kContent, std::move(text)});
  };
  // The prompt is the user's own: special tokens that it spells are meant.
  Request request = NewRequest(settings, model, model.tokenizer.Encode(prompt, true));
  auto tally = FollowReply(
      model, std::move(request),
      [&](int32_t id) {
        print(reply.Feed(id));
        return !reply.done();
      },
      Never);
  print(reply.Finish());
  printer.Finish();
  return tally;
}

Result<ReplyTally> Answer(const Settings& settings, const LoadedModel& model,
                          const std::string& prompt) {
  std::vector<ChatMessage> messages;
  if (!settings.system.empty()) messages.push_back(NewMessage("system", settings.system));
  messages.push_back(NewMessage("user", prompt));
  SC_ASSIGN_OR_RETURN(const ChatEffortChoice effort, EffortOf(settings));
  ChatOptions options;
  options.profile = model.profile;
  options.thinking = effort.thinking;
  options.effort = effort.effort;
  SC_ASSIGN_OR_RETURN(EncodedPrompt encoded, EncodeChat(model.tokenizer, messages, options));

  ReplyOptions reply_options;
  reply_options.starts_in_reasoning = encoded.starts_in_reasoning;
  reply_options.stop = settings.stop;
  reply_options.ignore_end = settings.ignore_eos;
  ReplyParser parser(model.tokenizer, std::move(reply_options));
  ReplyPrinter printer;
  auto tally = FollowReply(
      model, NewRequest(settings, model, std::move(encoded.ids)),
      [&](int32_t id) {
        printer.Print(parser.Feed(id));
        return !parser.done();
      },
      Never);
  printer.Print(parser.Finish());
  printer.Finish();
  return tally;
}

Status Generate(const Settings& settings) {
  if (settings.node_rank != 0) return FollowNode0(settings);
  SC_ASSIGN_OR_RETURN(const std::string prompt, PromptOf(settings));
  if (prompt.empty()) return InvalidArgument("--prompt: is empty");
  const bool chat = settings.chat || settings.think;
  if (!chat && !settings.system.empty()) return InvalidArgument("--system: needs --chat");
  SC_ASSIGN_OR_RETURN(const LoadedModel model, LoadModel(settings));
  SC_ASSIGN_OR_RETURN(const ReplyTally tally,
                      chat ? Answer(settings, model, prompt) : Complete(settings, model, prompt));
  std::fprintf(stderr, "%s\n", tally.Describe().c_str());
  return OkStatus();
}

}  // namespace

void AddGenerate(CLI::App& app, Status& status) {
  AddCommand(app, kGenerate, "generate", "Continue a prompt, or answer it with --chat", status,
             Generate);
}

}  // namespace seacliff
