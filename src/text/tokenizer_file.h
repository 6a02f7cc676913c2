// What a tokenizer.json says, checked and turned into bytes and ids. It neither encodes nor knows
// what a special token means.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/added_tokens.h"
#include "text/bpe.h"

namespace seacliff {

struct TokenizerFile {
  struct Token {
    int32_t id = 0;
    std::string bytes;
  };
  std::vector<Token> vocab;  // ascending ids, each once; without the added tokens
  std::vector<Bpe::Merge> merges;
  std::array<int32_t, 256> byte_ids{};
  bool ignore_merges = false;     // whole pieces in the vocabulary are never merged
  std::vector<AddedToken> added;  // ascending ids, each once
};

// `name` stands for the file in errors, which also name the field. Unimplemented for a pipeline
// that this library does not have; InvalidArgument for everything else that is wrong.
Result<TokenizerFile> ReadTokenizerFile(std::string_view json, const std::string& name);

}  // namespace seacliff
