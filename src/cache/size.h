// How large the cache is: pages, slots and snapshots from limits or from bytes. Integers only.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tensor/paged_view.h"

namespace seacliff {

constexpr int64_t PagesOf(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// The most pages that `tokens` consecutive tokens can touch.
constexpr int64_t PagesTouched(int64_t tokens) {
  return tokens == 0 ? 0 : (tokens + kPageTokens - 2) / kPageTokens + 1;
}

// Window pages of a live sequence: between steps those of window - 1 tokens, and one that fills.
constexpr int64_t WindowNeed(int64_t window) { return PagesTouched(window - 1) + 1; }
// Window pages of a snapshot: those of the window - 1 tokens before a page's first token.
constexpr int64_t SnapshotWindow(int64_t window) { return PagesOf(window - 1); }

struct CacheSize {
  int32_t window_pages = 0, compressed_pages = 0, slots = 0;
  int32_t snapshots = 0;  // 0: no prefix is kept
};

// Bytes over all layers of one window page, one compressed page, one slot, and the rows of one
// snapshot (its window pages are counted with the others).
struct CacheUnitBytes {
  int64_t window_page = 0, compressed_page = 0, slot = 0, snapshot = 0;
};

struct CacheLimits {
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;
  int64_t max_model_len = 0;    // 0: chosen
  int64_t max_positions = 0;    // the model's own limit
  int64_t kv_cache_memory = 0;  // bytes; 0: chosen
  int64_t window = kPageTokens;
  int64_t spare = 0;  // pages of each kind and slots that no sequence gets, in bytes alone
  bool prefix_caching = true;
};

struct SizedCache {
  CacheSize size;
  int64_t max_model_len = 0;
  int64_t bytes = 0;
};

// Tokens a sequence gets on average when neither a length nor a memory size is given.
inline constexpr int64_t kDefaultTokensPerSequence = 16384;
// Compressed pages for each snapshot, where these are many: 8 K tokens.
inline constexpr int64_t kPagesPerSnapshot = 64;

// Bytes of a cache of this size with `spare` more pages of each kind and slots.
int64_t CacheBytes(const CacheSize& size, const CacheUnitBytes& unit, int64_t spare);

// The least memory that holds the windows and snapshots of max_num_seqs sequences and one of them
// at its full max_model_len (at one page if that is 0).
int64_t LeastCacheBytes(const CacheLimits& limits, const CacheUnitBytes& unit);

// Sizes the cache. Window pages and slots always serve max_num_seqs sequences. Compressed pages:
// what kv_cache_memory leaves; without it, max_num_seqs times max_model_len; without either,
// max_num_seqs times kDefaultTokensPerSequence, which one sequence may use alone. Snapshots: two a
// sequence, or one for every kPagesPerSnapshot compressed pages if that is more; each adds its
// window pages. A max_model_len of 0 becomes the longest sequence that the model and the cache
// take. Errors name the setting.
Result<SizedCache> SizeCache(const CacheLimits& limits, const CacheUnitBytes& unit);

}  // namespace seacliff
