// What every op runs in: the machine's threads, the chosen rows, the first error of the step, and
// which rows ran.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/threads.h"
#include "kernels/device.h"
#include "kernels/profile.h"
#include "kernels/table.h"

namespace seacliff {

class Context {
 public:
  explicit Context(int threads) : pool_(threads) {}

  // On this device from now on, which must outlive the context: arguments of ops are then device
  // memory, shapes and flags aside.
  void set_device(Device* device) { device_ = device; }
  Device* device() const { return device_; }  // null on the host

  // From now on ops compute nothing, but mark the rows that they would run on this GPU, or on the
  // host if it is null. It must outlive the context.
  void Rehearse(const Gpu* gpu) {
    rehearses_ = true;
    rehearsed_gpu_ = gpu;
  }
  bool rehearses() const { return rehearses_; }
  // That rows are chosen for; null on the host.
  const Gpu* gpu() const { return device_ != nullptr ? &device_->gpu() : rehearsed_gpu_; }

  ThreadPool& pool() { return pool_; }
  Rows& rows() { return rows_; }

  // Rows that have run so far: bit r of an op's mask is row r of its table.
  uint32_t rows_run(Op op) const { return rows_run_[static_cast<size_t>(op)]; }
  void MarkRun(Op op, size_t row) { rows_run_[static_cast<size_t>(op)] |= uint32_t{1} << row; }
  // Where each call is written down; null (no time is taken) unless it was set.
  Profile* profile() const { return profile_; }
  void set_profile(Profile* profile) { profile_ = profile; }
  // Which part of the model runs, for profiles and for `wanted`: a literal, "" for none.
  const char* part() const { return part_; }
  void set_part(const char* part) { part_ = part; }
  // Where it is not null, calls alone that it wants run, told by their names in a profile.
  const std::function<bool(const CallName&)>* wanted() const { return wanted_; }
  void set_wanted(const std::function<bool(const CallName&)>* wanted) { wanted_ = wanted; }

  // Ops return nothing: the first error stays, later ops do nothing, the step reads it once.
  bool ok() const { return error_.ok(); }
  const Status& error() const { return error_; }
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
  Device* device_ = nullptr;
  const Gpu* rehearsed_gpu_ = nullptr;
  bool rehearses_ = false;
  Rows rows_;
  std::array<uint32_t, static_cast<size_t>(Op::kCount)> rows_run_ = {};
  Profile* profile_ = nullptr;
  const char* part_ = "";
  const std::function<bool(const CallName&)>* wanted_ = nullptr;
  Status error_;
};

}  // namespace seacliff
