// Fuzz target: the body of POST /v1/chat/completions, from its bytes to the ids of the prompt, in
// every profile. Whatever a client sends, the control tokens of the prompt are the template's. The
// other routes' readers see the same bytes.
#include <optional>
#include <string>
#include <vector>

#include "serve/requests.h"
#include "serve/service.h"
#include "tests/fuzz/fuzz.h"
#include "text/chat_render.h"
#include "text/chat_turns.h"
#include "text/testing_tokenizer.h"

namespace seacliff {
namespace {

using serve::ChatRequest;
using serve::PromptContext;

const Tokenizer& TheTokenizer() {
  static const Tokenizer tokenizer = testing_tokenizer::Make();
  return tokenizer;
}

const serve::ServeOptions& TheOptions() {
  static const serve::ServeOptions options = [] {
    serve::ServeOptions made;
    made.model_names = {"m"};
    return made;
  }();
  return options;
}

std::vector<int32_t> AddedIds(const std::vector<int32_t>& ids) {
  std::vector<int32_t> added;
  for (const int32_t id : ids) {
    if (TheTokenizer().IsAdded(id)) added.push_back(id);
  }
  return added;
}

// The control tokens that the template wrote, in order, and whether a client's text could be taken
// for a part of one.
struct Template {
  std::vector<int32_t> control;
  bool benign = true;
};
Template OfTemplate(const RenderedPrompt& prompt) {
  Template found;
  std::string run;
  const auto end_run = [&] {
    const auto ids = AddedIds(TheTokenizer().Encode(run, true));
    found.control.insert(found.control.end(), ids.begin(), ids.end());
    run.clear();
  };
  for (const TextSegment& segment : prompt.segments) {
    if (segment.trusted) {
      run += segment.text;
      continue;
    }
    if (segment.text.empty()) continue;
    end_run();
    const bool has_mark = segment.text.find_first_of("<>") != std::string::npos ||
                          segment.text.find("｜") != std::string::npos;
    found.benign = found.benign && !has_mark;
  }
  end_run();
  return found;
}

void CheckPrompt(const ChatRequest& request, ChatProfile profile, const std::vector<int32_t>& ids) {
  ChatOptions options = request.chat;
  options.profile = profile;
  auto turns = MakeTurns(request.messages, options);
  FUZZ_REQUIRE(turns.ok());
  const RenderedPrompt prompt = RenderTurns(std::move(turns).value(), options);
  const Template expected = OfTemplate(prompt);
  FUZZ_REQUIRE(AddedIds(ids) == expected.control);
  const std::string text = prompt.Text();
  FUZZ_REQUIRE(TheTokenizer().Decode(ids) == text);
  if (expected.benign) FUZZ_REQUIRE(TheTokenizer().Encode(text, true) == ids);
}

void RequireClientFault(const serve::ApiError& error) {
  FUZZ_REQUIRE(error.http_status >= 400 && error.http_status < 500);
  FUZZ_REQUIRE(!error.message.empty());
  FUZZ_REQUIRE(!ErrorBody(error).empty());
}

void RequireJsonObject(const std::string& text) {
  const auto document = JsonDocument::Parse(text, "text");
  FUZZ_REQUIRE(document.ok() && document->root().is_object());
}

// What is passed on as it was spelt is what was parsed.
void CheckSpelling(const ChatRequest& request) {
  FUZZ_REQUIRE(request.tools.tools.size() == request.chat.tools.size());
  for (const std::string& tool : request.chat.tools) RequireJsonObject(tool);
  for (const GrammarTool& tool : request.tools.tools) {
    FUZZ_REQUIRE(!tool.name.empty());
    if (!tool.parameters.empty()) RequireJsonObject(tool.parameters);
  }
  if (!request.chat.response_format.empty()) RequireJsonObject(request.chat.response_format);
  using Kind = serve::OutputRule::Kind;
  const Kind kind = request.common.output.kind;
  const bool has_text = kind == Kind::kJsonSchema || kind == Kind::kRegex || kind == Kind::kGrammar;
  FUZZ_REQUIRE(has_text == !request.common.output.text.empty());
  FUZZ_REQUIRE((kind == Kind::kChoice) == !request.common.output.choices.empty());
}

void CheckOtherRoutes(const PromptContext& context, std::string_view body) {
  const serve::Prepared completion = PrepareCompletion(context, body, "");
  if (completion.error.any()) {
    RequireClientFault(completion.error);
  } else {
    FUZZ_REQUIRE(!completion.spec.prompts.empty() && completion.spec.common.max_tokens >= 0);
  }
  std::string answer;
  const serve::ApiError detokenized = AnswerDetokenize(context, body, &answer);
  if (detokenized.any()) RequireClientFault(detokenized);
}

void Check(std::string_view body, ChatProfile profile) {
  static serve::SampledTurns turns(1 << 20);
  const PromptContext context{
      &TheOptions(), &TheTokenizer(), profile, 1 << 20, TheTokenizer().vocab_size(), &turns};
  const serve::Prepared prepared = PrepareChat(context, body, "");
  if (profile == ChatProfile::kPreview) CheckOtherRoutes(context, body);
  if (prepared.error.any()) return RequireClientFault(prepared.error);
  FUZZ_REQUIRE(prepared.spec.prompts.size() == 1);
  const std::vector<int32_t>& ids = prepared.spec.prompts[0].ids;
  FUZZ_REQUIRE(!ids.empty());
  FUZZ_REQUIRE(prepared.spec.common.n >= 1 && prepared.spec.common.max_tokens != 0);
  ChatRequest request;
  FUZZ_REQUIRE(!ParseChatRequest(body, TheOptions(), &request).any());
  CheckSpelling(request);
  if (!request.input_ids.empty()) {
    FUZZ_REQUIRE(ids == request.input_ids);
    return;
  }
  CheckPrompt(request, profile, ids);
  std::string answer;
  FUZZ_REQUIRE(!AnswerTokenize(context, body, &answer).any() || request.messages.empty() ||
               body.find("prompt") != std::string_view::npos);
}

}  // namespace
}  // namespace seacliff

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seacliff;  // NOLINT: one function
  const std::string_view body = fuzz::AsText(data, size);
  for (const ChatProfile profile : {ChatProfile::kPreview, ChatProfile::k0731, ChatProfile::kV41}) {
    Check(body, profile);
  }
  return 0;
}
