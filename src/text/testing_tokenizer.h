// For tests only: a small tokenizer.json in the format of DeepSeek-V4, made on the spot.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "seacliff/text.h"
#include "text/json_text.h"
#include "text/pretokenizer.h"
#include "text/specials.h"
#include "text/utf8.h"

namespace seacliff::testing_tokenizer {

// A byte as the byte-level alphabet writes it.
inline std::string Letter(int byte) {
  int next = 256;
  for (int b = 0; b <= byte; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (b == byte) {
      std::string out;
      utf8::AppendCodePoint(printable ? b : next, &out);
      return out;
    }
    if (!printable) ++next;
  }
  return {};
}

inline std::string Letters(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += Letter(static_cast<uint8_t>(byte));
  return out;
}

inline std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

inline std::string PreTokenizerJson() {
  std::string out = R"({"type": "Sequence", "pretokenizers": [)";
  for (const std::string_view pattern : Pretokenizer::kPatterns) {
    out += R"({"type": "Split", "pattern": {"Regex": )" + Quoted(pattern) +
           R"(}, "behavior": "Isolated", "invert": false}, )";
  }
  return out + R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
}

// Bytes have ids 0 to 255, merge i makes 256 + i, then come the special tokens and `added`. A merge
// is two byte strings.
inline std::string Json(const std::vector<std::pair<std::string, std::string>>& merges,
                        const std::vector<std::string>& added = {}) {
  std::string vocab, merge_list, added_list;
  int32_t id = 0;
  const auto word = [&](std::string_view bytes) {
    vocab += (id > 0 ? ", " : "") + Quoted(Letters(bytes)) + ": " + std::to_string(id);
    ++id;
  };
  for (int byte = 0; byte < 256; ++byte) word(std::string(1, static_cast<char>(byte)));
  for (const auto& [left, right] : merges) {
    if (!merge_list.empty()) merge_list += ", ";
    merge_list += '[' + Quoted(Letters(left)) + ", " + Quoted(Letters(right)) + ']';
    word(left + right);
  }
  const auto add = [&](std::string_view text, bool special) {
    if (!added_list.empty()) added_list += ", ";
    added_list += R"({"id": )" + std::to_string(id++) + R"(, "content": )" + Quoted(text) +
                  R"(, "special": )" + (special ? "true" : "false") + R"(, "normalized": )" +
                  (special ? "false" : "true") + "}";
  };
  for (const SpecialToken& row : SpecialTokens()) {
    add(row.text, row.role == SpecialRole::kBeginOfSentence ||
                      row.role == SpecialRole::kEndOfSentence || row.role == SpecialRole::kPad);
  }
  for (const std::string& text : added) add(text, false);
  return R"({"version": "1.0", "normalizer": {"type": "Sequence", "normalizers": []}, )"
         R"("pre_tokenizer": )" +
         PreTokenizerJson() + R"(, "decoder": {"type": "ByteLevel"}, "added_tokens": [)" +
         added_list +
         R"(], "model": {"type": "BPE", "dropout": null, "unk_token": null, )"
         R"("vocab": {)" +
         vocab + R"(}, "merges": [)" + merge_list + "]}}";
}

inline Tokenizer Make(const std::vector<std::string>& added = {}) {
  auto tokenizer = Tokenizer::FromJson(Json({{"a", "b"},
                                             {"l", "l"},
                                             {"H", "e"},
                                             {"ll", "o"},
                                             {"He", "llo"},
                                             {" ", " "},
                                             {".", "<"},
                                             {"\n", "\n"},
                                             {".", "\n\n"},
                                             {"\xE4", "\xBD"},
                                             {">", "\n"}},
                                            added),
                                       "test");
  SC_CHECK(tokenizer.ok());
  return std::move(tokenizer).value();
}

}  // namespace seacliff::testing_tokenizer
