// xgrammar behind a wall: it throws, we do not.
#pragma once

#include <xgrammar/xgrammar.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/grammar.h"

namespace seacliff {

struct Grammar::Impl {
  xgrammar::CompiledGrammar compiled{xgrammar::NullObj{}};
  bool tool_block = false;
};

namespace grammar {

// What rules need to know of a tokenizer.
struct Vocabulary {
  explicit Vocabulary(const Tokenizer& tokenizer);

  int32_t size = 0;
  std::vector<std::string> bytes;  // by id; empty: never in a grammar
  std::vector<int32_t> end_ids, never_sampled_ids;
  std::vector<int32_t> newline_ids;   // "\n" and "\n\n"
  int32_t think_end = -1, dsml = -1;  // -1: has none
  std::vector<uint32_t> reasoning;    // a mask: all but end_ids and never_sampled_ids
};

// Calls `f`, which may throw; its result, or what it threw as a Status with this code.
template <typename F>
auto Guarded(Code code, const F& f) -> Result<decltype(f())> {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return Exhausted("out of memory");
  } catch (const std::exception& e) {
    return Status(code, e.what());
  } catch (...) {
    return Status(code, "an unknown exception");
  }
}

}  // namespace grammar
}  // namespace seacliff
