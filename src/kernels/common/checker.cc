// The run of a check case: memory, comparisons, repetition, timing, report.
#include "kernels/common/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "base/file_map.h"
#include "kernels/common/device_timer.h"
#include "kernels/common/isa.h"
#include "kernels/linear/op.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using Verdict = CheckOutcome::Verdict;

// Copies of a case's memory at most, for the sake of graphs as long as that.
constexpr int64_t kMostCopies = 8192;

// More than the last-level cache of any machine at hand.
constexpr size_t kColdBytes = size_t{512} << 20;

double Microseconds(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// Reads all of `data`; the sum keeps the compiler honest.
uint64_t ReadAll(ThreadPool& pool, const std::vector<uint64_t>& data) {
  std::atomic<uint64_t> total{0};
  pool.For(static_cast<int64_t>(data.size()), 1 << 17, [&](int64_t begin, int64_t end) {
    uint64_t sum[8] = {};
    for (int64_t i = begin; i + 8 <= end; i += 8) {
      for (int64_t j = 0; j < 8; ++j) sum[j] += data[static_cast<size_t>(i + j)];
    }
    for (uint64_t s : sum) total += s;
  });
  return total;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

// Whether a row of linears, which asks for linear part by part, was given one of sm_90.
bool AskedSm90(const Context& k) {
  const auto rows = RowsOf<LinearArgs>();
  for (size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].target == Target::kSm90 && (k.rows_run(Op::kLinear) >> r & 1) != 0) return true;
  }
  return false;
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out;
}

}  // namespace

int64_t CheckReport::failures() const {
  return std::count_if(outcomes.begin(), outcomes.end(),
                       [](const CheckOutcome& o) { return o.verdict == Verdict::kFailed; });
}

std::string CheckReport::Describe() const {
  std::string text = fmt::format("{:<17} {:<7} {:>6} {:>6} {:>7} {:>10}\n", "op", "row", "passed",
                                 "failed", "skipped", "worst/tol");
  for (auto it = outcomes.begin(); it != outcomes.end();) {
    // Outcomes stand op by op, but rows alternate within an op.
    const auto end =
        std::find_if(it, outcomes.end(), [&](const CheckOutcome& o) { return o.op != it->op; });
    std::vector<std::string> rows;
    for (auto o = it; o != end; ++o) {
      if (std::find(rows.begin(), rows.end(), o->row) == rows.end()) rows.push_back(o->row);
    }
    for (const std::string& row : rows) {
      int64_t count[3] = {};
      double worst = 0;
      for (auto o = it; o != end; ++o) {
        if (o->row != row) continue;
        ++count[static_cast<size_t>(o->verdict)];
        worst = std::max(worst, o->worst);
      }
      text += fmt::format("{:<17} {:<7} {:>6} {:>6} {:>7} {:>10.3f}\n", it->op, row, count[0],
                          count[1], count[2], worst);
    }
    it = end;
  }
  for (const CheckOutcome& o : outcomes) {
    if (o.verdict == Verdict::kFailed) {
      text += fmt::format("FAILED {}={} on '{}': {}\n", o.op, o.row, o.name, o.what);
    }
  }
  if (limits.read_gbps == 0) return text;
  text += fmt::format("\nThis machine {}.\n{:<17} {:<7} {:<28} {:>12} {:>8} {:>8} {:>8} {:>8}\n",
                      limits.Describe(), "op", "row", "case", "us", "GB/s", "of read", "TFLOP/s",
                      "of peak");
  for (const CheckOutcome& o : outcomes) {
    const Timing& t = o.timing;
    if (t.median_us == 0) continue;
    text += fmt::format("{:<17} {:<7} {:<28} {:>12.1f} {:>8.2f} {:>6.1f} % {:>8.4f} {:>6.1f} %\n",
                        o.op, o.row, o.name, t.median_us, t.gbps(), 100 * t.of_read(limits),
                        t.tflops(), 100 * t.of_peak(limits));
  }
  return text;
}

std::vector<int64_t> TokensToCheck(int64_t tokens, bool real, Random& random) {
  constexpr int64_t kSample = 4;
  std::vector<int64_t> sample;
  if (!real || tokens <= kSample) {
    for (int64_t t = 0; t < tokens; ++t) sample.push_back(t);
    return sample;
  }
  const int64_t between = tokens - 2, half = between / 2;
  sample = {0, 1 + random.Below(half), 1 + half + random.Below(between - half), tokens - 1};
  return sample;
}

std::string NameOf(std::string_view name, int64_t tokens) {
  return fmt::format("{}, {} token{}", name, tokens, tokens == 1 ? "" : "s");
}

