// The cache as integers: who holds which window page, compressed page and slot. No memory here
// (cache/store has it); ids index into every layer's memory of their kind.
//
// A page covers 128 tokens. Compressed pages of a sequence stay until it ends; a window page goes
// as soon as no query can see it: the query at position p sees positions p - window + 1 .. p
// (spec/model.md 2.5). A slot holds the compressor rows of one live sequence.
//
// Nothing ever runs out: a sequence is let in when its whole possible need fits what is not yet
// promised to others. Its compressed need is every page of its greatest length. Its window need:
// between steps it holds the pages of window - 1 tokens, at most 2 of them; a step that brings it c
// tokens adds fewer than c / 128 + 1. So 3 pages a sequence, and step_tokens / 128 more that all
// share, cover any way of dividing a step among the sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/page_pool.h"
#include "tensor/paged_view.h"

namespace seacliff {

constexpr int64_t PagesOf(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

struct CacheSize {
  int32_t window_pages = 0, compressed_pages = 0, slots = 0;
};

struct PageNeed {
  int32_t window = 0, compressed = 0;
};

// A live sequence's part of the cache. Row entry p is the page of tokens 128 p .. 128 p + 127, or
// -1 where the page was given back.
struct SequencePages {
  int32_t slot = -1;
  PageNeed need;  // what was promised to it
  std::vector<int32_t> window, compressed;
  int32_t first_window = 0;  // rows before it are -1
};

class CachePlan {
 public:
  // `step_tokens`: the most tokens of one step, over all sequences.
  CachePlan(const CacheSize& size, int64_t window, int64_t step_tokens);

  // What a sequence of at most `tokens` tokens can come to need.
  PageNeed NeedOf(int64_t tokens) const;
  bool Fits(const PageNeed& need) const;       // beside those that are in
  bool FitsAlone(const PageNeed& need) const;  // in an empty cache

  // Promises `need`, which must fit, and takes a slot.
  SequencePages Open(const PageNeed& need);
  // Pages for all positions below `tokens`.
  void Extend(int64_t tokens, SequencePages& pages);
  // Gives back the window pages that no query at position `computed` or later sees.
  void Trim(int64_t computed, SequencePages& pages);
  // Gives everything back.
  void Close(SequencePages& pages);

  const PagePool& window_pool() const { return window_; }
  const PagePool& compressed_pool() const { return compressed_; }
  const PagePool& slots() const { return slots_; }

  // Checks the books: every taken page and slot is held by exactly one of the open sequences, and
  // the promises add up. For tests; visits every page.
  void CheckBooks(std::span<const SequencePages* const> open) const;

 private:
  int64_t window_tokens_;
  int32_t window_need_;    // pages that a long sequence is promised
  int32_t window_shared_;  // pages that the tokens of a step share
  PageNeed promised_;      // over all open sequences
  PagePool window_, compressed_, slots_;
};

// Bytes over all layers of one window page, one compressed page and one slot.
struct CacheUnitBytes {
  int64_t window_page = 0, compressed_page = 0, slot = 0;
};

struct CacheLimits {
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;
  int64_t max_model_len = 0;    // 0: chosen
  int64_t max_positions = 0;    // the model's own limit
  int64_t kv_cache_memory = 0;  // bytes; 0: chosen
  int64_t window = kPageTokens;
};

struct SizedCache {
  CacheSize size;
  int64_t max_model_len = 0;
  int64_t bytes = 0;
};

// Tokens a sequence gets on average when neither a length nor a memory size is given.
inline constexpr int64_t kDefaultTokensPerSequence = 16384;

// Sizes the cache. Window pages and slots always serve max_num_seqs sequences. Compressed pages:
// what kv_cache_memory leaves; without it, max_num_seqs times max_model_len; without either,
// max_num_seqs times kDefaultTokensPerSequence, which one sequence may use alone. A max_model_len
// of 0 becomes the longest sequence that the model and the cache take. Errors name the setting.
Result<SizedCache> SizeCache(const CacheLimits& limits, const CacheUnitBytes& unit);

}  // namespace seacliff
