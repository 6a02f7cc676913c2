// seacliff tokenize: text to token ids and back, as the engine sees them. Nothing is added to the
// text: no begin-of-sentence token.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>

#include "serve/json_writer.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

Status Decode(const Tokenizer& tokenizer, std::string_view text) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  std::vector<int32_t> ids;
  while (true) {
    const size_t begin = text.find_first_not_of(kBetween);
    if (begin == std::string_view::npos) break;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(kBetween));
    text.remove_prefix(word.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || stop != word.data() + word.size() || id < 0 ||
        id >= tokenizer.vocab_size()) {
      return InvalidArgument(
          fmt::format("'{}' is not a token id in [0, {})", word, tokenizer.vocab_size()));
    }
    ids.push_back(id);
  }
  const std::string bytes = tokenizer.Decode(ids);
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  return OkStatus();
}

void Print(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool ids_only) {
  std::string out;
  for (const int32_t id : ids) {
    if (ids_only) {
      out += fmt::format("{}{}", out.empty() ? "" : " ", id);
    } else {
      out += fmt::format("{:>7}  ", id);
      serve::AppendJsonString(tokenizer.TokenBytes(id), &out);
      out += '\n';
    }
  }
  if (ids_only) out += '\n';
  std::fwrite(out.data(), 1, out.size(), stdout);
}

Status Tokenize(const Settings& settings) {
  SC_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(settings.dir));
  SC_ASSIGN_OR_RETURN(const std::string text, PromptOf(settings));
  if (settings.decode) return Decode(tokenizer, text);
  Print(tokenizer, tokenizer.Encode(text, settings.special), settings.ids_only);
  return OkStatus();
}

}  // namespace

void AddTokenize(CLI::App& app, Status& status) {
  AddCommand(app, kTokenize, "tokenize", "Show the tokens of a text", status, Tokenize);
}

}  // namespace seacliff
