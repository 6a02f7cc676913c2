// The cache as integers; see plan.h.
#include "cache/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace seacliff {
namespace {

// The most pages that `tokens` consecutive tokens can touch.
int64_t PagesTouched(int64_t tokens) {
  return tokens == 0 ? 0 : (tokens + kPageTokens - 2) / kPageTokens + 1;
}

int64_t WindowNeed(int64_t window) { return PagesTouched(window - 1) + 1; }

}  // namespace

CachePlan::CachePlan(const CacheSize& size, int64_t window, int64_t step_tokens)
    : window_tokens_(window),
      window_need_(static_cast<int32_t>(WindowNeed(window))),
      window_shared_(static_cast<int32_t>(PagesOf(step_tokens))),
      window_(size.window_pages),
      compressed_(size.compressed_pages),
      slots_(size.slots) {
  SC_CHECK(window >= 1 && step_tokens >= 1);
}

PageNeed CachePlan::NeedOf(int64_t tokens) const {
  const int32_t pages = static_cast<int32_t>(PagesOf(tokens));
  return {std::min(pages, window_need_), pages};
}

bool CachePlan::Fits(const PageNeed& need) const {
  return slots_.free() > 0 && promised_.window + need.window + window_shared_ <= window_.pages() &&
         promised_.compressed + need.compressed <= compressed_.pages();
}

bool CachePlan::FitsAlone(const PageNeed& need) const {
  return slots_.pages() > 0 && need.window + window_shared_ <= window_.pages() &&
         need.compressed <= compressed_.pages();
}

SequencePages CachePlan::Open(const PageNeed& need) {
  SC_CHECK(Fits(need));
  promised_.window += need.window;
  promised_.compressed += need.compressed;
  SequencePages pages;
  pages.slot = slots_.Take();
  pages.need = need;
  pages.window.reserve(static_cast<size_t>(need.compressed));
  pages.compressed.reserve(static_cast<size_t>(need.compressed));
  return pages;
}

void CachePlan::Extend(int64_t tokens, SequencePages& pages) {
  const size_t rows = static_cast<size_t>(PagesOf(tokens));
  SC_CHECK(rows <= static_cast<size_t>(pages.need.compressed));
  while (pages.compressed.size() < rows) {
    pages.compressed.push_back(compressed_.Take());
    pages.window.push_back(window_.Take());
  }
}

void CachePlan::Trim(int64_t computed, SequencePages& pages) {
  const int64_t first_seen = std::max<int64_t>(0, computed - window_tokens_ + 1);
  const int32_t first_page = static_cast<int32_t>(first_seen / kPageTokens);
  SC_CHECK(static_cast<size_t>(first_page) <= pages.window.size());
  for (; pages.first_window < first_page; ++pages.first_window) {
    int32_t& page = pages.window[static_cast<size_t>(pages.first_window)];
    window_.Release(page);
    page = -1;
  }
}

void CachePlan::Close(SequencePages& pages) {
  for (const int32_t page : pages.window) {
    if (page >= 0) window_.Release(page);
  }
  for (const int32_t page : pages.compressed) compressed_.Release(page);
  slots_.Release(pages.slot);
  promised_.window -= pages.need.window;
  promised_.compressed -= pages.need.compressed;
  pages = SequencePages();
}

void CachePlan::CheckBooks(std::span<const SequencePages* const> open) const {
  std::vector<int32_t> window, compressed, slots;
  PageNeed promised;
  for (const SequencePages* pages : open) {
    for (const int32_t page : pages->window) {
      if (page >= 0) window.push_back(page);
    }
    compressed.insert(compressed.end(), pages->compressed.begin(), pages->compressed.end());
    slots.push_back(pages->slot);
    promised.window += pages->need.window;
    promised.compressed += pages->need.compressed;
  }
  const auto check = [](std::vector<int32_t>& held, const PagePool& pool) {
    std::sort(held.begin(), held.end());
    SC_CHECK(std::adjacent_find(held.begin(), held.end()) == held.end());
    for (const int32_t page : held) SC_CHECK(pool.taken(page));
    SC_CHECK(static_cast<int32_t>(held.size()) == pool.used());
  };
  check(window, window_);
  check(compressed, compressed_);
  check(slots, slots_);
  SC_CHECK(promised.window == promised_.window && promised.compressed == promised_.compressed);
}

Result<SizedCache> SizeCache(const CacheLimits& limits, const CacheUnitBytes& unit) {
  const int64_t seqs = limits.max_num_seqs;
  if (seqs < 1) return InvalidArgument("max_num_seqs must be at least 1");
  if (limits.max_num_batched_tokens < seqs) {
    return InvalidArgument(
        fmt::format("max_num_batched_tokens ({}) must be at least max_num_seqs ({}): a step brings "
                    "every decoding sequence one token",
                    limits.max_num_batched_tokens, seqs));
  }
  if (limits.max_model_len < 0) return InvalidArgument("max_model_len must not be negative");
  if (limits.kv_cache_memory < 0) return InvalidArgument("kv_cache_memory must not be negative");
  if (limits.max_model_len > limits.max_positions) {
    return InvalidArgument(fmt::format("max_model_len ({}) is above the model's limit of {} tokens",
                                       limits.max_model_len, limits.max_positions));
  }

  const int64_t window_pages =
      seqs * WindowNeed(limits.window) + PagesOf(limits.max_num_batched_tokens);
  const int64_t fixed_bytes = window_pages * unit.window_page + seqs * unit.slot;
  // The length that pages are counted by.
  int64_t length = limits.max_model_len;
  if (length == 0) length = std::min(limits.max_positions, kDefaultTokensPerSequence);

  int64_t compressed_pages = seqs * PagesOf(length);
  if (limits.kv_cache_memory != 0 && unit.compressed_page != 0) {
    const int64_t needed = limits.max_model_len == 0 ? 1 : PagesOf(length);
    compressed_pages = (limits.kv_cache_memory - fixed_bytes) / unit.compressed_page;
    if (limits.kv_cache_memory < fixed_bytes + needed * unit.compressed_page) {
      return InvalidArgument(fmt::format(
          "kv_cache_memory ({} bytes) is too small: {} sequences need {} bytes for windows and "
          "compressor rows, and {} tokens need {} more; lower max_num_seqs or max_model_len",
          limits.kv_cache_memory, seqs, fixed_bytes, needed * kPageTokens,
          needed * unit.compressed_page));
    }
  }
  if (std::max(window_pages, compressed_pages) > std::numeric_limits<int32_t>::max() / 2) {
    return InvalidArgument("max_num_seqs and max_model_len ask for too many cache pages");
  }

  SizedCache sized;
  sized.size = {static_cast<int32_t>(window_pages), static_cast<int32_t>(compressed_pages),
                static_cast<int32_t>(seqs)};
  sized.max_model_len = limits.max_model_len;
  if (sized.max_model_len == 0) {
    sized.max_model_len = std::min(limits.max_positions, compressed_pages * kPageTokens);
  }
  sized.bytes = fixed_bytes + compressed_pages * unit.compressed_page;
  return sized;
}

}  // namespace seacliff
