// A pool of numbered things (cache pages, slots) as integers: which are free, which are taken. It
// knows neither their memory nor who holds them.
#pragma once

#include <cstdint>
#include <vector>

namespace seacliff {

class PagePool {
 public:
  explicit PagePool(int32_t pages);

  // A free page. There must be one: callers reserve before they take.
  int32_t Take();
  // Gives a taken page back.
  void Release(int32_t page);

  bool taken(int32_t page) const;
  int32_t pages() const { return static_cast<int32_t>(taken_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return pages() - free(); }

 private:
  std::vector<int32_t> free_;  // a stack: the page freed last is the warmest
  std::vector<bool> taken_;
};

}  // namespace seacliff
