// The storage table's arithmetic and its printed form; see storages.h.
#include "cache/storages.h"

#include <fmt/format.h>

namespace seacliff {
namespace {

const char* PoolName(CachePool pool) {
  switch (pool) {
    case CachePool::kWindow:
      return "window page";
    case CachePool::kCompressed:
      return "compressed page";
    case CachePool::kSlot:
      return "slot";
  }
  return "";
}

const char* FormatName(CacheEntry entry, bool exact) {
  switch (entry) {
    case CacheEntry::kKv:
      return exact ? "kv f32" : "kv fp8";
    case CacheEntry::kIndex:
      return exact ? "index f32" : "index fp4";
    case CacheEntry::kKvRow:
    case CacheEntry::kIndexRow:
      return "row f32";
  }
  return "";
}

}  // namespace

int64_t StorageLayers(const Storage& storage, const ModelConfig& config) {
  if (storage.ratio == kEveryLayer) return config.layers;
  int64_t layers = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    if (config.ratios[static_cast<size_t>(layer)] == storage.ratio) ++layers;
  }
  return layers;
}

int64_t EntriesPerUnit(const Storage& storage) {
  switch (storage.pool) {
    case CachePool::kWindow:
      return kPageTokens;
    case CachePool::kCompressed:
      return kPageTokens / storage.ratio;
    case CachePool::kSlot:
      return StateRows(storage.ratio);
  }
  return 0;
}

int64_t StorageEntryBytes(const Storage& storage, const ModelConfig& config, bool exact) {
  // A row is a key vector and a score vector, each as wide as the compressor's projections.
  const int64_t row_values = 2 * ModelConfig::Overlap(storage.ratio);
  switch (storage.entry) {
    case CacheEntry::kKv:
      return EntryBytes(exact ? EntryFormat::kKvF32 : EntryFormat::kKvFp8, config.head_dim);
    case CacheEntry::kIndex:
      return EntryBytes(exact ? EntryFormat::kIndexF32 : EntryFormat::kIndexFp4, config.index_dim);
    case CacheEntry::kKvRow:
      return row_values * config.head_dim * static_cast<int64_t>(sizeof(float));
    case CacheEntry::kIndexRow:
      return row_values * config.index_dim * static_cast<int64_t>(sizeof(float));
  }
  return 0;
}

CacheUnitBytes UnitBytesOf(const ModelConfig& config, bool exact) {
  CacheUnitBytes unit;
  for (const Storage& storage : kStorages) {
    const int64_t entry =
        StorageLayers(storage, config) * StorageEntryBytes(storage, config, exact);
    const int64_t bytes = EntriesPerUnit(storage) * entry;
    switch (storage.pool) {
      case CachePool::kWindow:
        unit.window_page += bytes;
        break;
      case CachePool::kCompressed:
        unit.compressed_page += bytes;
        break;
      case CachePool::kSlot:
        unit.slot += bytes;
        unit.snapshot += EntriesPerSnapshot(storage) * entry;
        break;
    }
  }
  return unit;
}

std::string DescribeStorages(const ModelConfig* config) {
  ModelConfig usual;
  usual.head_dim = 512;
  usual.index_dim = 128;
  const ModelConfig& sizes = config != nullptr ? *config : usual;

  std::string text = fmt::format("{:<15} {:<10} {:<24} {:>16} {:>9}  {:<15} {}\n", "storage",
                                 "layers", "entry", "bytes", "a unit", "unit", "grows per token");
  double total = 0;
  for (const Storage& storage : kStorages) {
    std::string layers =
        storage.ratio == kEveryLayer ? "all" : fmt::format("ratio {}", storage.ratio);
    if (config != nullptr) layers = fmt::format("{}", StorageLayers(storage, *config));
    const int64_t bytes = StorageEntryBytes(storage, sizes, false);
    const int64_t exact_bytes = StorageEntryBytes(storage, sizes, true);
    const std::string checkpoint_name = FormatName(storage.entry, false);
    const std::string exact_name = FormatName(storage.entry, true);
    std::string grows = "no";
    if (storage.pool == CachePool::kCompressed) {
      const double layer_bytes = static_cast<double>(bytes) / static_cast<double>(storage.ratio);
      grows = fmt::format("{} B a layer", layer_bytes);
      if (config != nullptr) {
        const double all = layer_bytes * static_cast<double>(StorageLayers(storage, *config));
        grows += fmt::format(", {} B in all", all);
        total += all;
      }
    }
    text += fmt::format(
        "{:<15} {:<10} {:<24} {:>16} {:>9}  {:<15} {}\n", storage.name, layers,
        checkpoint_name == exact_name ? checkpoint_name : checkpoint_name + " | " + exact_name,
        bytes == exact_bytes ? fmt::format("{}", bytes)
                             : fmt::format("{} | {}", bytes, exact_bytes),
        EntriesPerUnit(storage), PoolName(storage.pool), grows);
  }
  text += "Two values: checkpoint | exact numerics; growth is that of checkpoint numerics.\n";
  if (config != nullptr) {
    for (const bool exact : {false, true}) {
      const CacheUnitBytes unit = UnitBytesOf(*config, exact);
      text += fmt::format(
          "{}: window page {} B, compressed page {} B, slot {} B, rows of a snapshot {} B\n",
          exact ? "exact" : "checkpoint", unit.window_page, unit.compressed_page, unit.slot,
          unit.snapshot);
    }
    text += fmt::format("A token of context costs {} B in checkpoint numerics.\n", total);
  }
  return text;
}

}  // namespace seacliff