Checker::Checker(const CheckOptions& options)
    : options_(options), context_(options.threads), other_(context_.pool().threads() == 1 ? 3 : 1) {
  if (options_.machine.empty()) {
    options_.machine = options.device != nullptr ? options.device->gpu().name : CpuName();
  }
  if (!options.results.empty()) report_.status = AppendLines(options.results, {});
}

bool Checker::Wants(std::string_view name, bool real) const {
  return (real ? options_.full || options_.bench : !options_.bench) &&
         name.find(options_.name) != std::string_view::npos;
}

std::span<const int64_t> Checker::RealTokens() const {
  static constexpr int64_t kDevice[] = {1, 8, 32, 1024, 8192}, kHost[] = {1, 32};
  return on_device() ? std::span<const int64_t>(kDevice) : kHost;
}

Random Checker::NewRandom(std::string_view name) const {
  uint64_t seed = options_.seed;
  for (char c : op_ + std::string(name)) seed = Random(seed ^ static_cast<uint64_t>(c)).Next();
  return Random(seed);
}

Context& Checker::ContextFor(const Row& row) {
  if (row.target == Target::kHost) return context_;
  on_device_ = std::make_unique<Context>(1);
  on_device_->set_device(options_.device);
  return *on_device_;
}

void Checker::RunRows(CheckMemory& memory, const Case& c, const std::vector<Row>& rows) {
  if (!Wants(c.name, c.real)) return;
  memory.Seal();
  if (c.real) return RunReal(memory, c, rows);
  CheckMemory::Image reference;
  const auto ref =
      std::find_if(rows.begin(), rows.end(), [](const Row& r) { return r.name == "ref"; });
  SC_CHECK(ref != rows.end());
  const auto run = [&](const Row& row) {
    CheckOutcome outcome;
    outcome.op = op_;
    outcome.row = row.name;
    outcome.name = c.name;
    const bool is_ref = &row == &*ref;
    outcome.what = WhyNot(memory, row);
    if (!outcome.what.empty()) {
      outcome.verdict = Verdict::kSkipped;
    } else {
      outcome.what = CheckRow(memory, c, row, is_ref ? nullptr : &reference, &outcome.worst);
      if (!outcome.what.empty()) outcome.verdict = Verdict::kFailed;
      if (is_ref) reference = memory.Snapshot();
    }
    const bool wanted = options_.row.empty() || options_.row == row.name;
    if (wanted || (is_ref && outcome.verdict == Verdict::kFailed)) {
      report_.outcomes.push_back(std::move(outcome));
    }
  };
  run(*ref);
  for (const Row& row : rows) {
    if (&row == &*ref || (!options_.row.empty() && options_.row != row.name)) continue;
    // On a device its rows are what is asked about.
    if (on_device() && row.target == Target::kHost) continue;
    run(row);
  }
}

void Checker::RunReal(CheckMemory& memory, const Case& c, const std::vector<Row>& rows) {
  std::unique_ptr<DeviceMemory> copies;
  for (const Row& row : rows) {
    const bool host = row.target == Target::kHost;
    if ((!options_.row.empty() && options_.row != row.name) || (host && on_device())) continue;
    CheckOutcome outcome;
    outcome.op = op_;
    outcome.row = row.name;
    outcome.name = c.name;
    outcome.what = WhyNot(memory, row);
    if (row.name == "ref" && c.parts > 1) outcome.what = "takes too long on many tokens";
    if (!outcome.what.empty()) {
      outcome.verdict = Verdict::kSkipped;
      report_.outcomes.push_back(std::move(outcome));
      continue;
    }
    if (host) {
      outcome.what = CheckRow(memory, c, row, nullptr, &outcome.worst);
      if (outcome.what.empty() && options_.bench) outcome.timing = Time(memory, c, row);
    } else {
      Device& device = *options_.device;
      if (options_.bench) MeasureLimitsOnce();  // before the copies take the memory
      if (copies == nullptr) {
        const int64_t room = device.FreeBytes() / 10 * 9 / DeviceMemory::Bytes(memory);
        copies = std::make_unique<DeviceMemory>(
            memory, device,
            options_.bench
                ? RotationCopies(c.cost.bytes, device.gpu().l2, std::min(room, kMostCopies))
                : 2);
      }
      outcome.what = CheckOnDevice(memory, c, row, *copies, &outcome.worst);
      if (outcome.what.empty() && options_.bench) {
        auto timing = TimeOnDevice(memory, c, row, *copies);
        if (timing.ok()) outcome.timing = *timing;
        if (!timing.ok()) outcome.what = "error: " + timing.status().message();
      }
    }
    if (!outcome.what.empty()) outcome.verdict = Verdict::kFailed;
    Report(c, outcome);
    report_.outcomes.push_back(std::move(outcome));
  }
}

