// THE dispatch table: for each op its rows, best first, and the choice among them.
#include "kernels/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/compress/op.h"
#include "kernels/context.h"
#include "kernels/embed/op.h"
#include "kernels/experts/op.h"
#include "kernels/grouped_linear/op.h"
#include "kernels/index_query/op.h"
#include "kernels/index_topk/op.h"
#include "kernels/linear/op.h"
#include "kernels/mhc_boundary/op.h"
#include "kernels/mhc_head/op.h"
#include "kernels/query_rope/op.h"
#include "kernels/rms_norm/op.h"
#include "kernels/router/op.h"
#include "kernels/sample/op.h"
#include "kernels/sparse_attention/op.h"
#include "kernels/window_insert/op.h"

namespace seacliff {
namespace {

// clang-format off
//  row      runs on          needs  test      function
constexpr Kernel<EmbedArgs> kEmbed[] = {
  {"ref",    Target::kHost,   "",    nullptr,  embed::Ref},
};
constexpr Kernel<MhcBoundaryArgs> kMhcBoundary[] = {
  {"ref",    Target::kHost,   "",    nullptr,  mhc_boundary::Ref},
};
constexpr Kernel<MhcHeadArgs> kMhcHead[] = {
  {"ref",    Target::kHost,   "",    nullptr,  mhc_head::Ref},
};
constexpr Kernel<RmsNormArgs> kRmsNorm[] = {
  {"ref",    Target::kHost,   "",    nullptr,  rms_norm::Ref},
};
constexpr Kernel<LinearArgs> kLinear[] = {
  {"ref",    Target::kHost,   "",    nullptr,  linear::Ref},
};
constexpr Kernel<GroupedLinearArgs> kGroupedLinear[] = {
  {"ref",    Target::kHost,   "",    nullptr,  grouped_linear::Ref},
};
constexpr Kernel<QueryRopeArgs> kQueryRope[] = {
  {"ref",    Target::kHost,   "",    nullptr,  query_rope::Ref},
};
constexpr Kernel<WindowInsertArgs> kWindowInsert[] = {
  {"ref",    Target::kHost,   "",    nullptr,  window_insert::Ref},
};
constexpr Kernel<CompressArgs> kCompress[] = {
  {"ref",    Target::kHost,   "",    nullptr,  compress::Ref},
};
constexpr Kernel<IndexQueryArgs> kIndexQuery[] = {
  {"ref",    Target::kHost,   "",    nullptr,  index_query::Ref},
};
constexpr Kernel<IndexTopkArgs> kIndexTopk[] = {
  {"ref",    Target::kHost,   "",    nullptr,  index_topk::Ref},
};
constexpr Kernel<SparseAttentionArgs> kSparseAttention[] = {
  {"ref",    Target::kHost,   "",    nullptr,  sparse_attention::Ref},
};
constexpr Kernel<RouterArgs> kRouter[] = {
  {"ref",    Target::kHost,   "",    nullptr,  router::Ref},
};
constexpr Kernel<ExpertsArgs> kExperts[] = {
  {"ref",    Target::kHost,   "",    nullptr,  experts::Ref},
};
constexpr Kernel<SampleArgs> kSample[] = {
  {"ref",    Target::kHost,   "",    nullptr,  sample::Ref},
};
// clang-format on

// The last row of each memory space takes everything, so that there is always an answer.
template <typename Args, size_t N>
constexpr bool LastTakesAll(const Kernel<Args> (&rows)[N]) {
  return rows[N - 1].target == Target::kHost && rows[N - 1].test == nullptr;
}

struct RowInfo {
  const char* row;
  Target target;
  const char* needs;
  bool built;
};

struct OpInfo {
  Op op;
  const char* name;
  std::vector<RowInfo> rows;
};

template <typename Args, size_t N>
OpInfo Info(Op op, const char* name, const Kernel<Args> (&rows)[N]) {
  static_assert(N > 0);
  OpInfo info{op, name, {}};
  for (const auto& r : rows) info.rows.push_back({r.row, r.target, r.needs, r.run != nullptr});
  return info;
}

// Runs the first row that is built, fits and takes the arguments (or the forced one).
template <const auto& kRows, typename Args>
void Dispatch(Context& k, Op op, const Args& a) {
  static_assert(LastTakesAll(kRows));
  if (!k.ok()) return;
  const std::string_view forced = k.rows().forced(op);
  for (const auto& row : kRows) {
    if (row.run == nullptr || row.target != Target::kHost) continue;
    if (!forced.empty() && forced != row.row) continue;
    if (row.test != nullptr && !row.test(a)) continue;
    return row.run(k, a);
  }
  k.Fail(InvalidArgument(fmt::format("--kernels: row '{}' cannot run these arguments", forced)));
}

std::vector<OpInfo> Table() {
  return {
      Info(Op::kEmbed, "embed", kEmbed),
      Info(Op::kMhcBoundary, "mhc_boundary", kMhcBoundary),
      Info(Op::kMhcHead, "mhc_head", kMhcHead),
      Info(Op::kRmsNorm, "rms_norm", kRmsNorm),
      Info(Op::kLinear, "linear", kLinear),
      Info(Op::kGroupedLinear, "grouped_linear", kGroupedLinear),
      Info(Op::kQueryRope, "query_rope", kQueryRope),
      Info(Op::kWindowInsert, "window_insert", kWindowInsert),
      Info(Op::kCompress, "compress", kCompress),
      Info(Op::kIndexQuery, "index_query", kIndexQuery),
      Info(Op::kIndexTopk, "index_topk", kIndexTopk),
      Info(Op::kSparseAttention, "sparse_attention", kSparseAttention),
      Info(Op::kRouter, "router", kRouter),
      Info(Op::kExperts, "experts", kExperts),
      Info(Op::kSample, "sample", kSample),
  };
}

// "op=row, op=row" for every row of the ops.
std::string ListRows(const std::vector<OpInfo>& ops) {
  std::string text;
  for (const OpInfo& info : ops) {
    for (const RowInfo& r : info.rows) {
      text += fmt::format("{}{}={}", text.empty() ? "" : ", ", info.name, r.row);
    }
  }
  return text;
}

const char* RunsOn(Target target) {
  switch (target) {
    case Target::kHost:
      return "any CPU";
    case Target::kSm80:
      return "sm_80 and up";
    case Target::kSm90:
      return "sm_90a";
    case Target::kSm120:
      return "sm_120a";
  }
  return "?";
}

}  // namespace

// clang-format off
template <> std::span<const Kernel<EmbedArgs>> RowsOf() { return kEmbed; }
template <> std::span<const Kernel<MhcBoundaryArgs>> RowsOf() { return kMhcBoundary; }
template <> std::span<const Kernel<MhcHeadArgs>> RowsOf() { return kMhcHead; }
template <> std::span<const Kernel<RmsNormArgs>> RowsOf() { return kRmsNorm; }
template <> std::span<const Kernel<LinearArgs>> RowsOf() { return kLinear; }
template <> std::span<const Kernel<GroupedLinearArgs>> RowsOf() { return kGroupedLinear; }
template <> std::span<const Kernel<QueryRopeArgs>> RowsOf() { return kQueryRope; }
template <> std::span<const Kernel<WindowInsertArgs>> RowsOf() { return kWindowInsert; }
template <> std::span<const Kernel<CompressArgs>> RowsOf() { return kCompress; }
template <> std::span<const Kernel<IndexQueryArgs>> RowsOf() { return kIndexQuery; }
template <> std::span<const Kernel<IndexTopkArgs>> RowsOf() { return kIndexTopk; }
template <> std::span<const Kernel<SparseAttentionArgs>> RowsOf() { return kSparseAttention; }
template <> std::span<const Kernel<RouterArgs>> RowsOf() { return kRouter; }
template <> std::span<const Kernel<ExpertsArgs>> RowsOf() { return kExperts; }
template <> std::span<const Kernel<SampleArgs>> RowsOf() { return kSample; }
// clang-format on

void Embed(Context& k, const EmbedArgs& a) { Dispatch<kEmbed>(k, Op::kEmbed, a); }
void MhcBoundary(Context& k, const MhcBoundaryArgs& a) {
  Dispatch<kMhcBoundary>(k, Op::kMhcBoundary, a);
}
void MhcHead(Context& k, const MhcHeadArgs& a) { Dispatch<kMhcHead>(k, Op::kMhcHead, a); }
void RmsNorm(Context& k, const RmsNormArgs& a) { Dispatch<kRmsNorm>(k, Op::kRmsNorm, a); }
void Linear(Context& k, const LinearArgs& a) { Dispatch<kLinear>(k, Op::kLinear, a); }
void GroupedLinear(Context& k, const GroupedLinearArgs& a) {
  Dispatch<kGroupedLinear>(k, Op::kGroupedLinear, a);
}
void QueryRope(Context& k, const QueryRopeArgs& a) { Dispatch<kQueryRope>(k, Op::kQueryRope, a); }
void WindowInsert(Context& k, const WindowInsertArgs& a) {
  Dispatch<kWindowInsert>(k, Op::kWindowInsert, a);
}
void Compress(Context& k, const CompressArgs& a) { Dispatch<kCompress>(k, Op::kCompress, a); }
void IndexQuery(Context& k, const IndexQueryArgs& a) {
  Dispatch<kIndexQuery>(k, Op::kIndexQuery, a);
}
void IndexTopk(Context& k, const IndexTopkArgs& a) { Dispatch<kIndexTopk>(k, Op::kIndexTopk, a); }
void SparseAttention(Context& k, const SparseAttentionArgs& a) {
  Dispatch<kSparseAttention>(k, Op::kSparseAttention, a);
}
void Router(Context& k, const RouterArgs& a) { Dispatch<kRouter>(k, Op::kRouter, a); }
void Experts(Context& k, const ExpertsArgs& a) { Dispatch<kExperts>(k, Op::kExperts, a); }
void Sample(Context& k, const SampleArgs& a) { Dispatch<kSample>(k, Op::kSample, a); }

Result<Rows> Rows::Parse(std::string_view text) {
  Rows result;
  const std::vector<OpInfo> table = Table();
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
    const size_t equals = item.find('=');
    const std::string_view op = item.substr(0, equals);
    const std::string_view row = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    const auto info = std::find_if(table.begin(), table.end(),
                                   [op](const OpInfo& candidate) { return op == candidate.name; });
    const bool known = info != table.end();
    const bool found =
        known && std::any_of(info->rows.begin(), info->rows.end(),
                             [row](const RowInfo& r) { return r.built && row == r.row; });
    if (!found) {
      return InvalidArgument(fmt::format("--kernels: unknown '{}'; valid are: {}", item,
                                         known ? ListRows({*info}) : ListRows(table)));
    }
    result.forced_[static_cast<size_t>(info->op)] = row;
  }
  return result;
}

std::string DescribeKernels(const Rows& rows) {
  std::string text =
      fmt::format("{:<17} {:<7} {:<13} {:<24} {}\n", "op", "row", "runs on", "needs", "here");
  for (const auto& info : Table()) {
    bool chosen = false;
    const char* name = info.name;
    for (const auto& r : info.rows) {
      std::string here = "CHOSEN";
      const std::string_view forced = rows.forced(info.op);
      if (!r.built) {
        here = "not built";
      } else if (r.target != Target::kHost) {
        here = "no such device";
      } else if (!forced.empty() && forced != r.row) {
        here = "another row is forced";
      } else if (chosen) {
        here = "a row above is chosen";
      } else {
        chosen = true;
      }
      text += fmt::format("{:<17} {:<7} {:<13} {:<24} {}\n", name, r.row, RunsOn(r.target),
                          r.needs[0] == '\0' ? "-" : r.needs, here);
      name = "";
    }
  }
  return text;
}

}  // namespace seacliff
