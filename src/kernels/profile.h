// What ran: a row of the dispatch table for each kind of call, with its time and the bytes and
// operations that the call could not do without. Only where a Context has one (Context::profile).
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>

namespace seacliff {

class Device;
struct EmbedArgs;
struct MhcBoundaryArgs;
struct MhcHeadArgs;
struct RmsNormArgs;
struct LinearArgs;
struct LinearsArgs;
struct GroupedLinearArgs;
struct QueryRopeArgs;
struct WindowInsertArgs;
struct CompressArgs;
struct IndexQueryArgs;
struct FusedArgs;
struct IndexTopkArgs;
struct SparseAttentionArgs;
struct RouterArgs;
struct ExpertsArgs;
struct MtpJoinArgs;
struct SampleArgs;

// The least that one call reads of weights (as stored) and of the cache, activations not counted,
// and the floating-point operations of its products.
struct Work {
  int64_t bytes = 0, flops = 0;
};

Work WorkOf(const EmbedArgs& a);
Work WorkOf(const MhcBoundaryArgs& a);
Work WorkOf(const MhcHeadArgs& a);
Work WorkOf(const RmsNormArgs& a);
Work WorkOf(const LinearArgs& a);
Work WorkOf(const LinearsArgs& a);
Work WorkOf(const GroupedLinearArgs& a);
Work WorkOf(const QueryRopeArgs& a);
Work WorkOf(const WindowInsertArgs& a);
Work WorkOf(const CompressArgs& a);
Work WorkOf(const IndexQueryArgs& a);
Work WorkOf(const FusedArgs& a);
Work WorkOf(const IndexTopkArgs& a);
Work WorkOf(const SparseAttentionArgs& a);
Work WorkOf(const RouterArgs& a);
// Experts that are picked by any of the tokens, each once; picks must be filled.
Work WorkOf(const ExpertsArgs& a);
Work WorkOf(const MtpJoinArgs& a);
Work WorkOf(const SampleArgs& a);
// The same for arguments that lie on `device` (null: on the host); what tells the work is then
// copied from there.
template <typename Args>
Work WorkOf(const Args& a, Device*) {
  return WorkOf(a);
}
Work WorkOf(const CompressArgs& a, Device* device);
Work WorkOf(const FusedArgs& a, Device* device);
Work WorkOf(const IndexTopkArgs& a, Device* device);
Work WorkOf(const SparseAttentionArgs& a, Device* device);
Work WorkOf(const RouterArgs& a, Device* device);
Work WorkOf(const ExpertsArgs& a, Device* device);

// Tells calls of one op apart: "4096x1024 fp8" for a matrix, "ratio 4"; "" where there is one kind.
template <typename Args>
std::string KindOf(const Args&) {
  return "";
}
std::string KindOf(const LinearArgs& a);
std::string KindOf(const LinearsArgs& a);
std::string KindOf(const GroupedLinearArgs& a);
std::string KindOf(const CompressArgs& a);
std::string KindOf(const FusedArgs& a);  // its parts
std::string KindOf(const SparseAttentionArgs& a);

// Calls of one name do the same work on other operands.
struct CallName {
  std::string part;  // of the model: "ratio 4"; "" where it has none
  std::string call;  // "linear=cuda 4096x1024 fp8"

  auto operator<=>(const CallName&) const = default;
};

class Profile {
 public:
  struct Line {
    int64_t calls = 0, nanoseconds = 0;
    Work work;
  };

  void Add(const CallName& name, int64_t nanoseconds, const Work& work);
  void Clear() { lines_.clear(); }
  Line total() const;
  const std::map<CallName, Line>& lines() const { return lines_; }

  // A table over all parts, dearest first: op=row kind, calls, ms, share of `seconds`, GB/s,
  // GFLOP/s, and what is left of `seconds`.
  std::string Describe(double seconds) const;

 private:
  std::map<CallName, Line> lines_;
};

}  // namespace seacliff
