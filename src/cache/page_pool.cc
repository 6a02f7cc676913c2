// Pools of numbered pages; see page_pool.h.
#include "cache/page_pool.h"

#include "base/check.h"

namespace seacliff {

PagePool::PagePool(int32_t pages) {
  SC_CHECK(pages >= 0);
  holders_.resize(static_cast<size_t>(pages), 0);
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);  // page 0 goes first
}

int32_t PagePool::Take() {
  SC_CHECK(!free_.empty());
  const int32_t page = free_.back();
  free_.pop_back();
  holders_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::Share(int32_t page) {
  SC_CHECK(holders(page) > 0);
  ++holders_[static_cast<size_t>(page)];
}

void PagePool::Release(int32_t page) {
  SC_CHECK(holders(page) > 0);
  if (--holders_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

int32_t PagePool::holders(int32_t page) const {
  SC_CHECK(page >= 0 && page < pages());
  return holders_[static_cast<size_t>(page)];
}

}  // namespace seacliff
