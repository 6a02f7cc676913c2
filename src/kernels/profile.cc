// What each op must read and compute, and the table of what ran.
#include "kernels/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/compress/op.h"
#include "kernels/device.h"
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

namespace seacliff {
namespace {

// As stored in the checkpoint, whatever the layout in memory.
int64_t StoredBytes(const Matrix& m) {
  const int64_t scale_rows = m.format == WeightFormat::kFp8     ? (m.rows + 127) / 128
                             : m.format == WeightFormat::kMxfp4 ? m.rows
                                                                : 0;
  return m.rows * m.row_bytes() + scale_rows * m.scale_cols();
}

const char* FormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kMxfp4:
      return "mxfp4";
  }
  return "?";
}

std::string MatrixKind(const Matrix& m) {
  return fmt::format("{}x{} {}", m.rows, m.cols, FormatName(m.format));
}

Work Product(const Matrix& m, int64_t tokens) {
  return {StoredBytes(m), 2 * tokens * m.rows * m.cols};
}

Work operator+(const Work& a, const Work& b) { return {a.bytes + b.bytes, a.flops + b.flops}; }

// First and last position of a sequence of the step; last < first if it brings no token.
struct Span {
  int64_t first, last;
};
Span SpanOf(const Batch& b, int64_t seq) {
  const int64_t begin = b.seq_begin(seq), end = b.seq_begin(seq + 1);
  if (begin == end) return {0, -1};
  return {b.positions(begin), b.positions(end - 1)};
}

Work MhcWork(const MhcWeights& hc, int64_t tokens) {
  Work work = Product(hc.fn, tokens);
  work.bytes += (hc.base.shape[0] + hc.scale.shape[0]) * 4;
  return work;
}

// Copies of a device's arrays that the host can read.
class HostCopies {
 public:
  explicit HostCopies(Device* device) : device_(device) {}

  template <typename T, int N>
  void Take(View<T, N>& v) {
    if (device_ == nullptr || !v) return;
    const int64_t bytes = v.size() * static_cast<int64_t>(sizeof(T));
    buffers_.push_back(Buffer::Host(bytes));
    device_->Download(buffers_.back().data(), v.data, bytes);
    v = View<T, N>(static_cast<T*>(buffers_.back().data()), v.shape);
  }
  void Take(Batch& b) {
    Take(b.seq_begin);
    Take(b.positions);
  }

 private:
  Device* device_;
  std::vector<Buffer> buffers_;
};

// WorkOf with copies of the fields that tell it.
template <typename Args, typename... Fields>
Work WorkOnHost(Args a, Device* device, Fields... fields) {
  HostCopies copies(device);
  (copies.Take(a.*fields), ...);
  return WorkOf(a);
}

int64_t EntryBytesOf(const PagedView& v) { return EntryBytes(v.format, v.dim); }

}  // namespace

Work WorkOf(const EmbedArgs& a) { return {a.ids.shape[0] * a.table.row_bytes(), 0}; }

Work WorkOf(const MhcBoundaryArgs& a) {
  return MhcWork(a.hc, a.streams.shape[0]) + Work{a.weight.shape[0] * 2, 0};
}

Work WorkOf(const MhcHeadArgs& a) {
  return MhcWork(a.hc, a.rows.shape[0]) + Work{a.weight.shape[0] * 2, 0};
}

Work WorkOf(const RmsNormArgs& a) { return {a.weight.shape[0] * 2, 0}; }
Work WorkOf(const LinearArgs& a) { return Product(a.w, a.x.shape[0]); }

Work WorkOf(const LinearsArgs& a) {
  Work work;
  for (const LinearsArgs::Part& part : a.parts()) work = work + Product(part.w, a.x.shape[0]);
  return work;
}

Work WorkOf(const GroupedLinearArgs& a) {
  return Product(a.w, a.x.shape[0]);  // a token meets each row once, with its group's part
}

Work WorkOf(const QueryRopeArgs&) { return {}; }
Work WorkOf(const WindowInsertArgs& a) { return {a.weight.shape[0] * 2, 0}; }

