// Which rendering rules a checkpoint wants, and the words for profiles and efforts.
#include <fmt/format.h>

#include <filesystem>
#include <iterator>
#include <system_error>

#include "base/file_map.h"
#include "base/json.h"
#include "seacliff/text.h"

namespace seacliff {
namespace {

constexpr struct {
  ChatProfile profile;
  const char* name;
} kProfiles[] = {
    {ChatProfile::kPreview, "preview"},
    {ChatProfile::k0731, "0731"},
    {ChatProfile::kV41, "v41"},
};

constexpr struct {
  std::string_view word;
  ChatEffortChoice choice;
} kEfforts[] = {
    {"none", {false, ChatEffort::kDefault}}, {"off", {false, ChatEffort::kDefault}},
    {"minimal", {true, ChatEffort::kLow}},   {"low", {true, ChatEffort::kLow}},
    {"medium", {true, ChatEffort::kHigh}},   {"high", {true, ChatEffort::kHigh}},
    {"xhigh", {true, ChatEffort::kHigh}},    {"max", {true, ChatEffort::kMax}},
    {"ultra", {true, ChatEffort::kMax}},
};

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace

Result<ChatProfile> ParseChatProfile(std::string_view name) {
  std::string known;
  for (const auto& row : kProfiles) {
    if (name == row.name) return row.profile;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  return InvalidArgument(fmt::format("chat profile \"{}\": must be one of {}", name, known));
}

const char* ChatProfileName(ChatProfile profile) {
  return kProfiles[static_cast<size_t>(profile)].name;
}

Result<ChatEffortChoice> ParseChatEffort(std::string_view word) {
  std::string known;
  for (const auto& row : kEfforts) {
    if (word == row.word) return row.choice;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.word);
  }
  return InvalidArgument(fmt::format("reasoning_effort \"{}\": must be one of {}", word, known));
}

Result<ChatProfile> DetectChatProfile(const std::string& model_dir) {
  if (Exists(model_dir + "/encoding/encoding_dsv41.py")) return ChatProfile::kV41;
  const std::string encoder = model_dir + "/encoding/encoding_dsv4.py";
  if (Exists(encoder)) {
    SC_ASSIGN_OR_RETURN(const std::string text, ReadFile(encoder));
    if (text.find("REASONING_EFFORT_PROMPTS") != std::string::npos) return ChatProfile::k0731;
    if (text.find("REASONING_EFFORT_MAX") != std::string::npos) return ChatProfile::kPreview;
  }
  const std::string config = model_dir + "/config.json";
  if (!Exists(config)) return ChatProfile::kPreview;
  SC_ASSIGN_OR_RETURN(const std::string json, ReadFile(config));
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, config));
  simdjson::dom::object fields;
  if (document.root().get(fields) != simdjson::SUCCESS) {
    return InvalidArgument(config + ": must be a JSON object");
  }
  SC_ASSIGN_OR_RETURN(const std::string_view type,
                      JsonGetOr<std::string_view>(fields, "model_type", "", config));
  if (type == "deepseek_v41") return ChatProfile::kV41;
  for (const auto& [key, value] : fields) {
    if (key.starts_with("dspark_")) return ChatProfile::k0731;
  }
  return ChatProfile::kPreview;
}

}  // namespace seacliff
