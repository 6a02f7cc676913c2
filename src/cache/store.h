// The memory behind the caches: one allocation for each layer and storage. Pages and slots are
// handed out elsewhere (cache/plan.h); this only knows where they lie.
#pragma once

#include <cstdint>
#include <vector>

#include "config/model_config.h"
#include "tensor/buffer.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

// The storages of one layer; those it has no use for are empty.
struct LayerCache {
  PagedView window;
  PagedView compressed, index;
  // [slots, rows, 2, width]: compressor rows; of ratio 4 those of the snapshots too.
  View<float, 4> state, index_state;
};

class CacheStore {
 public:
  // `exact` stores every entry in f32. Layers follow config.ratios: `layers` of them. Snapshots
  // are numbered after the slots.
  CacheStore(const ModelConfig& config, bool exact, int64_t layers, int64_t window_pages,
             int64_t compressed_pages, int64_t slots, const Allocate& allocate = Buffer::Host,
             int64_t snapshots = 0);

  // What moves a snapshot's rows (cache/plan.h) from one slot or snapshot to another: calls
  // copy(to, from, bytes) for each piece of memory.
  template <typename Copy>
  void CopyRows(int64_t from, int64_t to, const Copy& copy) const {
    for (const LayerCache& layer : layers_) {
      if (!layer.index_state) continue;  // ratio 4 alone has it
      for (const View<float, 4>& state : {layer.state, layer.index_state}) {
        copy(state[to].data, state[from].data, state[0].size() * int64_t{sizeof(float)});
      }
    }
  }

  int64_t bytes() const;
  const LayerCache& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }

 private:
  PagedView Paged(EntryFormat format, int64_t dim, int64_t page_len, int64_t pages);
  View<float, 4> State(int64_t slots, int64_t ratio, int64_t dim);

  Allocate allocate_;

  std::vector<Buffer> buffers_;
  std::vector<LayerCache> layers_;
};

}  // namespace seacliff
