// A trie over bytes. Few bytes begin an added token, so the scan between them is what costs.
#include "text/added_tokens.h"

namespace seacliff {

int32_t AddedTokenMatcher::Child(int32_t node, uint8_t byte) const {
  for (const auto& [label, child] : nodes_[node].children) {
    if (label == byte) return child;
  }
  return -1;
}

void AddedTokenMatcher::Add(const AddedToken& token) {
  starts_[static_cast<uint8_t>(token.text[0])] = true;
  int32_t node = 0;
  for (const char c : token.text) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = Child(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_[node].children.emplace_back(byte, child);
    }
    node = child;
  }
  nodes_[node].id = token.id;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::Longest(std::string_view text,
                                                                   size_t begin) const {
  std::optional<Match> longest;
  int32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    node = Child(node, static_cast<uint8_t>(text[at]));
    if (node < 0) break;
    if (nodes_[node].id >= 0) longest = Match{begin, at + 1, nodes_[node].id};
  }
  return longest;
}

}  // namespace seacliff
