// The grammars that were made lately, by what asked for them, so that a request for one of them
// waits behind no compilation.
#pragma once

#include <cstddef>
#include <list>
#include <string>

#include "serve/rules.h"

namespace seacliff::serve {

class KnownGrammars {
 public:
  // `memory`: bytes that they may take; the oldest go first.
  explicit KnownGrammars(size_t memory) : memory_(memory) {}

  // Gives the rules their grammar; false if it is not known.
  bool Find(RuleSpec* rules);
  void Add(const RuleSpec& rules);

 private:
  struct Entry {
    std::string key;
    Grammar grammar;
    size_t bytes;
  };

  std::list<Entry>::iterator Place(const std::string& key);

  const size_t memory_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;  // the latest first
};

}  // namespace seacliff::serve
