// The storage table against the figures of spec/model.md chapter 4.
#include "cache/storages.h"

#include <gtest/gtest.h>

#include "cache/store.h"

namespace seacliff {
namespace {

ModelConfig Flash() {
  ModelConfig config;
  config.layers = 43;
  config.head_dim = 512;
  config.rope_dim = 64;
  config.index_dim = 128;
  config.window = 128;
  config.ratios = {0, 0};
  for (int layer = 2; layer < 43; ++layer) config.ratios.push_back(layer % 2 == 0 ? 4 : 128);
  config.ratios.push_back(0);
  return config;
}

TEST(StoragesTest, FlashCostsWhatTheSpecSays) {
  const CacheUnitBytes unit = UnitBytesOf(Flash(), /*exact=*/false);
  EXPECT_EQ(unit.window_page, 43 * 74752);
  EXPECT_EQ(unit.slot, 4 * 860160 + 10485760);
  EXPECT_EQ(unit.snapshot, 860160);
  EXPECT_EQ(static_cast<double>(unit.compressed_page) / 128, 3514.25);
}

// The store allocates what the table says.
TEST(StoragesTest, AgreesWithTheStore) {
  const ModelConfig config = Flash();
  for (const bool exact : {false, true}) {
    const CacheUnitBytes unit = UnitBytesOf(config, exact);
    const CacheStore store(config, exact, config.layers, 3, 2, 1, Buffer::Host, 2);
    EXPECT_EQ(store.bytes(), CacheBytes({3, 2, 1, 2}, unit, 0));
    // And a snapshot's rows are all that is copied: those of the four positions before it.
    const LayerCache& layer = store.layer(2);
    const float* live = &layer.state(0, StateRow<int64_t>(4, 252), 0, 0);
    const float* kept = &layer.kept(1, 0, 0, 0);
    for (const bool to_slot : {false, true}) {
      int64_t copied = 0;
      store.CopyRows({0, 1, 256, to_slot}, [&](float* to, const float* from, int64_t bytes) {
        if (copied == 0) {
          EXPECT_EQ(from, to_slot ? kept : live);
          EXPECT_EQ(to, to_slot ? live : kept);
        }
        copied += bytes;
      });
      EXPECT_EQ(copied, unit.snapshot);
    }
  }
}

TEST(StoragesTest, EntriesAreThoseOfThePageFormat) {
  const ModelConfig config = Flash();
  for (const Storage& storage : kStorages) {
    if (storage.entry == CacheEntry::kKv) {
      EXPECT_EQ(StorageEntryBytes(storage, config, false), 584);
      EXPECT_EQ(StorageEntryBytes(storage, config, true), 2048);
    }
    if (storage.entry == CacheEntry::kIndex) {
      EXPECT_EQ(StorageEntryBytes(storage, config, false), 68);
    }
  }
}

TEST(StoragesTest, DescribesWithAndWithoutAModel) {
  const ModelConfig config = Flash();
  const std::string with = DescribeStorages(&config);
  EXPECT_NE(with.find("3514.25"), std::string::npos);
  const std::string without = DescribeStorages(nullptr);
  for (const Storage& storage : kStorages) {
    EXPECT_NE(with.find(storage.name), std::string::npos);
    EXPECT_NE(without.find(storage.name), std::string::npos);
  }
}

}  // namespace
}  // namespace seacliff
