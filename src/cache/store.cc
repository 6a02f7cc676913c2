// Allocation of the caches' memory.
#include "cache/store.h"

namespace seacliff {
namespace {

struct Formats {
  EntryFormat kv, index;
  explicit Formats(bool exact)
      : kv(exact ? EntryFormat::kKvF32 : EntryFormat::kKvFp8),
        index(exact ? EntryFormat::kIndexF32 : EntryFormat::kIndexFp4) {}
};

}  // namespace

CacheStore::CacheStore(const ModelConfig& config, bool exact, int64_t layers, int64_t window_pages,
                       int64_t compressed_pages, int64_t slots, const Allocate& allocate,
                       int64_t snapshots)
    : allocate_(allocate) {
  const Formats formats(exact);
  for (int64_t i = 0; i < layers; ++i) {
    const int64_t ratio = config.ratios[static_cast<size_t>(i)];
    LayerCache cache;
    cache.window = Paged(formats.kv, config.head_dim, kPageTokens, window_pages);
    if (ratio != 0) {
      const int64_t page_len = kPageTokens / ratio;
      cache.compressed = Paged(formats.kv, config.head_dim, page_len, compressed_pages);
      cache.state = Rows(slots, StateRows(ratio), ratio, config.head_dim);
      if (ratio == 4) {
        cache.index = Paged(formats.index, config.index_dim, page_len, compressed_pages);
        cache.index_state = Rows(slots, StateRows(ratio), ratio, config.index_dim);
      }
      if (ratio == 4 && snapshots > 0) {
        cache.kept = Rows(snapshots, kStatePageEnd, ratio, config.head_dim);
        cache.index_kept = Rows(snapshots, kStatePageEnd, ratio, config.index_dim);
      }
    }
    layers_.push_back(cache);
  }
}

int64_t CacheStore::bytes() const {
  int64_t sum = 0;
  for (const Buffer& buffer : buffers_) sum += buffer.bytes();
  return sum;
}

PagedView CacheStore::Paged(EntryFormat format, int64_t dim, int64_t page_len, int64_t pages) {
  PagedView view{nullptr, format, dim, page_len, pages};
  buffers_.push_back(allocate_(view.page_bytes() * pages));
  view.data = static_cast<std::byte*>(buffers_.back().data());
  return view;
}

View<float, 4> CacheStore::Rows(int64_t units, int64_t rows, int64_t ratio, int64_t dim) {
  const int64_t width = ModelConfig::Overlap(ratio) * dim;
  buffers_.push_back(allocate_(units * rows * 2 * width * 4));
  return buffers_.back().As<float, 4>({units, rows, 2, width});
}

}  // namespace seacliff
