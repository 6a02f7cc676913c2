// A pool of numbered things (cache pages, slots) as integers: which are free, and how many hold
// each of the others. It knows neither their memory nor who holds them.
#pragma once

#include <cstdint>
#include <vector>

namespace seacliff {

class PagePool {
 public:
  explicit PagePool(int32_t pages);

  // A free page, with one holder. There must be one.
  int32_t Take();
  // One more holder of a taken page.
  void Share(int32_t page);
  // One holder less; after the last the page is free.
  void Release(int32_t page);

  int32_t holders(int32_t page) const;
  int32_t pages() const { return static_cast<int32_t>(holders_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return pages() - free(); }

 private:
  std::vector<int32_t> free_;  // a stack: the page freed last is the warmest
  std::vector<int32_t> holders_;
};

}  // namespace seacliff
