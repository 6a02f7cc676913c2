// Pools of numbered pages; see page_pool.h.
#include "cache/page_pool.h"

#include "base/check.h"

namespace seacliff {

PagePool::PagePool(int32_t pages) {
  SC_CHECK(pages >= 0);
  taken_.resize(static_cast<size_t>(pages), false);
  free_.reserve(static_cast<size_t>(pages));
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);  // page 0 goes first
}

int32_t PagePool::Take() {
  SC_CHECK(!free_.empty());
  const int32_t page = free_.back();
  free_.pop_back();
  taken_[static_cast<size_t>(page)] = true;
  return page;
}

void PagePool::Release(int32_t page) {
  SC_CHECK(taken(page));
  taken_[static_cast<size_t>(page)] = false;
  free_.push_back(page);
}

bool PagePool::taken(int32_t page) const {
  SC_CHECK(page >= 0 && page < pages());
  return taken_[static_cast<size_t>(page)];
}

}  // namespace seacliff
