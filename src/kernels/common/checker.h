// Runs every row of an op over a case and reports what is wrong, and how fast a row is. Cases and
// expectations belong to the op's check.cc; memory to check_memory.h.
//
// Of each row that takes a case's arguments it is shown that
//   it writes nothing but its outputs, and reads no byte that was not given (they are NaN);
//   its outputs are as expected: ref against arithmetic in double, other rows against ref;
//   a second run with other threads gives identical bits;
//   the tokens one at a time give the same bits as together (host rows; others if the case says).
// Rows of a device run on a copy of the case's memory there, guards and poison included.
//
// At the models' real sizes every row is compared with arithmetic in double on a sample of the
// tokens; no output may be NaN or left unwritten, and a device's two runs are on two copies of the
// memory. ref goes along where there is one token.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/common/expect.h"
#include "kernels/common/machine_limits.h"
#include "kernels/context.h"

namespace seacliff {

struct CheckOptions {
  std::string op;      // only this op; empty: all
  std::string row;     // only this row (others are compared with ref all the same); empty: all
  std::string name;    // only cases whose names contain this
  std::string isa;     // instruction set of the cpu rows (kernels/common/isa.h); empty: as it is
  bool full = false;   // the models' real sizes too
  bool bench = false;  // the real sizes alone, and every row is timed on them
  uint64_t seed = 1;
  int threads = 0;           // 0: one per core
  std::string machine;       // in result lines; empty: the CPU's name
  std::string command;       // in result lines: what reproduces them
  Device* device = nullptr;  // whose rows are checked, beside ref; null: the host's
  std::string results;       // file that result lines are appended to as they come; empty: none
  // Told what happens while it happens, where real sizes are checked.
  std::function<void(const std::string&)> progress;
};

// What a case must move and compute at least, for the whole batch.
struct Cost {
  int64_t bytes = 0, flops = 0;
};

struct Timing {
  double median_us = 0;
  Cost cost;
  int64_t calls = 1, copies = 1;  // on a device: in a graph, of the operands
  double gbps() const { return static_cast<double>(cost.bytes) / median_us / 1e3; }
  double tflops() const { return static_cast<double>(cost.flops) / median_us / 1e6; }
  // 0 where the limit is not known.
  double of_read(const MachineLimits& m) const {
    return m.read_gbps > 0 ? gbps() / m.read_gbps : 0;
  }
  double of_peak(const MachineLimits& m) const {
    return m.best_gflops() > 0 ? tflops() * 1e3 / m.best_gflops() : 0;
  }
  // Of whatever the machine would have to be faster at.
  double fraction(const MachineLimits& m) const { return std::max(of_read(m), of_peak(m)); }
};

// One row on one case.
struct CheckOutcome {
  enum class Verdict : uint8_t { kPassed, kFailed, kSkipped };
  std::string op, row, name;
  Verdict verdict = Verdict::kPassed;
  std::string what;  // why it failed or was skipped
  double worst = 0;  // largest error as a part of its tolerance
  Timing timing;     // median_us 0: not timed
};

struct CheckReport {
  std::vector<CheckOutcome> outcomes;
  std::vector<std::string> result_lines;  // JSON, one for each timed (op, row, case)
  MachineLimits limits;                   // measured in this run, where something was timed
  Status status;                          // whether result lines could be written

  int64_t failures() const;
  // A line for each op and row, then each failure.
  std::string Describe() const;
};

// One case of an op, but for its arguments.
struct Case {
  std::string name;
  // The batch in pieces (tokens, as a rule), run in order on the same memory; 0: not divisible.
  int64_t parts = 0;
  // All outputs (of a real size those of the sample) as numbers, and what they must be, in the same
  // order.
  std::function<std::vector<double>(const Place&)> read;
  std::function<Expect(Allowance)> expect;
  // For outputs with several right answers: what is wrong, or "". Instead of or besides the above.
  std::function<std::string(const Place&, Allowance)> verify = nullptr;
  Cost cost;
  bool alone = false;  // rows of a device too must give the parts the same bits one at a time
  bool waits = false;  // its rows wait for the device: they cannot be recorded
  bool warm = false;   // timed with the activations in the cache, where the op before leaves them
  bool real = false;   // a size of the model: timed by --bench
};

inline constexpr int64_t kWhole = -1;

// A case with its arguments in a place: of the whole batch (kWhole) or of one part.
template <typename Args>
struct Prepared {
  Case c;
  std::function<Args(const Place&, int64_t part)> args;
};

// Tokens whose outputs are compared: all, or of a real size a few, among them the first and the
// last.
std::vector<int64_t> TokensToCheck(int64_t tokens, bool real, Random& random);
// "flash wo_b, 8 tokens"
std::string NameOf(std::string_view name, int64_t tokens);

class Checker {
 public:
  explicit Checker(const CheckOptions& options);

