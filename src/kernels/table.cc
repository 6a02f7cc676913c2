// THE dispatch table: for each op its rows, best first, and the choice among them.
#include "kernels/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <vector>

#include "kernels/compress/op.h"
#include "kernels/context.h"
#include "kernels/embed/op.h"
#include "kernels/experts/op.h"
#include "kernels/fused/op.h"
#include "kernels/grouped_linear/op.h"
#include "kernels/index_query/op.h"
#include "kernels/index_topk/op.h"
#include "kernels/linear/op.h"
#include "kernels/linears/op.h"
#include "kernels/mhc_boundary/op.h"
#include "kernels/mhc_head/op.h"
#include "kernels/mtp_join/op.h"
#include "kernels/query_rope/op.h"
#include "kernels/rms_norm/op.h"
#include "kernels/router/op.h"
#include "kernels/sample/op.h"
#include "kernels/sparse_attention/op.h"
#include "kernels/window_insert/op.h"

// A CUDA row's function: there only in builds with CUDA.
#ifdef SEACLIFF_CUDA
#define SC_CUDA(function) function
#else
#define SC_CUDA(function) nullptr
#endif
// A row of sm_90a: in builds for that architecture.
#ifdef SEACLIFF_SM90
#define SC_SM90(function) function
#else
#define SC_SM90(function) nullptr
#endif

