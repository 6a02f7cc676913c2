// The table of op checks.
#include "kernels/check_table.h"

#include <fmt/format.h>

#include "kernels/common/isa.h"

namespace seacliff {
namespace {

// clang-format off
constexpr OpCheck kOpChecks[] = {
    {"embed", embed::Check},
    {"mhc_boundary", mhc_boundary::Check},
    {"mhc_head", mhc_head::Check},
    {"rms_norm", rms_norm::Check},
    {"linear", linear::Check},
    {"linears", linears::Check},
    {"grouped_linear", grouped_linear::Check},
    {"query_rope", query_rope::Check},
    {"window_insert", window_insert::Check},
    {"compress", compress::Check},
    {"index_query", index_query::Check},
    {"fused", fused::Check},
    {"index_topk", index_topk::Check},
    {"sparse_attention", sparse_attention::Check},
    {"router", router::Check},
    {"experts", experts::Check},
    {"mtp_join", mtp_join::Check},
    {"sample", sample::Check},
};
// clang-format on

// The limit of one run of checks ends with it.
struct IsaAsBefore {
  Isa before = CurrentIsa();
  ~IsaAsBefore() { (void)LimitIsa(IsaName(before)); }
};

}  // namespace

std::span<const OpCheck> OpChecks() { return kOpChecks; }

Result<CheckReport> RunChecks(const CheckOptions& options) {
  const IsaAsBefore restore;
  if (!options.isa.empty()) {
    const Status status = LimitIsa(options.isa);
    if (!status.ok()) return InvalidArgument("--isa: " + status.message());
  }
  Checker checker(options);
  SC_RETURN_IF_ERROR(checker.report().status);
  bool found = options.op.empty();
  std::string valid;
  for (const OpCheck& check : kOpChecks) {
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", check.op);
    if (!options.op.empty() && options.op != check.op) continue;
    found = true;
    checker.SetOp(check.op);
    check.run(checker);
  }
  if (!found) {
    return InvalidArgument(fmt::format("check: unknown op '{}'; valid are: {}", options.op, valid));
  }
  const CheckReport& report = checker.report();
  if (!options.row.empty() && report.outcomes.empty()) {
    return InvalidArgument(fmt::format("check: no op of these has a row '{}'", options.row));
  }
  SC_RETURN_IF_ERROR(report.status);
  return report;
}

}  // namespace seacliff
