// What every op runs in: the machine's threads, the chosen rows, and the first error of the step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/threads.h"
#include "kernels/table.h"

namespace seacliff {

class Context {
 public:
  explicit Context(int threads) : pool_(threads) {}

  ThreadPool& pool() { return pool_; }
  Rows& rows() { return rows_; }

  // Ops return nothing: the first error stays, later ops do nothing, the step reads it once.
  bool ok() const { return error_.ok(); }
  void Fail(Status error) {
    if (error_.ok()) error_ = std::move(error);
  }
  Status TakeError() {
    Status error = std::move(error_);
    error_ = Status();
    return error;
  }

 private:
  ThreadPool pool_;
  Rows rows_;
  Status error_;
};

}  // namespace seacliff
