// Looks for any of several byte strings in a stream, one byte at a time (Aho-Corasick), and tells
// how much of the stream's end may still become one of them. It keeps no text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace seacliff {

class PatternWatcher {
 public:
  // Empty patterns are ignored.
  explicit PatternWatcher(const std::vector<std::string>& patterns);

  // Takes the next byte. True if a pattern ends with it; match() is then the longest such one.
  bool Feed(char byte);
  size_t match() const { return static_cast<size_t>(nodes_[state_].match); }  // index
  // Length of the longest end of the stream that is the beginning of a pattern.
  size_t depth() const { return nodes_[state_].depth; }
  void Reset() { state_ = 0; }

 private:
  struct Node {
    std::vector<std::pair<char, int32_t>> children;
    int32_t failure = 0;
    int32_t match = -1;
    size_t depth = 0;
  };

  int32_t Child(int32_t node, char byte) const;
  int32_t Step(int32_t node, char byte) const;

  std::vector<Node> nodes_;
  int32_t state_ = 0;
};

}  // namespace seacliff
