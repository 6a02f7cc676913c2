// Finds added tokens ("<think>") in text: leftmost, and longest among those that begin there. It
// does not know which of them mean what (text/specials.h does).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace seacliff {

struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = false;
  // As in the file. Without a normalizer it only says which tokens are looked for first: those that
  // are not normalized.
  bool normalized = false;
};

class AddedTokenMatcher {
 public:
  struct Match {
    size_t begin = 0, end = 0;
    int32_t id = 0;
  };

  AddedTokenMatcher() : nodes_(1) {}
  void Add(const AddedToken& token);

  // The first match in `text` at or after `begin` that `allowed_end(i)` lets begin at i: it gives
  // the position up to which a match from i may reach (i itself if none may).
  template <typename AllowedEnd>
  std::optional<Match> Find(std::string_view text, size_t begin, AllowedEnd allowed_end) const {
    for (size_t at = begin; at < text.size(); ++at) {
      if (!starts_[static_cast<uint8_t>(text[at])]) continue;
      if (const auto match = Longest(text.substr(0, allowed_end(at)), at)) return match;
    }
    return std::nullopt;
  }

 private:
  struct Node {
    int32_t id = -1;  // of the token that ends here, -1 if none
    std::vector<std::pair<uint8_t, int32_t>> children;
  };

  std::optional<Match> Longest(std::string_view text, size_t begin) const;
  int32_t Child(int32_t node, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};
};

}  // namespace seacliff