Work WorkOf(const CompressArgs& a) {
  Work work{a.ape.shape[0] * a.ape.shape[1] * 4 + a.weight.shape[0] * 2, 0};
  const int64_t row_bytes = 2 * a.ape.shape[1] * 4;
  for (int64_t s = 0; s < a.batch.seqs(); ++s) {
    const Span span = SpanOf(a.batch, s);
    const int64_t entries = (span.last + 1) / a.ratio - span.first / a.ratio;
    work.bytes += std::max<int64_t>(entries, 0) * a.ratio * row_bytes;
  }
  return work;
}

Work WorkOf(const IndexQueryArgs&) { return {}; }

Work WorkOf(const FusedArgs& a) { return WorkOf(a, nullptr); }

Work WorkOf(const IndexTopkArgs& a) {
  Work work;
  for (int64_t s = 0; s < a.batch.seqs(); ++s) {
    const Span span = SpanOf(a.batch, s);
    work.bytes += (span.last + 1) / a.ratio * EntryBytesOf(a.entries);
    for (int64_t p = span.first; p <= span.last; ++p) {
      work.flops += (p + 1) / a.ratio * 2 * a.q.shape[1] * a.q.shape[2];
    }
  }
  return work;
}

Work WorkOf(const SparseAttentionArgs& a) {
  Work work;
  const int64_t topk = a.picks ? a.picks.shape[1] : 0;
  for (int64_t s = 0; s < a.batch.seqs(); ++s) {
    const Span span = SpanOf(a.batch, s);
    if (span.last < span.first) continue;
    int64_t picked = 0;
    for (int64_t p = span.first; p <= span.last; ++p) {
      const int64_t window = std::min(a.window_len, p + 1);
      int64_t entries = a.ratio == 0 ? 0 : (p + 1) / a.ratio;
      if (a.picks) entries = std::min(entries, topk);
      picked += entries;
      work.flops += (window + entries) * a.q.shape[1] * a.q.shape[2] * 4;
    }
    const int64_t tokens = span.last - span.first + 1;
    work.bytes += std::min(a.window_len + tokens - 1, span.last + 1) * EntryBytesOf(a.window);
    // Entries that several tokens pick are read once, at best.
    if (a.ratio != 0) {
      const int64_t all = (span.last + 1) / a.ratio;
      work.bytes += std::min(all, picked) * EntryBytesOf(a.compressed);
    }
  }
  return work;
}

Work WorkOf(const RouterArgs& a) {
  // With a table the scores of the picked experts alone are needed.
  const int64_t tokens = a.x.shape[0], picks = a.picks.shape[1];
  if (!a.table) return Product(a.gate, tokens) + Work{a.bias.shape[0] * 4, 0};
  std::set<int64_t> experts;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < picks; ++i) experts.insert(a.table(a.ids(t), i));
  }
  return {static_cast<int64_t>(experts.size()) * a.gate.row_bytes() + tokens * picks * 8,
          2 * tokens * picks * a.gate.cols};
}

Work WorkOf(const ExpertsArgs& a) {
  const int64_t tokens = a.picks.shape[0], picks = a.picks.shape[1];
  const auto bytes = [](const ExpertWeights& w) {
    return StoredBytes(w.gate) + StoredBytes(w.up) + StoredBytes(w.down);
  };
  const auto flops = [](const ExpertWeights& w) { return 6 * w.gate.rows * w.gate.cols; };
  Work work{bytes(a.shared), tokens * flops(a.shared)};
  std::set<int32_t> distinct;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < picks; ++i) distinct.insert(a.picks(t, i));
  }
  // Where the device is at fault its copies may hold anything; the step's error tells.
  const auto experts = static_cast<int32_t>(a.experts.size());
  for (const int32_t e : distinct) {
    if (e >= 0 && e < experts) work.bytes += bytes(a.experts[static_cast<size_t>(e)]);
  }
  work.flops += tokens * picks * flops(a.experts.front());
  return work;
}

Work WorkOf(const MtpJoinArgs&) { return {}; }
Work WorkOf(const SampleArgs&) { return {}; }