namespace seacliff {
namespace {

// clang-format off
//  row      runs on          needs  test      function
constexpr Kernel<EmbedArgs> kEmbed[] = {
  {"cuda",   Target::kSm80,   "bf16", embed::CudaTakes, SC_CUDA(embed::Cuda)},
  {"cpu",    Target::kHost,   "bf16", embed::CpuTakes, embed::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  embed::Ref},
};
constexpr Kernel<MhcBoundaryArgs> kMhcBoundary[] = {
  {"cuda",   Target::kSm80,   "4 streams, dim%32 <= 8192", mhc_boundary::CudaTakes, SC_CUDA(mhc_boundary::Cuda)},
  {"cpu",    Target::kHost,   "bf16, 4 streams, dim%16", mhc_boundary::CpuTakes, mhc_boundary::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  mhc_boundary::Ref},
};
constexpr Kernel<MhcHeadArgs> kMhcHead[] = {
  {"cuda",   Target::kSm80,   "4 streams, dim%32 <= 8192", mhc_head::CudaTakes, SC_CUDA(mhc_head::Cuda)},
  {"cpu",    Target::kHost,   "bf16, 4 streams, dim%16", mhc_head::CpuTakes, mhc_head::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  mhc_head::Ref},
};
constexpr Kernel<RmsNormArgs> kRmsNorm[] = {
  {"cuda",   Target::kSm80,   "bf16", rms_norm::CudaTakes, SC_CUDA(rms_norm::Cuda)},
  {"cpu",    Target::kHost,   "bf16, dim % 16 == 0", rms_norm::CpuTakes, rms_norm::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  rms_norm::Ref},
};
constexpr Kernel<LinearArgs> kLinear[] = {
  {"sm90",   Target::kSm90,   "256 tokens, FP8, sizes % 128 == 0", linear::Sm90Takes, SC_SM90(linear::Sm90)},
  {"cuda",   Target::kSm80,   "weights as stored, bf16", linear::CudaTakes, SC_CUDA(linear::Cuda)},
  {"cpu",    Target::kHost,   "packed weights, bf16", linear::CpuTakes, linear::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  linear::Ref},
};
constexpr Kernel<LinearsArgs> kLinears[] = {
  {"cuda",   Target::kSm80,   "32 tokens, FP8 or bf16, weights as stored", linears::CudaTakes, SC_CUDA(linears::Cuda)},
  {"parts",  Target::kSm80,   "weights as stored, bf16", linears::CudaPartsTakes, SC_CUDA(linears::Parts)},
  {"parts",  Target::kHost,   "",    nullptr,  linears::Parts},
  {"ref",    Target::kHost,   "",    nullptr,  linears::Ref},
};
constexpr Kernel<GroupedLinearArgs> kGroupedLinear[] = {
  {"cuda",   Target::kSm80,   "weights as stored, bf16", grouped_linear::CudaTakes, SC_CUDA(grouped_linear::Cuda)},
  {"cpu",    Target::kHost,   "packed, bf16, rank % 64 == 0", grouped_linear::CpuTakes, grouped_linear::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  grouped_linear::Ref},
};
constexpr Kernel<QueryRopeArgs> kQueryRope[] = {
  {"cuda",   Target::kSm80,   "bf16, dim % 64 == 0", query_rope::CudaTakes, SC_CUDA(query_rope::Cuda)},
  {"cpu",    Target::kHost,   "bf16", query_rope::CpuTakes, query_rope::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  query_rope::Ref},
};
constexpr Kernel<WindowInsertArgs> kWindowInsert[] = {
  {"cuda",   Target::kSm80,   "bf16, FP8 entries, dim % 64 == 0", window_insert::CudaTakes, SC_CUDA(window_insert::Cuda)},
  {"cpu",    Target::kHost,   "bf16, FP8 entries", window_insert::CpuTakes, window_insert::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  window_insert::Ref},
};
constexpr Kernel<CompressArgs> kCompress[] = {
  {"cuda",   Target::kSm80,   "FP8 or FP4 entries", compress::CudaTakes, SC_CUDA(compress::Cuda)},
  {"cpu",    Target::kHost,   "FP8 or FP4 entries", compress::CpuTakes, compress::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  compress::Ref},
};
constexpr Kernel<IndexQueryArgs> kIndexQuery[] = {
  {"cuda",   Target::kSm80,   "bf16", index_query::CudaTakes, SC_CUDA(index_query::Cuda)},
  {"cpu",    Target::kHost,   "bf16", index_query::CpuTakes, index_query::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  index_query::Ref},
};
constexpr Kernel<FusedArgs> kFused[] = {
  {"cuda",   Target::kSm80,   "64 tokens, sizes of V4 and smaller", fused::CudaTakes, SC_CUDA(fused::Cuda)},
  {"parts",  Target::kSm80,   "what each part's row needs", fused::CudaPartsTakes, SC_CUDA(fused::Parts)},
  {"parts",  Target::kHost,   "",    nullptr,  fused::Parts},
  {"ref",    Target::kHost,   "",    nullptr,  fused::Ref},
};
constexpr Kernel<IndexTopkArgs> kIndexTopk[] = {
  {"cuda",   Target::kSm80,   "bf16, FP4, no margin, up to 11,000 pages", index_topk::CudaTakes, SC_CUDA(index_topk::Cuda)},
  {"cpu",    Target::kHost,   "bf16, FP4, no margin", index_topk::CpuTakes, index_topk::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  index_topk::Ref},
};
constexpr Kernel<SparseAttentionArgs> kSparseAttention[] = {
  {"cuda",   Target::kSm80,   "bf16, FP8, pages of 2^n, dim % 64 == 0", sparse_attention::CudaTakes, SC_CUDA(sparse_attention::Cuda)},
  {"cpu",    Target::kHost,   "bf16, FP8 entries", sparse_attention::CpuTakes, sparse_attention::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  sparse_attention::Ref},
};
constexpr Kernel<RouterArgs> kRouter[] = {
  {"cuda",   Target::kSm80,   "gate as stored, bf16", router::CudaTakes, SC_CUDA(router::Cuda)},
  {"cpu",    Target::kHost,   "packed, no margin", router::CpuTakes, router::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  router::Ref},
};
constexpr Kernel<ExpertsArgs> kExperts[] = {
  {"cuda",   Target::kSm80,   "FP8 or MXFP4, dims % 32 == 0", experts::CudaTakes, SC_CUDA(experts::Cuda)},
  {"cpu",    Target::kHost,   "packed weights, bf16", experts::CpuTakes, experts::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  experts::Ref},
};
constexpr Kernel<MtpJoinArgs> kMtpJoin[] = {
  {"cuda",   Target::kSm80,   "bf16", mtp_join::CudaTakes, SC_CUDA(mtp_join::Cuda)},
  {"cpu",    Target::kHost,   "bf16, dim % 16 == 0", mtp_join::CpuTakes, mtp_join::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  mtp_join::Ref},
};
constexpr Kernel<SampleArgs> kSample[] = {
  {"cuda",   Target::kSm80,   "",    nullptr,  SC_CUDA(sample::Cuda)},
  {"cpu",    Target::kHost,   "",    nullptr,  sample::Cpu},
  {"ref",    Target::kHost,   "",    nullptr,  sample::Ref},
};
#ifdef SEACLIFF_CUDA
constexpr bool kCudaBuilt = true;
#else
constexpr bool kCudaBuilt = false;
#endif
constexpr RowInfo kAllReduce[] = {
  {"nccl",     Target::kSm80, "2 ranks, more than 4 MB, libnccl.so.2", kCudaBuilt},
  {"two_shot", Target::kSm80, "3 ranks or more, more than 64 KB", kCudaBuilt},
  {"one_shot", Target::kSm80, "", kCudaBuilt},
};
// clang-format on

// The last row of each memory space takes everything, so that there is always an answer.
template <typename Args, size_t N>
constexpr bool LastTakesAll(const Kernel<Args> (&rows)[N]) {
  return rows[N - 1].target == Target::kHost && rows[N - 1].test == nullptr;
}

constexpr const char* kNames[] = {
    "embed",       "mhc_boundary",   "mhc_head",   "rms_norm",         "linear",
    "linears",     "grouped_linear", "query_rope", "window_insert",    "compress",
    "index_query", "fused",          "index_topk", "sparse_attention", "router",
    "experts",     "mtp_join",       "sample",     "all_reduce",
};
static_assert(std::size(kNames) == static_cast<size_t>(Op::kCount));

struct OpInfo {
  Op op;
  const char* name;
  std::vector<RowInfo> rows;
};

template <typename Args>
RowInfo Info(const Kernel<Args>& row) {
  return {row.row, row.target, row.needs, row.run != nullptr};
}

template <typename Args, size_t N>
OpInfo Info(Op op, const Kernel<Args> (&rows)[N]) {
  static_assert(N > 0);
  OpInfo info{op, kNames[static_cast<size_t>(op)], {}};
  for (const auto& r : rows) info.rows.push_back(Info(r));
  return info;
}

template <typename Args>
CallName NameOf(Context& k, Op op, const Kernel<Args>& row, const Args& a) {
  const std::string kind = KindOf(a);
  return {k.part(), fmt::format("{}={}{}{}", kNames[static_cast<size_t>(op)], row.row,
                                kind.empty() ? "" : " ", kind)};
}

// What a row asks of other ops belongs to its own call.
template <typename Args>
void Run(Context& k, const Kernel<Args>& row, const Args& a) {
  Profile* profile = k.profile();
  const auto* wanted = k.wanted();
  k.set_profile(nullptr);
  k.set_wanted(nullptr);
  row.run(k, a);
  k.set_profile(profile);
  k.set_wanted(wanted);
}

template <typename Args>
void RunProfiled(Context& k, Op op, const Kernel<Args>& row, const Args& a) {
  int64_t nanoseconds = 0;
  if (k.device() != nullptr) {
    nanoseconds = std::llround(1e3 * k.device()->Time([&] { Run(k, row, a); }));
  } else {
    const auto begin = std::chrono::steady_clock::now();
    Run(k, row, a);
    nanoseconds = std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
  }
  k.profile()->Add(NameOf(k, op, row, a), nanoseconds, WorkOf(a, k.device()));
}

// Runs the first row that is built, fits and takes the arguments (or the forced one).
template <const auto& kRows, typename Args>
void Dispatch(Context& k, Op op, const Args& a) {
  static_assert(LastTakesAll(kRows));
  if (!k.ok()) return;
  const Gpu* gpu = k.gpu();
  const std::string_view forced = k.rows().forced(op);
  for (const auto& row : kRows) {
    if (!WhyNot(Info(row), op, k.rows(), gpu).empty()) continue;
    if (row.test != nullptr && !row.test(a)) continue;
    if (k.wanted() != nullptr && !(*k.wanted())(NameOf(k, op, row, a))) return;
    k.MarkRun(op, static_cast<size_t>(&row - kRows));
    // What stands for several others asks for them.
    if (k.rehearses() && std::string_view(row.row) != "parts") return;
    return k.profile() == nullptr ? Run(k, row, a) : RunProfiled(k, op, row, a);
  }
  k.Fail(forced.empty() ? Unimplemented(fmt::format("{}: no row for the GPU takes these arguments",
                                                    kNames[static_cast<size_t>(op)]))
                        : InvalidArgument(fmt::format(
                              "--kernels: row '{}' cannot run these arguments", forced)));
}

std::vector<OpInfo> Table() {
  return {
      Info(Op::kEmbed, kEmbed),
      Info(Op::kMhcBoundary, kMhcBoundary),
      Info(Op::kMhcHead, kMhcHead),
      Info(Op::kRmsNorm, kRmsNorm),
      Info(Op::kLinear, kLinear),
      Info(Op::kLinears, kLinears),
      Info(Op::kGroupedLinear, kGroupedLinear),
      Info(Op::kQueryRope, kQueryRope),
      Info(Op::kWindowInsert, kWindowInsert),
      Info(Op::kCompress, kCompress),
      Info(Op::kIndexQuery, kIndexQuery),
      Info(Op::kFused, kFused),
      Info(Op::kIndexTopk, kIndexTopk),
      Info(Op::kSparseAttention, kSparseAttention),
      Info(Op::kRouter, kRouter),
      Info(Op::kExperts, kExperts),
      Info(Op::kMtpJoin, kMtpJoin),
      Info(Op::kSample, kSample),
      {Op::kAllReduce,
       kNames[static_cast<size_t>(Op::kAllReduce)],
       {std::begin(kAllReduce), std::end(kAllReduce)}},
  };
}

// "op=row, op=row" for every row of the ops that is built.
std::string ListRows(const std::vector<OpInfo>& ops) {
  std::string text;
  for (const OpInfo& info : ops) {
    for (const RowInfo& r : info.rows) {
      if (!r.built) continue;
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

// What every card of sm_90 gives a block; a device that plays a smaller card (DeviceLimits) is
// none.
constexpr int64_t kSm90Shared = 227 * 1024;

bool RunsHere(Target target, const Gpu* gpu) {
  if (target == Target::kHost || gpu == nullptr) return target == Target::kHost && gpu == nullptr;
  switch (target) {
    case Target::kSm90:
      return gpu->sm == 90 && gpu->shared_memory >= kSm90Shared;
    case Target::kSm120:
      return gpu->sm / 10 == 12;
    default:
      return gpu->sm >= 80;
  }
}

// clang-format off
template <> std::span<const Kernel<EmbedArgs>> RowsOf() { return kEmbed; }
template <> std::span<const Kernel<MhcBoundaryArgs>> RowsOf() { return kMhcBoundary; }
template <> std::span<const Kernel<MhcHeadArgs>> RowsOf() { return kMhcHead; }
template <> std::span<const Kernel<RmsNormArgs>> RowsOf() { return kRmsNorm; }
template <> std::span<const Kernel<LinearArgs>> RowsOf() { return kLinear; }
template <> std::span<const Kernel<LinearsArgs>> RowsOf() { return kLinears; }
template <> std::span<const Kernel<GroupedLinearArgs>> RowsOf() { return kGroupedLinear; }
template <> std::span<const Kernel<QueryRopeArgs>> RowsOf() { return kQueryRope; }
template <> std::span<const Kernel<WindowInsertArgs>> RowsOf() { return kWindowInsert; }
template <> std::span<const Kernel<CompressArgs>> RowsOf() { return kCompress; }
template <> std::span<const Kernel<IndexQueryArgs>> RowsOf() { return kIndexQuery; }
template <> std::span<const Kernel<FusedArgs>> RowsOf() { return kFused; }
template <> std::span<const Kernel<IndexTopkArgs>> RowsOf() { return kIndexTopk; }
template <> std::span<const Kernel<SparseAttentionArgs>> RowsOf() { return kSparseAttention; }
template <> std::span<const Kernel<RouterArgs>> RowsOf() { return kRouter; }
template <> std::span<const Kernel<ExpertsArgs>> RowsOf() { return kExperts; }
template <> std::span<const Kernel<MtpJoinArgs>> RowsOf() { return kMtpJoin; }
template <> std::span<const Kernel<SampleArgs>> RowsOf() { return kSample; }
// clang-format on

void Embed(Context& k, const EmbedArgs& a) { Dispatch<kEmbed>(k, Op::kEmbed, a); }
void MhcBoundary(Context& k, const MhcBoundaryArgs& a) {
  Dispatch<kMhcBoundary>(k, Op::kMhcBoundary, a);
}
void MhcHead(Context& k, const MhcHeadArgs& a) { Dispatch<kMhcHead>(k, Op::kMhcHead, a); }
void RmsNorm(Context& k, const RmsNormArgs& a) { Dispatch<kRmsNorm>(k, Op::kRmsNorm, a); }
void Linear(Context& k, const LinearArgs& a) { Dispatch<kLinear>(k, Op::kLinear, a); }
void Linears(Context& k, const LinearsArgs& a) { Dispatch<kLinears>(k, Op::kLinears, a); }
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
void Fused(Context& k, const FusedArgs& a) { Dispatch<kFused>(k, Op::kFused, a); }
void IndexTopk(Context& k, const IndexTopkArgs& a) { Dispatch<kIndexTopk>(k, Op::kIndexTopk, a); }
void SparseAttention(Context& k, const SparseAttentionArgs& a) {
  Dispatch<kSparseAttention>(k, Op::kSparseAttention, a);
}
void Router(Context& k, const RouterArgs& a) { Dispatch<kRouter>(k, Op::kRouter, a); }
void Experts(Context& k, const ExpertsArgs& a) { Dispatch<kExperts>(k, Op::kExperts, a); }
void MtpJoin(Context& k, const MtpJoinArgs& a) { Dispatch<kMtpJoin>(k, Op::kMtpJoin, a); }
void Sample(Context& k, const SampleArgs& a) { Dispatch<kSample>(k, Op::kSample, a); }

Result<Rows> Rows::Parse(std::string_view text) {
  Rows result;
  const std::vector<OpInfo> table = Table();
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
    if (item == "portable") {
      result.portable_ = true;
      continue;
    }
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
      return InvalidArgument(
          fmt::format("--kernels: unknown '{}'; valid are: {}", item,
                      known ? ListRows({*info}) : "portable, " + ListRows(table)));
    }
    result.forced_[static_cast<size_t>(info->op)] = row;
  }
  return result;
}

std::span<const RowInfo> AllReduceRows() { return kAllReduce; }

std::string RowsRun(const Context& k) {
  std::string text;
  for (const auto& info : Table()) {
    for (size_t r = 0; r < info.rows.size(); ++r) {
      if ((k.rows_run(info.op) >> r & 1) == 0) continue;
      text += fmt::format("{}{}={}", text.empty() ? "" : ",", info.name, info.rows[r].row);
    }
  }
  return text;
}

std::string RowsRun(const Context& k, Op op) {
  std::string text;
  for (const auto& info : Table()) {
    if (info.op != op) continue;
    for (size_t r = 0; r < info.rows.size(); ++r) {
      if ((k.rows_run(op) >> r & 1) == 0) continue;
      text += fmt::format("{}{}", text.empty() ? "" : ",", info.rows[r].row);
    }
  }
  return text;
}

const char* NameOf(Op op) { return kNames[static_cast<size_t>(op)]; }

std::string_view WhyNot(const RowInfo& row, Op op, const Rows& rows, const Gpu* gpu) {
  const std::string_view forced = rows.forced(op);
  if (gpu == nullptr && row.target != Target::kHost) return "needs a GPU";
  if (!row.built) return "not built";
  if (!RunsHere(row.target, gpu))
    return row.target == Target::kHost ? "needs the CPU" : "another GPU";
  if (!forced.empty()) return forced == row.row ? "" : "another row is forced";
  const bool portable = row.target == Target::kHost || row.target == Target::kSm80;
  return rows.portable() && !portable ? "not portable" : "";
}

std::string DescribeKernels(const Rows& rows, const Gpu* gpu) {
  const std::vector<OpInfo> table = Table();
  size_t width = 0;
  for (const OpInfo& info : table) {
    if (info.op == Op::kAllReduce) continue;
    for (const RowInfo& r : info.rows) width = std::max(width, std::strlen(r.needs));
  }
  std::string text = fmt::format("{:<17} {:<7} {:<13} {:<{}}  {}\n", "op", "row", "runs on",
                                 "needs", width, "here");
  for (const OpInfo& info : table) {
    if (info.op == Op::kAllReduce) continue;
    // On the host, on the GPU.
    const RowInfo* chosen[2] = {};
    const char* name = info.name;
    for (const RowInfo& r : info.rows) {
      const bool host = r.target == Target::kHost;
      std::string here(WhyNot(r, info.op, rows, host ? nullptr : gpu));
      if (here.empty()) {
        const RowInfo*& first = chosen[host ? 0 : 1];
        here = first == nullptr          ? "CHOSEN"
               : first->needs[0] == '\0' ? "a row above is chosen"
                                         : fmt::format("where {} does not take it", first->row);
        first = first == nullptr ? &r : first;
      }
      text += fmt::format("{:<17} {:<7} {:<13} {:<{}}  {}\n", name, r.row, RunsOn(r.target),
                          r.needs[0] == '\0' ? "-" : r.needs, width, here);
      name = "";
    }
  }
  return text;
}

}  // namespace seacliff
