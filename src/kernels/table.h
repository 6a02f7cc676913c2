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

// The rows of the op that takes Args, best first; for checks. One specialisation an op.
template <typename Args>
std::span<const Kernel<Args>> RowsOf();

enum class Op : uint8_t {
  kEmbed,
  kMhcBoundary,
  kMhcHead,
  kRmsNorm,
  kLinear,
  kGroupedLinear,
  kQueryRope,
  kWindowInsert,
  kCompress,
  kIndexQuery,
  kIndexTopk,
  kSparseAttention,
  kRouter,
  kExperts,
  kSample,
  kCount,
};

// Which row is forced for an op: the one override, `--kernels "op=row,op=row"`.
class Rows {
 public:
  // Empty: no override. An unknown op or row is an error that lists the valid ones.
  static Result<Rows> Parse(std::string_view text);
  std::string_view forced(Op op) const { return forced_[static_cast<size_t>(op)]; }

 private:
  std::array<std::string, static_cast<size_t>(Op::kCount)> forced_;
};

// The table as text: op, row, runs on, needs, here (CHOSEN, or why not).
std::string DescribeKernels(const Rows& rows);

}  // namespace seacliff
