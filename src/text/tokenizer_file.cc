// Reading of tokenizer.json, the format of the Hugging Face tokenizers library.
#include "text/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/json.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr int64_t kMaxId = 1 << 24;  // far above any vocabulary; keeps tables small on bad files

// The alphabet of byte-level BPE: each byte is written as one printable character. The bytes that
// are printable in Latin-1 stand for themselves, the others for U+0100 and up, in order.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    byte_of_.fill(-1);
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      byte_of_[printable ? byte : next++] = static_cast<int16_t>(byte);
    }
  }

  // The bytes that `text` stands for; none if it has a character outside the alphabet.
  std::optional<std::string> Bytes(std::string_view text) const {
    std::string bytes;
    for (size_t at = 0; at < text.size();) {
      int length;
      const uint32_t code_point = utf8::DecodeValid(text.data() + at, &length);
      if (code_point >= byte_of_.size() || byte_of_[code_point] < 0) return std::nullopt;
      bytes.push_back(static_cast<char>(byte_of_[code_point]));
      at += length;
    }
    return bytes;
  }

 private:
  std::array<int16_t, 324> byte_of_;
};

Status Want(bool holds, std::string_view field, std::string_view what) {
  if (holds) return OkStatus();
  return Unimplemented(fmt::format("{}: {}", field, what));
}

bool IsNull(object parent, std::string_view key) {
  element value;
  return parent.at_key(key).get(value) != simdjson::SUCCESS || value.is_null();
}

bool IsFalse(object parent, std::string_view key) {
  bool value = false;
  element found;
  if (parent.at_key(key).get(found) != simdjson::SUCCESS || found.is_null()) return true;
  return found.get(value) == simdjson::SUCCESS && !value;
}

