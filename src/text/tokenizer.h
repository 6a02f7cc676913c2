// The inside of Tokenizer: tables made once from a TokenizerFile. Public face: seacliff/text.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seacliff/text.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/specials.h"
#include "text/tokenizer_file.h"

namespace seacliff {

struct Tokenizer::Impl {
  explicit Impl(TokenizerFile file);

  // The id of a role, if this tokenizer has its token.
  std::optional<int32_t> Id(SpecialRole role) const { return roles[static_cast<size_t>(role)]; }

  // Appends the ids of one stretch of text. `text` is valid UTF-8.
  struct Trust {
    size_t begin = 0, end = 0;  // bytes where added tokens are recognised
  };
  // `trusted` are ascending, disjoint and not adjacent.
  void Encode(std::string_view text, std::span<const Trust> trusted,
              std::vector<int32_t>* ids) const;
  // As above, without added tokens.
  void EncodePlain(std::string_view text, Bpe::Scratch* scratch, std::vector<int32_t>* ids) const;

  enum class Kind : uint8_t { kNone, kOrdinary, kAdded, kAddedSpecial };

  std::string bytes;                          // of all tokens, one after the other
  std::vector<std::string_view> token_bytes;  // by id
  std::vector<Kind> kinds;                    // by id
  std::vector<AddedToken> added;
  // Added tokens that the file marks as not normalized are looked for before the others.
  AddedTokenMatcher first_matcher, second_matcher;
  std::unordered_map<std::string_view, int32_t> added_ids;
  Bpe bpe;
  std::optional<int32_t> roles[static_cast<size_t>(SpecialRole::kCount)];
  std::vector<int32_t> end_ids, never_sampled_ids;
};

}  // namespace seacliff
