// A short list, searched from the latest grammar on.
#include "serve/known_grammars.h"

#include <algorithm>
#include <utility>

#include "serve/json_writer.h"

namespace seacliff::serve {
namespace {

constexpr size_t kMostGrammars = 256;

// All that a grammar is made from.
std::string KeyOf(const RuleSpec& rules) {
  JsonWriter key;
  const OutputRule& output = rules.output;
  key.BeginArray().Value(static_cast<int>(output.kind)).Value(output.text).Value(output.strict);
  for (const std::string& choice : output.choices) key.Value(choice);
  const ToolRules& tools = rules.tools;
  key.Value(static_cast<int>(tools.use)).Value(tools.named).Value(tools.one_call);
  for (const GrammarTool& tool : tools.tools) {
    key.Value(tool.name).Value(tool.parameters).Value(tool.strict);
  }
  return key.Take();
}

}  // namespace

std::list<KnownGrammars::Entry>::iterator KnownGrammars::Place(const std::string& key) {
  return std::find_if(entries_.begin(), entries_.end(),
                      [&](const Entry& entry) { return entry.key == key; });
}

bool KnownGrammars::Find(RuleSpec* rules) {
  const auto found = Place(KeyOf(*rules));
  if (found == entries_.end()) return false;
  entries_.splice(entries_.begin(), entries_, found);
  rules->grammar = found->grammar;
  return true;
}

void KnownGrammars::Add(const RuleSpec& rules) {
  Entry entry{KeyOf(rules), *rules.grammar, 0};
  if (Place(entry.key) != entries_.end()) return;
  entry.bytes = entry.key.size() + entry.grammar.bytes();
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  while (bytes_ > memory_ || entries_.size() > kMostGrammars) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

}  // namespace seacliff::serve
