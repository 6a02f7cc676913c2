// The dispatch table's types. An op is a list of rows, best first; the first row that is built,
// fits the machine and does not reject the arguments wins. table.cc holds the table itself.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace seacliff {

class Context;

enum class Target : uint8_t { kHost, kSm80, kSm90, kSm120 };

template <typename Args>
struct Kernel {
  const char* row;  // "ref", "cpu", "cuda", "parts", ...
  Target target;
  const char* needs;                   // in words, "" if it takes everything its op allows
  bool (*test)(const Args&);           // nullptr: takes everything
  void (*run)(Context&, const Args&);  // nullptr: not built
};

struct Gpu;
// Whether rows of this target run where the arguments are: on the host (no GPU) or on this GPU.
bool RunsHere(Target target, const Gpu* gpu);

// The rows of the op that takes Args, best first; for checks. One specialisation an op.
template <typename Args>
std::span<const Kernel<Args>> RowsOf();

enum class Op : uint8_t {
  kEmbed,
  kMhcBoundary,
  kMhcHead,
  kRmsNorm,
  kLinear,
  kLinears,
  kGroupedLinear,
  kQueryRope,
  kWindowInsert,
  kCompress,
  kIndexQuery,
  kFused,
  kIndexTopk,
  kSparseAttention,
  kRouter,
  kExperts,
  kMtpJoin,
  kSample,
  kAllReduce,
  kCount,
};

// The one override, `--kernels "op=row,op=row"`: which row is forced for an op. `portable` among
// them leaves out all rows that are for one architecture, but for forced ones.
class Rows {
 public:
  // Empty: no override. An unknown op or row is an error that lists the valid ones.
  static Result<Rows> Parse(std::string_view text);
  std::string_view forced(Op op) const { return forced_[static_cast<size_t>(op)]; }
  bool portable() const { return portable_; }

 private:
  std::array<std::string, static_cast<size_t>(Op::kCount)> forced_;
  bool portable_ = false;
};

// A row but for its arguments.
struct RowInfo {
  const char* row;
  Target target;
  const char* needs;
  bool built;
};
// Why a row of the op does not compete where the arguments are (RunsHere), or "" if it does.
std::string_view WhyNot(const RowInfo& row, Op op, const Rows& rows, const Gpu* gpu);

// The rows of all_reduce, best first, which the ranks of a model choose among and run (parallel/):
// a table of their own, but for `--kernels` and RowsRun.
std::span<const RowInfo> AllReduceRows();

// The rows that have run in this context: "embed=cpu,linear=cpu,linear=ref", ops in their order.
std::string RowsRun(const Context& k);
// Those of one op: "cpu,ref".
std::string RowsRun(const Context& k, Op op);
const char* NameOf(Op op);

// The table as text: op, row, runs on, needs, here (CHOSEN, or why not). With a GPU both its rows
// and those of the CPU are chosen among; without one the text is the same in every build.
std::string DescribeKernels(const Rows& rows, const Gpu* gpu);

}  // namespace seacliff
