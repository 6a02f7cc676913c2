// THE storage table: everything the cache keeps, in which format, and what makes it grow. Integers
// only; cache/store has the memory. `seacliff show cache` prints it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "cache/size.h"
#include "config/model_config.h"
#include "tensor/paged_view.h"
#include "tensor/state_rows.h"

namespace seacliff {

// What hands out a storage's memory: pages of the window, pages of compressed entries, or the one
// slot of a live sequence.
enum class CachePool : uint8_t { kWindow, kCompressed, kSlot };

// What one entry is. Rows are the compressor's inputs: a key and a score vector in f32, in both
// numerics (spec/model.md 2.8, 4.3).
enum class CacheEntry : uint8_t { kKv, kIndex, kKvRow, kIndexRow };

inline constexpr int64_t kEveryLayer = -1;

struct Storage {
  const char* name;
  int64_t ratio;  // the layers that have it: those of this compress ratio, or kEveryLayer
  CachePool pool;
  CacheEntry entry;
};

inline constexpr Storage kStorages[] = {
    // name             layers       pool                    entry
    {"window", kEveryLayer, CachePool::kWindow, CacheEntry::kKv},
    {"compressed_4", 4, CachePool::kCompressed, CacheEntry::kKv},
    {"index_4", 4, CachePool::kCompressed, CacheEntry::kIndex},
    {"compressed_128", 128, CachePool::kCompressed, CacheEntry::kKv},
    {"rows_4", 4, CachePool::kSlot, CacheEntry::kKvRow},
    {"index_rows_4", 4, CachePool::kSlot, CacheEntry::kIndexRow},
    {"rows_128", 128, CachePool::kSlot, CacheEntry::kKvRow},
};

// Entries of one layer that a snapshot has a copy of (cache/plan.h).
constexpr int64_t EntriesPerSnapshot(const Storage& storage) {
  return storage.pool == CachePool::kSlot && storage.ratio == 4 ? kStatePageEnd : 0;
}

// How many of the model's layers have it (the MTP layers are not counted).
int64_t StorageLayers(const Storage& storage, const ModelConfig& config);
// Entries of one layer in one page or slot.
int64_t EntriesPerUnit(const Storage& storage);
// Bytes of one entry.
int64_t StorageEntryBytes(const Storage& storage, const ModelConfig& config, bool exact);
// Bytes over all layers of one page of each pool, of one slot and of a snapshot's rows.
CacheUnitBytes UnitBytesOf(const ModelConfig& config, bool exact);

// The table as text; with a config also its layers and its growth in bytes per token. Without one,
// entry sizes are those of head_dim 512 and index_head_dim 128.
std::string DescribeStorages(const ModelConfig* config);

}  // namespace seacliff
