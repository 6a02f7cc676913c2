// The memory behind the caches: one allocation for each layer and storage. Pages and slots are
// handed out elsewhere (cache/plan.h); this only knows where they lie.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/plan.h"
#include "config/model_config.h"
#include "tensor/buffer.h"
#include "tensor/paged_view.h"
#include "tensor/state_rows.h"
#include "tensor/view.h"

namespace seacliff {

// The storages of one layer; those it has no use for are empty.
struct LayerCache {
  PagedView window;
  PagedView compressed, index;
  // [slots, rows, 2, width]: compressor rows (tensor/state_rows.h).
  View<float, 4> state, index_state;
  // [snapshots, 4, 2, width]: of ratio 4 those of a page's last block.
  View<float, 4> kept, index_kept;
};

class CacheStore {
 public:
  // `exact` stores every entry in f32. Layers follow config.ratios: `layers` of them.
  CacheStore(const ModelConfig& config, bool exact, int64_t layers, int64_t window_pages,
             int64_t compressed_pages, int64_t slots, const Allocate& allocate = Buffer::Host,
             int64_t snapshots = 0);

  // Moves a snapshot's rows: calls copy(to, from, bytes) for each piece of memory.
  template <typename Copy>
  void CopyRows(const RowCopy& c, const Copy& copy) const {
    const auto move = [&](const View<float, 4>& state, const View<float, 4>& kept) {
      float* live = state[c.slot][StateRow<int64_t>(4, c.position - kStatePageEnd)].data;
      float* snapshot = kept[c.snapshot].data;
      const int64_t bytes = kept[0].size() * int64_t{sizeof(float)};
      if (c.to_slot) {
        copy(live, snapshot, bytes);
      } else {
        copy(snapshot, live, bytes);
      }
    };
    for (const LayerCache& layer : layers_) {
      if (!layer.kept) continue;  // ratio 4 alone has them
      move(layer.state, layer.kept);
      move(layer.index_state, layer.index_kept);
    }
  }

  int64_t bytes() const;
  const LayerCache& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }

 private:
  PagedView Paged(EntryFormat format, int64_t dim, int64_t page_len, int64_t pages);
  View<float, 4> Rows(int64_t units, int64_t rows, int64_t ratio, int64_t dim);

  Allocate allocate_;

  std::vector<Buffer> buffers_;
  std::vector<LayerCache> layers_;
};

}  // namespace seacliff