bool IsNullOrEmpty(object parent, std::string_view key) {
  std::string_view text;
  element value;
  if (parent.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return true;
  return value.get(text) == simdjson::SUCCESS && text.empty();
}

// Patterns are written with CR and LF either as themselves or as escapes.
std::string EscapeLineEnds(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\r') {
      out += "\\r";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

class Reader {
 public:
  explicit Reader(object root) : root_(root) {}

  Status Read() {
    SC_RETURN_IF_ERROR(CheckNormalizer());
    SC_RETURN_IF_ERROR(CheckPreTokenizer());
    SC_RETURN_IF_ERROR(CheckOuter("post_processor"));
    SC_RETURN_IF_ERROR(CheckOuter("decoder"));
    SC_RETURN_IF_ERROR(ReadAdded());
    SC_RETURN_IF_ERROR(ReadModel());
    return OkStatus();
  }

  TokenizerFile Take() { return std::move(file_); }

 private:
  Status CheckNormalizer() {
    if (IsNull(root_, "normalizer")) return OkStatus();
    SC_ASSIGN_OR_RETURN(object normalizer, JsonGet<object>(root_, "normalizer"));
    SC_ASSIGN_OR_RETURN(std::string_view type,
                        JsonGet<std::string_view>(normalizer, "type", "normalizer"));
    SC_RETURN_IF_ERROR(Want(type == "Sequence", "normalizer.type",
                            fmt::format("\"{}\" is not supported, only an empty Sequence", type)));
    SC_ASSIGN_OR_RETURN(array list, JsonGet<array>(normalizer, "normalizers", "normalizer"));
    return Want(list.size() == 0, "normalizer.normalizers", "only an empty list is supported");
  }

  Status CheckPreTokenizer() {
    SC_ASSIGN_OR_RETURN(object outer, JsonGet<object>(root_, "pre_tokenizer"));
    SC_ASSIGN_OR_RETURN(std::string_view type,
                        JsonGet<std::string_view>(outer, "type", "pre_tokenizer"));
    SC_RETURN_IF_ERROR(
        Want(type == "Sequence", "pre_tokenizer.type",
             fmt::format("\"{}\" is not supported, only the Sequence of DeepSeek-V4", type)));
    SC_ASSIGN_OR_RETURN(array list, JsonGet<array>(outer, "pretokenizers", "pre_tokenizer"));
    SC_RETURN_IF_ERROR(Want(list.size() == 4, "pre_tokenizer.pretokenizers",
                            "only three Split and one ByteLevel are supported"));
    for (size_t i = 0; i < 4; ++i) {
      const std::string path = fmt::format("pre_tokenizer.pretokenizers[{}]", i);
      object step;
      if (list.at(i).get(step) != simdjson::SUCCESS) {
        return InvalidArgument(path + ": must be an object");
      }
      SC_RETURN_IF_ERROR(i < 3 ? CheckSplit(step, i, path) : CheckByteLevel(step, path));
    }
    return OkStatus();
  }

  static Status CheckSplit(object step, size_t index, const std::string& path) {
    SC_ASSIGN_OR_RETURN(std::string_view type, JsonGet<std::string_view>(step, "type", path));
    SC_RETURN_IF_ERROR(Want(type == "Split", path + ".type", "only Split is supported here"));
    SC_ASSIGN_OR_RETURN(std::string_view behavior,
                        JsonGet<std::string_view>(step, "behavior", path));
    SC_RETURN_IF_ERROR(
        Want(behavior == "Isolated", path + ".behavior", "only Isolated is supported"));
    SC_RETURN_IF_ERROR(Want(IsFalse(step, "invert"), path + ".invert", "must be false"));
    SC_ASSIGN_OR_RETURN(object pattern, JsonGet<object>(step, "pattern", path));
    SC_ASSIGN_OR_RETURN(std::string_view regex,
                        JsonGet<std::string_view>(pattern, "Regex", path + ".pattern"));
    return Want(EscapeLineEnds(regex) == Pretokenizer::kPatterns[index], path + ".pattern.Regex",
                "is not the pattern of DeepSeek-V4, the only one supported");
  }

  static Status CheckByteLevel(object step, const std::string& path) {
    SC_ASSIGN_OR_RETURN(std::string_view type, JsonGet<std::string_view>(step, "type", path));
    SC_RETURN_IF_ERROR(
        Want(type == "ByteLevel", path + ".type", "only ByteLevel is supported here"));
    SC_RETURN_IF_ERROR(
        Want(IsFalse(step, "add_prefix_space"), path + ".add_prefix_space", "must be false"));
    bool use_regex = true;  // the library's default
    element value;
    if (step.at_key("use_regex").get(value) == simdjson::SUCCESS) {
      if (value.get(use_regex) != simdjson::SUCCESS) {
        return InvalidArgument(path + ".use_regex: must be true or false");
      }
    }
    return Want(!use_regex, path + ".use_regex", "must be false");
  }

  // The post-processor must add no ids, and the decoder must be the inverse of the byte alphabet.
  Status CheckOuter(std::string_view field) {
    if (IsNull(root_, field)) return OkStatus();
    SC_ASSIGN_OR_RETURN(object step, JsonGet<object>(root_, field));
    SC_ASSIGN_OR_RETURN(std::string_view type, JsonGet<std::string_view>(step, "type", field));
    return Want(type == "ByteLevel", fmt::format("{}.type", field),
                fmt::format("\"{}\" is not supported, only ByteLevel", type));
  }

  Status ReadAdded() {
    if (IsNull(root_, "added_tokens")) return OkStatus();
    SC_ASSIGN_OR_RETURN(array list, JsonGet<array>(root_, "added_tokens"));
    size_t index = 0;
    for (const element item : list) {
      const std::string path = fmt::format("added_tokens[{}]", index++);
      object fields;
      if (item.get(fields) != simdjson::SUCCESS) {
        return InvalidArgument(path + ": must be an object");
      }
      SC_RETURN_IF_ERROR(ReadAddedToken(fields, path));
    }
    std::sort(file_.added.begin(), file_.added.end(),
              [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
    return OkStatus();
  }

  Status ReadAddedToken(object fields, const std::string& path) {
    SC_ASSIGN_OR_RETURN(int64_t id, JsonGet<int64_t>(fields, "id", path));
    SC_ASSIGN_OR_RETURN(std::string_view text, JsonGet<std::string_view>(fields, "content", path));
    if (id < 0 || id >= kMaxId) return InvalidArgument(path + ".id: out of range");
    if (text.empty()) return InvalidArgument(path + ".content: must not be empty");
    for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
      SC_RETURN_IF_ERROR(Want(IsFalse(fields, flag), path + "." + flag, "must be false"));
    }
    SC_ASSIGN_OR_RETURN(bool special, JsonGetOr<bool>(fields, "special", false, path));
    SC_ASSIGN_OR_RETURN(bool normalized, JsonGetOr<bool>(fields, "normalized", !special, path));
    if (!added_ids_.emplace(id, text).second) {
      return InvalidArgument(fmt::format("{}.id: {} stands there twice", path, id));
    }
    if (!added_texts_.emplace(text, id).second) {
      return InvalidArgument(fmt::format("{}.content: \"{}\" stands there twice", path, text));
    }
    file_.added.push_back({static_cast<int32_t>(id), std::string(text), special, normalized});
    return OkStatus();
  }

  Status ReadModel() {
    SC_ASSIGN_OR_RETURN(object model, JsonGet<object>(root_, "model"));
    SC_ASSIGN_OR_RETURN(std::string_view type,
                        JsonGetOr<std::string_view>(model, "type", "BPE", "model"));
    SC_RETURN_IF_ERROR(Want(type == "BPE", "model.type", "only BPE is supported"));
    SC_RETURN_IF_ERROR(Want(IsNull(model, "dropout"), "model.dropout", "must be null"));
    SC_RETURN_IF_ERROR(Want(IsNull(model, "unk_token"), "model.unk_token", "must be null"));
    SC_RETURN_IF_ERROR(
        Want(IsFalse(model, "byte_fallback"), "model.byte_fallback", "must be false"));
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      SC_RETURN_IF_ERROR(
          Want(IsNullOrEmpty(model, affix), std::string("model.") + affix, "must be null"));
    }
    SC_ASSIGN_OR_RETURN(file_.ignore_merges,
                        JsonGetOr<bool>(model, "ignore_merges", false, "model"));
    SC_ASSIGN_OR_RETURN(object vocab, JsonGet<object>(model, "vocab", "model"));
    SC_RETURN_IF_ERROR(ReadVocab(vocab));
    SC_ASSIGN_OR_RETURN(array merges, JsonGet<array>(model, "merges", "model"));
    return ReadMerges(merges);
  }

  Status ReadVocab(object vocab) {
    std::unordered_set<int64_t> ids;
    file_.byte_ids.fill(-1);
    for (const auto& [key, value] : vocab) {
      int64_t id;
      if (value.get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxId) {
        return InvalidArgument(fmt::format("model.vocab[\"{}\"]: must be an id", key));
      }
      if (!ids.insert(id).second) {
        return InvalidArgument(fmt::format("model.vocab[\"{}\"]: id {} is taken", key, id));
      }
      if (!vocab_ids_.emplace(key, static_cast<int32_t>(id)).second) {
        return InvalidArgument(fmt::format("model.vocab[\"{}\"]: stands there twice", key));
      }
      // An added token may stand in the vocabulary too, under the same id.
      const auto same_id = added_ids_.find(id);
      const auto same_text = added_texts_.find(key);
      if (same_id != added_ids_.end() && same_text != added_texts_.end() &&
          same_text->second == id) {
        continue;
      }
      if (same_id != added_ids_.end() || same_text != added_texts_.end()) {
        return InvalidArgument(
            fmt::format("model.vocab[\"{}\"]: id {} contradicts added_tokens", key, id));
      }
      auto bytes = alphabet_.Bytes(key);
      if (!bytes || bytes->empty()) {
        return InvalidArgument(
            fmt::format("model.vocab[\"{}\"]: is not written in the byte-level alphabet", key));
      }
      if (bytes->size() == 1) {
        file_.byte_ids[static_cast<uint8_t>((*bytes)[0])] = static_cast<int32_t>(id);
      }
      file_.vocab.push_back({static_cast<int32_t>(id), *std::move(bytes)});
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (file_.byte_ids[byte] < 0) {
        return InvalidArgument(fmt::format("model.vocab: no token for the byte {:#04x}", byte));
      }
    }
    std::sort(file_.vocab.begin(), file_.vocab.end(),
              [](const auto& a, const auto& b) { return a.id < b.id; });
    return OkStatus();
  }

  Status ReadMerges(array merges) {
    std::unordered_set<uint64_t> pairs;
    file_.merges.reserve(merges.size());
    size_t index = 0;
    std::string joined;
    for (const element item : merges) {
      const auto error = [index](std::string_view what) {
        return InvalidArgument(fmt::format("model.merges[{}]: {}", index, what));
      };
      std::string_view left, right;
      if (!SplitMerge(item, &left, &right)) {
        return error("must be \"left right\" or [\"left\", \"right\"]");
      }
      joined.assign(left).append(right);
      Bpe::Merge merge;
      for (auto [text, id] : {std::pair<std::string_view, int32_t*>{left, &merge.left},
                              {right, &merge.right},
                              {joined, &merge.result}}) {
        const auto found = vocab_ids_.find(text);
        if (found == vocab_ids_.end()) {
          return error(fmt::format("\"{}\" is not in model.vocab", text));
        }
        *id = found->second;
      }
      const uint64_t pair =
          uint64_t{static_cast<uint32_t>(merge.left)} << 32 | static_cast<uint32_t>(merge.right);
      if (!pairs.insert(pair).second) return error("stands there twice");
      file_.merges.push_back(merge);
      ++index;
    }
    return OkStatus();
  }

  static bool SplitMerge(element item, std::string_view* left, std::string_view* right) {
    std::string_view text;
    array pair;
    if (item.get(text) == simdjson::SUCCESS) {
      const size_t space = text.find(' ');
      if (space == std::string_view::npos) return false;
      *left = text.substr(0, space);
      *right = text.substr(space + 1);
    } else if (item.get(pair) == simdjson::SUCCESS) {
      if (pair.size() != 2 || pair.at(0).get(*left) != simdjson::SUCCESS ||
          pair.at(1).get(*right) != simdjson::SUCCESS) {
        return false;
      }
    } else {
      return false;
    }
    return !left->empty() && !right->empty();
  }

  object root_;
  TokenizerFile file_;
  ByteAlphabet alphabet_;
  std::unordered_map<int64_t, std::string_view> added_ids_;
  std::unordered_map<std::string_view, int64_t> added_texts_;
  std::unordered_map<std::string_view, int32_t> vocab_ids_;
};

}  // namespace

Result<TokenizerFile> ReadTokenizerFile(std::string_view json, const std::string& name) {
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(json, name));
  object root;
  if (document.root().get(root) != simdjson::SUCCESS) {
    return InvalidArgument(name + ": must be a JSON object");
  }
  Reader reader(root);
  const Status status = reader.Read();
  if (!status.ok()) return Status(status.code(), fmt::format("{}: {}", name, status.message()));
  return reader.Take();
}

}  // namespace seacliff
