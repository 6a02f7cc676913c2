// An order of use over numbered things: a linked list within two arrays, so that nothing is
// allocated after the start and every change costs the same.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"

namespace seacliff {

class LruList {
 public:
  explicit LruList(int32_t ids)
      : next_(static_cast<size_t>(ids) + 1, kOut), before_(static_cast<size_t>(ids) + 1, kOut) {
    next_.back() = before_.back() = end();
  }

  // As the one used last; it must not be in the list.
  void Append(int32_t id) {
    SC_CHECK(!has(id));
    const int32_t last = At(before_, end());
    Link(last, id);
    Link(id, end());
    ++size_;
  }
  void Remove(int32_t id) {
    SC_CHECK(has(id));
    Link(At(before_, id), At(next_, id));
    At(next_, id) = At(before_, id) = kOut;
    --size_;
  }

  bool has(int32_t id) const { return next_[static_cast<size_t>(id)] != kOut; }
  int32_t size() const { return size_; }
  // The one not used for longest, then the next one; end() after the last.
  int32_t first() const { return next(end()); }
  int32_t next(int32_t id) const { return next_[static_cast<size_t>(id)]; }
  int32_t end() const { return static_cast<int32_t>(next_.size()) - 1; }

 private:
  static constexpr int32_t kOut = -1;

  static int32_t& At(std::vector<int32_t>& array, int32_t id) {
    return array[static_cast<size_t>(id)];
  }
  void Link(int32_t before, int32_t after) {
    At(next_, before) = after;
    At(before_, after) = before;
  }

  std::vector<int32_t> next_, before_;  // the last entry is the list's end
  int32_t size_ = 0;
};

}  // namespace seacliff