  // Whether a case of this name is asked for; real: a model's size.
  bool Wants(std::string_view name, bool real) const;
  // Whether a device's rows are checked: they read weights as stored.
  bool on_device() const { return options_.device != nullptr; }
  // For the inputs of large cases.
  ThreadPool& pool() { return context_.pool(); }
  // Numbers of tokens that real sizes are checked and timed with.
  std::span<const int64_t> RealTokens() const;
  // check(shape, name) for those numbers of tokens, up to each shape's own.
  template <typename Shapes, typename F>
  void ForReal(const Shapes& shapes, F check) const {
    for (auto s : shapes) {
      s.real = true;
      const int64_t most = s.tokens;
      for (const int64_t tokens : RealTokens()) {
        s.tokens = tokens;
        if (tokens <= most) check(s, NameOf(s.name, tokens));
      }
    }
  }
  // check(layout) for the layouts that weights have here: as stored, which of a real size is a
  // device's alone, and packed, which is the host's.
  template <typename F>
  void ForLayouts(bool real, F check) const {
    if (!real || on_device()) check(WeightLayout::kRowMajor);
    if (!on_device()) check(WeightLayout::kTiles);
  }
  // The op that the following cases are of.
  void SetOp(std::string op) { op_ = std::move(op); }
  Random NewRandom(std::string_view name) const;

  // args(place, part) gives the arguments in that place: of the whole batch (kWhole) or one part.
  template <typename Args, typename F>
  void Run(CheckMemory& memory, const Case& c, F args,
           std::span<const Kernel<Args>> kernels = RowsOf<Args>()) {
    std::vector<Row> rows;
    for (const Kernel<Args>& kernel : kernels) {
      rows.push_back({kernel.row, kernel.target, kernel.run != nullptr,
                      [&kernel, args](const Place& at) {
                        return kernel.test == nullptr || kernel.test(args(at, kWhole));
                      },
                      [&kernel, args](Context& k, const Place& at, int64_t part) {
                        kernel.run(k, args(at, part));
                      }});
    }
    RunRows(memory, c, rows);
  }
  // Runs what prepare(memory, random, shape) makes under this name, if it is asked for.
  template <typename Shape, typename Args>
  void Run(const Shape& s, const std::string& name,
           Prepared<Args> (*prepare)(CheckMemory&, Random&, const Shape&)) {
    if (!Wants(name, s.real)) return;
    Random random = NewRandom(name);
    CheckMemory memory(&pool());
    Prepared<Args> p = prepare(memory, random, s);
    p.c.name = name;
    p.c.real = s.real;
    Run<Args>(memory, p.c, p.args);
  }

  const CheckReport& report() const { return report_; }

 private:
  struct Row {
    std::string name;
    Target target;
    bool built;
    std::function<bool(const Place&)> takes;
    std::function<void(Context&, const Place&, int64_t)> run;
  };

  // The context that a row is checked in; one of the device is new.
  Context& ContextFor(const Row& row);
  void RunRows(CheckMemory& memory, const Case& c, const std::vector<Row>& rows);
  void RunReal(CheckMemory& memory, const Case& c, const std::vector<Row>& rows);
  // Why a row cannot run, or "".
  std::string WhyNot(const CheckMemory& memory, const Row& row) const;
  // What is wrong with a row, or ""; `reference` is ref's outputs, null if there are none.
  std::string CheckRow(CheckMemory& memory, const Case& c, const Row& row,
                       const CheckMemory::Image* reference, double* worst);
  // The same on two copies of the memory on the device.
  std::string CheckOnDevice(CheckMemory& memory, const Case& c, const Row& row,
                            DeviceMemory& copies, double* worst);
  // Runs the whole case, or its parts in order; what went wrong, or "".
  std::string Execute(CheckMemory& memory, const Case& c, const Row& row, Context& k,
                      bool in_parts);
  // Without a reference outputs are compared with arithmetic in double.
  std::string Compare(const CheckMemory& memory, const Case& c, const Row& row,
                      const CheckMemory::Image* reference, double* worst) const;
  void MeasureLimitsOnce();
  Timing Time(CheckMemory& memory, const Case& c, const Row& row);
  Result<Timing> TimeOnDevice(const CheckMemory& memory, const Case& c, const Row& row,
                              const DeviceMemory& copies);
  void Report(const Case& c, const CheckOutcome& outcome);

  CheckOptions options_;
  std::string op_;
  Context context_, other_;             // two numbers of threads
  std::unique_ptr<Context> on_device_;  // of the row at hand: it tells what that row asked for
  std::vector<uint64_t> cold_;          // read between timed runs, larger than any cache
  CheckReport report_;
};

}  // namespace seacliff
