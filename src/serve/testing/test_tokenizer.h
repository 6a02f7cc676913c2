// A tokenizer for tests of this room: one token a byte and the model's added tokens, so that what a
// scripted reply says is easy to spell, and a character can be cut in half.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/check.h"
#include "seacliff/text.h"
#include "text/pretokenizer.h"

namespace seacliff::serve::testing {

inline std::string Utf8Of(uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

inline std::string TestTokenizerJson() {
  using nlohmann::json;
  json vocab = json::object();
  int id = 3;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    vocab[Utf8Of(printable ? byte : next++)] = id++;
  }
  json added = json::array();
  const auto add = [&](int at, const char* text, bool special) {
    added.push_back({{"id", at},
                     {"content", text},
                     {"special", special},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  };
  add(0, "<｜begin▁of▁sentence｜>", true);
  add(1, "<｜end▁of▁sentence｜>", true);
  add(2, "<｜▁pad▁｜>", true);
  add(id++, "<｜place▁holder▁no▁0｜>", true);
  add(id++, "<｜User｜>", false);
  add(id++, "<｜Assistant｜>", false);
  add(id++, "<think>", false);
  add(id++, "</think>", false);
  add(id++, "｜DSML｜", false);
  add(id++, "<｜latest_reminder｜>", false);
  add(id++, "<|EOT|>", true);
  add(id++, "<｜query｜>", false);
  json steps = json::array();
  for (const auto& pattern : Pretokenizer::kPatterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", std::string(pattern)}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  return json{{"version", "1.0"},
              {"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
              {"post_processor", {{"type", "ByteLevel"}}},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}}
      .dump();
}

inline const Tokenizer& TestTokenizer() {
  static const Tokenizer tokenizer = [] {
    auto loaded = Tokenizer::FromJson(TestTokenizerJson(), "test tokenizer");
    if (!loaded.ok()) std::fprintf(stderr, "%s\n", loaded.status().message().c_str());
    return std::move(loaded).value();
  }();
  return tokenizer;
}

// The ids of a scripted reply; names of added tokens in it count.
inline std::vector<int32_t> Ids(std::string_view text) {
  return TestTokenizer().Encode(text, true);
}

}  // namespace seacliff::serve::testing
