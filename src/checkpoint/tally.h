// Counts bytes done by several threads and reports them to one Progress, one call at a time.
#pragma once

#include <cstdint>
#include <mutex>

#include "checkpoint/checkpoint.h"

namespace seacliff {

class Tally {
 public:
  Tally(const Progress& progress, int64_t total) : progress_(progress), total_(total) { Add(0); }

  void Add(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

 private:
  const Progress& progress_;
  const int64_t total_;
  std::mutex mutex_;
  int64_t done_ = 0;
};

}  // namespace seacliff
