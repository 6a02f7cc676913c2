// Sizing of the cache; see size.h.
#include "cache/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace seacliff {
namespace {

constexpr int64_t kMostPages = std::numeric_limits<int32_t>::max() / 2;

int64_t Snapshots(const CacheLimits& limits, int64_t compressed_pages) {
  if (!limits.prefix_caching) return 0;
  return std::max(2 * limits.max_num_seqs, compressed_pages / kPagesPerSnapshot);
}

// The cache with so many compressed pages, which must be few enough for int32.
CacheSize SizeWith(const CacheLimits& limits, int64_t compressed_pages) {
  const int64_t snapshots = Snapshots(limits, compressed_pages);
  const int64_t window_pages = limits.max_num_seqs * WindowNeed(limits.window) +
                               PagesOf(limits.max_num_batched_tokens) +
                               snapshots * SnapshotWindow(limits.window);
  return {static_cast<int32_t>(window_pages), static_cast<int32_t>(compressed_pages),
          static_cast<int32_t>(limits.max_num_seqs), static_cast<int32_t>(snapshots)};
}

int64_t BytesWith(const CacheLimits& limits, const CacheUnitBytes& unit, int64_t pages) {
  return CacheBytes(SizeWith(limits, pages), unit, limits.spare);
}

// The most compressed pages that `bytes` hold with all that goes with them; 0: not even one.
int64_t PagesIn(const CacheLimits& limits, const CacheUnitBytes& unit, int64_t bytes) {
  int64_t good = 0, bad = std::min(kMostPages, bytes / unit.compressed_page + 1);
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (BytesWith(limits, unit, middle) <= bytes ? good : bad) = middle;
  }
  return good;
}

}  // namespace

int64_t CacheBytes(const CacheSize& size, const CacheUnitBytes& unit, int64_t spare) {
  return (size.window_pages + spare) * unit.window_page +
         (size.compressed_pages + spare) * unit.compressed_page + (size.slots + spare) * unit.slot +
         size.snapshots * unit.snapshot;
}

int64_t LeastCacheBytes(const CacheLimits& limits, const CacheUnitBytes& unit) {
  return BytesWith(limits, unit, std::max<int64_t>(PagesOf(limits.max_model_len), 1));
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

  // The length that pages are counted by.
  int64_t length = limits.max_model_len;
  if (length == 0) length = std::min(limits.max_positions, kDefaultTokensPerSequence);

  int64_t compressed_pages = seqs * PagesOf(length);
  if (compressed_pages > kMostPages) {
    return InvalidArgument("max_num_seqs and max_model_len ask for too many cache pages");
  }
  if (limits.kv_cache_memory != 0 && unit.compressed_page != 0) {
    const int64_t least = LeastCacheBytes(limits, unit);
    if (limits.kv_cache_memory < least) {
      const int64_t fixed = BytesWith(limits, unit, 0);
      return InvalidArgument(fmt::format(
          "kv_cache_memory ({} bytes) is too small: {} sequences need {} bytes for windows, "
          "compressor rows and snapshots, and {} tokens need {} more; lower max_num_seqs or "
          "max_model_len",
          limits.kv_cache_memory, seqs, fixed,
          std::max<int64_t>(PagesOf(limits.max_model_len), 1) * kPageTokens, least - fixed));
    }
    compressed_pages = PagesIn(limits, unit, limits.kv_cache_memory);
  }

  SizedCache sized;
  sized.size = SizeWith(limits, compressed_pages);
  sized.max_model_len = limits.max_model_len;
  if (sized.max_model_len == 0) {
    sized.max_model_len = std::min(limits.max_positions, compressed_pages * kPageTokens);
  }
  sized.bytes = CacheBytes(sized.size, unit, limits.spare);
  return sized;
}

}  // namespace seacliff
