// The run of a check case: memory, comparisons, repetition, timing, report.
#include "kernels/common/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "kernels/common/isa.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using Verdict = CheckOutcome::Verdict;

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

Checker::Checker(const CheckOptions& options)
    : options_(options),
      context_(options.threads),
      other_(context_.pool().threads() == 1 ? 3 : 1),
      on_device_(1) {
  on_device_.set_device(options.device);
  if (options_.machine.empty()) options_.machine = CpuName();
}

Random Checker::NewRandom(std::string_view name) const {
  uint64_t seed = options_.seed;
  for (char c : op_ + std::string(name)) seed = Random(seed ^ static_cast<uint64_t>(c)).Next();
  return Random(seed);
}

void Checker::RunRows(CheckMemory& memory, const Case& c, const std::vector<Row>& rows) {
  memory.Seal();
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
    RunRow(memory, c, row, is_ref ? nullptr : &reference, &reference, &outcome);
    const bool wanted = options_.row.empty() || options_.row == row.name;
    if (wanted || (is_ref && outcome.verdict == Verdict::kFailed)) {
      report_.outcomes.push_back(std::move(outcome));
    }
  };
  run(*ref);
  for (const Row& row : rows) {
    if (&row == &*ref || (!options_.row.empty() && options_.row != row.name)) continue;
    // On a device its rows are what is asked about.
    if (options_.device != nullptr && row.target == Target::kHost) continue;
    run(row);
  }
}

void Checker::RunRow(CheckMemory& memory, const Case& c, const Row& row,
                     const CheckMemory::Image* reference, CheckMemory::Image* image,
                     CheckOutcome* outcome) {
  const Place here(memory);
  const auto skip = [&](const char* why) {
    outcome->verdict = Verdict::kSkipped;
    outcome->what = why;
  };
  if (!row.built) return skip("not built");
  const bool host = row.target == Target::kHost;
  const Gpu* gpu = options_.device != nullptr ? &options_.device->gpu() : nullptr;
  if (!host && !RunsHere(row.target, gpu)) return skip("no such device");
  if (!row.takes(here)) return skip("does not take these arguments");

  std::string wrong = Execute(memory, c, row, host ? context_ : on_device_, false);
  const CheckMemory::Image first = memory.Snapshot();
  if (wrong.empty()) wrong = Compare(memory, c, reference, &outcome->worst);
  if (wrong.empty()) {
    wrong = Execute(memory, c, row, host ? other_ : on_device_, false);
    if (wrong.empty()) wrong = memory.Difference(first, memory.Snapshot());
    if (!wrong.empty()) wrong = "a second run: " + wrong;
  }
  if (wrong.empty() && c.parts > 0 && host) {
    wrong = Execute(memory, c, row, context_, true);
    if (wrong.empty()) wrong = memory.Difference(first, memory.Snapshot());
    if (!wrong.empty()) wrong = "one at a time: " + wrong;
  }
  if (reference == nullptr) *image = first;
  if (!wrong.empty()) {
    outcome->verdict = Verdict::kFailed;
    outcome->what = wrong;
  } else if (options_.bench && c.real && host) {
    Time(memory, c, row, outcome);
  }
}

std::string Checker::Execute(CheckMemory& memory, const Case& c, const Row& row, Context& k,
                             bool in_parts) {
  memory.Restore();
  if (k.device() != nullptr) {
    DeviceMemory copy(memory, *k.device());
    copy.Upload();
    row.run(k, Place(memory, copy), kWhole);
    copy.Download(memory);
    Status error = k.TakeError();
    const Status device_error = k.device()->Synchronize();
    if (error.ok()) error = device_error;
    return error.ok() ? memory.Damage() : "error: " + error.message();
  }
  const Place here(memory);
  const int64_t begin = in_parts ? 0 : kWhole, end = in_parts ? c.parts : kWhole + 1;
  for (int64_t part = begin; part < end; ++part) row.run(k, here, part);
  const Status error = k.TakeError();
  if (!error.ok()) return "error: " + error.message();
  return memory.Damage();
}

std::string Checker::Compare(const CheckMemory& memory, const Case& c,
                             const CheckMemory::Image* reference, double* worst) const {
  const Place here(memory);
  const Allowance allowance{reference != nullptr};
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

void Checker::Time(CheckMemory& memory, const Case& c, const Row& row, CheckOutcome* outcome) {
  uint64_t sum = 0;
  MachineLimits& limits = report_.limits;
  if (limits.read_gbps == 0) {
    limits = MeasureLimits(context_.pool());
    cold_.assign(kColdBytes / sizeof(uint64_t), 1);
  }
  // At most 15 runs and 3 seconds, at least 3 runs.
  const Place here(memory);
  std::vector<double> times;
  double spent = 0;
  while (times.size() < 3 || (times.size() < 15 && spent < 3e6)) {
    memory.Restore();
    sum += ReadAll(context_.pool(), cold_);
    const auto begin = Clock::now();
    row.run(context_, here, kWhole);
    times.push_back(Microseconds(begin));
    spent += times.back();
  }
  SC_CHECK(sum > 0);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  const Timing t{times[times.size() / 2], c.cost};
  outcome->timing = t;
  report_.result_lines.push_back(
      fmt::format(R"({{"op":"{}","row":"{}","case":"{}","median_us":{:.2f},"bytes":{},"flops":{},)"
                  R"("gbps":{:.3f},"tflops":{:.5f},"read_gbps":{:.2f},"peak_tflops":{:.4f},)"
                  R"("of_read":{:.4f},"of_peak":{:.4f},"fraction":{:.4f},"isa":"{}",)"
                  R"("machine":"{}","threads":{},"command":"{}"}})",
                  op_, row.name, Escaped(c.name), t.median_us, t.cost.bytes, t.cost.flops, t.gbps(),
                  t.tflops(), limits.read_gbps, limits.best_gflops() / 1e3, t.of_read(limits),
                  t.of_peak(limits), t.fraction(limits), IsaName(CurrentIsa()),
                  Escaped(options_.machine), context_.pool().threads(), Escaped(options_.command)));
}

}  // namespace seacliff