Work WorkOf(const CompressArgs& a, Device* device) {
  return WorkOnHost(a, device, &CompressArgs::batch);
}
Work WorkOf(const FusedArgs& a, Device* device) {
  Work work;
  const auto add = [&](const auto& part) {
    if (part) work = work + WorkOf(*part, device);
  };
  add(a.norm);
  add(a.window);
  add(a.keys);
  add(a.index_keys);
  add(a.query);
  add(a.index_query);
  return work;
}
Work WorkOf(const IndexTopkArgs& a, Device* device) {
  return WorkOnHost(a, device, &IndexTopkArgs::batch);
}
Work WorkOf(const SparseAttentionArgs& a, Device* device) {
  return WorkOnHost(a, device, &SparseAttentionArgs::batch);
}
Work WorkOf(const RouterArgs& a, Device* device) {
  return WorkOnHost(a, device, &RouterArgs::table, &RouterArgs::ids);
}
Work WorkOf(const ExpertsArgs& a, Device* device) {
  return WorkOnHost(a, device, &ExpertsArgs::picks);
}

std::string KindOf(const LinearArgs& a) { return MatrixKind(a.w); }
std::string KindOf(const LinearsArgs& a) { return fmt::format("{} of {}", a.count, a.x.shape[1]); }
std::string KindOf(const GroupedLinearArgs& a) { return MatrixKind(a.w); }
std::string KindOf(const CompressArgs& a) {
  return fmt::format("ratio {} dim {}", a.ratio, a.weight.shape[0]);
}
std::string KindOf(const FusedArgs& a) {
  const std::pair<bool, const char*> parts[] = {
      {a.norm.has_value(), "norm"},   {a.window.has_value(), "window"},
      {a.keys.has_value(), "keys"},   {a.index_keys.has_value(), "index_keys"},
      {a.query.has_value(), "query"}, {a.index_query.has_value(), "index_query"}};
  std::string kind;
  for (const auto& [there, name] : parts) {
    if (there) kind += (kind.empty() ? "" : " ") + std::string(name);
  }
  return kind;
}
std::string KindOf(const SparseAttentionArgs& a) { return fmt::format("ratio {}", a.ratio); }

void Profile::Add(const CallName& name, int64_t nanoseconds, const Work& work) {
  Line& line = lines_[name];
  ++line.calls;
  line.nanoseconds += nanoseconds;
  line.work = line.work + work;
}

Profile::Line Profile::total() const {
  Line sum;
  for (const auto& [name, line] : lines_) {
    sum.calls += line.calls;
    sum.nanoseconds += line.nanoseconds;
    sum.work = sum.work + line.work;
  }
  return sum;
}

std::string Profile::Describe(double seconds) const {
  std::map<std::string, Line> calls;
  for (const auto& [name, line] : lines_) {
    Line& sum = calls[name.call];
    sum = {sum.calls + line.calls, sum.nanoseconds + line.nanoseconds, sum.work + line.work};
  }
  std::vector<std::pair<std::string, Line>> lines(calls.begin(), calls.end());
  std::sort(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
    return a.second.nanoseconds > b.second.nanoseconds;
  });
  std::string text = fmt::format("{:<40} {:>7} {:>10} {:>7} {:>9} {:>9} {:>9}\n", "op=row", "calls",
                                 "ms", "share", "us/call", "GB/s", "GFLOP/s");
  const auto add = [&](const std::string& name, const Line& line) {
    const auto ns = static_cast<double>(std::max<int64_t>(line.nanoseconds, 1));
    text += fmt::format(
        "{:<40} {:>7} {:>10.2f} {:>6.1f}% {:>9.1f} {:>9.2f} {:>9.1f}\n", name, line.calls, ns / 1e6,
        ns / seconds / 1e7, ns / 1e3 / static_cast<double>(std::max<int64_t>(line.calls, 1)),
        static_cast<double>(line.work.bytes) / ns, static_cast<double>(line.work.flops) / ns);
  };
  for (const auto& [name, line] : lines) add(name, line);
  const Line sum = total();
  add("all ops", sum);
  const double rest = seconds * 1e3 - static_cast<double>(sum.nanoseconds) / 1e6;
  text += fmt::format("{:<40} {:>7} {:>10.2f} {:>6.1f}%\n", "between ops", "", rest,
                      rest / seconds / 10);
  return text;
}

}  // namespace seacliff
