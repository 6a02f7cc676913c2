// Runs a load at one concurrency after another, over HTTP or in this process, and reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "config/settings.h"
#include "tools/load.h"
#include "tools/load_report.h"

namespace seacliff {

// The state of a run, on a terminal's stderr alone, in one line that is drawn over.
class LiveLine {
 public:
  static constexpr std::chrono::milliseconds kEvery{200};

  LiveLine();
  void Show(const LoadRun& run, LoadRun::Clock::time_point now);  // at most every kEvery
  void Clear();

 private:
  bool terminal_;
  bool drawn_ = false;
  LoadRun::Clock::time_point last_, rate_from_;
  int64_t chunks_from_ = 0;
  double rate_ = 0;
};

// Where a load goes.
class LoadTarget {
 public:
  virtual ~LoadTarget() = default;

  virtual int64_t vocab_size() const = 0;
  // Sends the requests until the run is done. Requests fail within the run; an error here is one
  // that leaves it undone.
  virtual Status Send(LoadRun& run, LiveLine& live) = 0;
  // Times of all decode steps so far; empty where they are not told.
  virtual StepHistogram steps() = 0;
  // What a result line says of it: model, machine, url ...
  virtual void WriteFields(serve::JsonWriter& json) const = 0;
};

// "1,4,8"; 0 stands for no limit.
Result<std::vector<int64_t>> ParseConcurrencies(const std::string& text);
// Of --max-concurrency; without it one run without a limit.
Result<std::vector<int64_t>> ConcurrenciesOf(const Settings& settings);

// Prints each run as it ends and appends it to --output-json; an error if a request failed.
// `command`: what runs the same again, but for the flags of the load itself.
Status SweepLoad(const Settings& settings, const std::string& command, LoadTarget& target);

}  // namespace seacliff