std::string Checker::WhyNot(const CheckMemory& memory, const Row& row) const {
  const Gpu* gpu = on_device() ? &options_.device->gpu() : nullptr;
  if (!row.built) return "not built";
  if (row.target != Target::kHost && !RunsHere(row.target, gpu)) return "no such device";
  return row.takes(Place(memory)) ? "" : "does not take these arguments";
}

std::string Checker::CheckRow(CheckMemory& memory, const Case& c, const Row& row,
                              const CheckMemory::Image* reference, double* worst) {
  const bool host = row.target == Target::kHost;
  Context& k = ContextFor(row);
  std::string wrong = Execute(memory, c, row, k, false);
  if (wrong.empty()) wrong = Compare(memory, c, row, reference, worst);
  if (wrong.empty() && c.real) wrong = memory.Unwritten();
  if (!wrong.empty()) return wrong;
  const CheckMemory::Image first = memory.Snapshot();
  wrong = Execute(memory, c, row, host ? other_ : k, false);
  if (wrong.empty()) wrong = memory.Difference(first);
  if (!wrong.empty()) return "a second run: " + wrong;
  if (c.parts == 0 || !(host || c.alone)) return "";
  wrong = Execute(memory, c, row, k, true);
  if (wrong.empty()) wrong = memory.Difference(first);
  return wrong.empty() ? "" : "one at a time: " + wrong;
}

std::string Checker::CheckOnDevice(CheckMemory& memory, const Case& c, const Row& row,
                                   DeviceMemory& copies, double* worst) {
  Context& k = ContextFor(row);
  const auto error = [&] {
    Status status = k.TakeError();
    const Status device = k.device()->Synchronize();
    if (status.ok()) status = device;
    return status.ok() ? std::string() : "error: " + status.message();
  };
  memory.Restore();
  copies.Upload();
  std::string wrong = error();
  if (!wrong.empty()) return wrong;
  for (int64_t copy = 0; copy < 2; ++copy) {
    row.run(k, Place(memory, copies, copy), kWhole);
  }
  copies.Download(memory, 1, true);
  wrong = error();
  if (!wrong.empty()) return wrong;
  const CheckMemory::Image second = memory.Snapshot();
  copies.Download(memory, 0, true);
  wrong = memory.Damage();
  if (wrong.empty()) wrong = Compare(memory, c, row, nullptr, worst);
  if (wrong.empty()) wrong = memory.Unwritten();
  if (!wrong.empty()) return wrong;
  wrong = memory.Difference(second);
  return wrong.empty() ? "" : "a second run: " + wrong;
}

std::string Checker::Execute(CheckMemory& memory, const Case& c, const Row& row, Context& k,
                             bool in_parts) {
  memory.Restore();
  const int64_t begin = in_parts ? 0 : kWhole, end = in_parts ? c.parts : kWhole + 1;
  if (k.device() != nullptr) {
    DeviceMemory copy(memory, *k.device());
    copy.Upload();
    for (int64_t part = begin; part < end; ++part) row.run(k, Place(memory, copy), part);
    copy.Download(memory);
    Status error = k.TakeError();
    const Status device_error = k.device()->Synchronize();
    if (error.ok()) error = device_error;
    return error.ok() ? memory.Damage() : "error: " + error.message();
  }
  const Place here(memory);
  for (int64_t part = begin; part < end; ++part) row.run(k, here, part);
  const Status error = k.TakeError();
  if (!error.ok()) return "error: " + error.message();
  return memory.Damage();
}

std::string Checker::Compare(const CheckMemory& memory, const Case& c, const Row& row,
                             const CheckMemory::Image* reference, double* worst) const {
  const Place here(memory);
  const bool host = row.target == Target::kHost;
  const Allowance allowance{row.name != "ref",
                            row.target == Target::kSm90 || (!host && AskedSm90(*on_device_))};
  if (c.verify) {
    std::string wrong = c.verify(here, allowance);
    if (!wrong.empty()) return wrong;
  }
  if (!c.expect) return "";
  const Expect expect = c.expect(allowance);
  const std::vector<double> got = c.read(here);
  SC_CHECK(got.size() == expect.size());
  std::vector<double> want(expect.size());
  for (size_t i = 0; i < want.size(); ++i) want[i] = expect[i].value;
  // ref stands within the tolerance of the value, and so does the row, so they are within twice of
  // each other.
  if (reference != nullptr) want = c.read(Place(memory, reference));
  const double factor = reference != nullptr ? 2 : 1;

  int64_t wrong = 0;
  std::string example;
  for (size_t i = 0; i < got.size(); ++i) {
    const double tolerance = factor * expect[i].slack;
    const double error = std::fabs(got[i] - want[i]);
    if (error <= tolerance) {
      if (tolerance > 0) *worst = std::max(*worst, error / tolerance);
    } else if (wrong++ == 0) {
      example =
          fmt::format("output {} is {:.9g}, not {:.9g} +- {:.3g}", i, got[i], want[i], tolerance);
    }
  }
  if (wrong == 0) return "";
  return fmt::format("{} ({} of {} are wrong)", example, wrong, got.size());
}

