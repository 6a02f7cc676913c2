// The automaton: a trie with failure links, built breadth first.
#include "text/pattern_watcher.h"

namespace seacliff {

PatternWatcher::PatternWatcher(const std::vector<std::string>& patterns) : nodes_(1) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (patterns[i].empty()) continue;
    int32_t node = 0;
    for (const char byte : patterns[i]) {
      int32_t child = Child(node, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_.emplace_back();
        nodes_[child].depth = nodes_[node].depth + 1;
        nodes_[node].children.emplace_back(byte, child);
      }
      node = child;
    }
    if (nodes_[node].match < 0) nodes_[node].match = static_cast<int32_t>(i);
  }
  std::vector<int32_t> queue;
  for (const auto& [byte, child] : nodes_[0].children) queue.push_back(child);
  for (size_t at = 0; at < queue.size(); ++at) {
    const int32_t node = queue[at];
    const int32_t failure = nodes_[node].failure;
    if (nodes_[node].match < 0) nodes_[node].match = nodes_[failure].match;
    for (const auto& [byte, child] : nodes_[node].children) {
      nodes_[child].failure = Step(failure, byte);
      queue.push_back(child);
    }
  }
}

int32_t PatternWatcher::Child(int32_t node, char byte) const {
  for (const auto& [label, child] : nodes_[node].children) {
    if (label == byte) return child;
  }
  return -1;
}

int32_t PatternWatcher::Step(int32_t node, char byte) const {
  while (true) {
    const int32_t child = Child(node, byte);
    if (child >= 0) return child;
    if (node == 0) return 0;
    node = nodes_[node].failure;
  }
}

bool PatternWatcher::Feed(char byte) {
  state_ = Step(state_, byte);
  return nodes_[state_].match >= 0;
}

}  // namespace seacliff