void Checker::MeasureLimitsOnce() {
  MachineLimits& limits = report_.limits;
  if (limits.read_gbps != 0) return;
  limits = on_device() ? MeasureDeviceLimits(*options_.device) : MeasureLimits(pool());
  if (options_.progress) options_.progress("this machine " + limits.Describe());
}

Timing Checker::Time(CheckMemory& memory, const Case& c, const Row& row) {
  MeasureLimitsOnce();
  cold_.resize(kColdBytes / sizeof(uint64_t), 1);
  uint64_t sum = 0;
  // At most 15 runs and 3 seconds, at least 3 runs.
  const Place here(memory);
  std::vector<double> times;
  double spent = 0;
  while (times.size() < 3 || (times.size() < 15 && spent < 3e6)) {
    memory.Restore();
    sum += ReadAll(pool(), cold_);
    const auto begin = Clock::now();
    row.run(context_, here, kWhole);
    times.push_back(Microseconds(begin));
    spent += times.back();
  }
  SC_CHECK(sum > 0);
  return {Median(std::move(times)), c.cost};
}

Result<Timing> Checker::TimeOnDevice(const CheckMemory& memory, const Case& c, const Row& row,
                                     const DeviceMemory& copies) {
  const auto call = [&](int64_t copy) {
    row.run(*on_device_, Place(memory, copies, copy, true, c.warm), kWhole);
  };
  const auto time = c.waits ? TimeWaitingCalls : TimeCalls;
  SC_ASSIGN_OR_RETURN(const CallTiming timing, time(*options_.device, copies.copies(), call));
  SC_RETURN_IF_ERROR(on_device_->TakeError());
  return Timing{timing.median_us, c.cost, timing.calls, copies.copies()};
}

void Checker::Report(const Case& c, const CheckOutcome& outcome) {
  const Timing& t = outcome.timing;
  const MachineLimits& limits = report_.limits;
  std::string text = fmt::format("{} {} {}: ", op_, outcome.row, c.name);
  if (outcome.verdict == Verdict::kFailed) {
    text += "FAILED, " + outcome.what;
  } else if (t.median_us == 0) {
    text += "passed";
  } else {
    text += fmt::format("{:.2f} us, {:.0f} GB/s ({:.0f} %), {:.2f} TFLOP/s ({:.0f} %)", t.median_us,
                        t.gbps(), 100 * t.of_read(limits), t.tflops(), 100 * t.of_peak(limits));
    const std::string isa = on_device() ? fmt::format("sm_{}", options_.device->gpu().sm)
                                        : std::string(IsaName(CurrentIsa()));
    std::string line = fmt::format(
        R"({{"op":"{}","row":"{}","case":"{}","tokens":{},"median_us":{:.3f},"bytes":{},)"
        R"("flops":{},"gbps":{:.3f},"tflops":{:.5f},"read_gbps":{:.2f},"peak_tflops":{:.4f},)"
        R"("of_read":{:.4f},"of_peak":{:.4f},"fraction":{:.4f},"calls":{},"copies":{},)"
        R"("isa":"{}","machine":"{}","threads":{},"command":"{}"}})",
        op_, outcome.row, Escaped(c.name), c.parts, t.median_us, t.cost.bytes, t.cost.flops,
        t.gbps(), t.tflops(), limits.read_gbps, limits.best_gflops() / 1e3, t.of_read(limits),
        t.of_peak(limits), t.fraction(limits), t.calls, t.copies, isa, Escaped(options_.machine),
        on_device() ? 0 : pool().threads(), Escaped(options_.command));
    if (!options_.results.empty() && report_.status.ok()) {
      report_.status = AppendLines(options_.results, {line});
    }
    report_.result_lines.push_back(std::move(line));
  }
  if (options_.progress) options_.progress(text);
}

}  // namespace seacliff
