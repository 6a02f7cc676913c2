// Commands as 32-bit numbers, the terms of nodes, and the loop of a node that follows.
#include "model/nodes.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "model/parallel_model.h"
#include "model/rank.h"
#include "model/slice.h"

namespace seacliff {
namespace {

class Writer {
 public:
  void Put(int64_t value) { numbers_.push_back(static_cast<int32_t>(value)); }
  template <int N>
  void Put(const View<const int32_t, N>& v) {
    for (const int64_t n : v.shape) Put(n);
    numbers_.insert(numbers_.end(), v.data, v.data + v.size());
  }
  std::vector<std::byte> Take() const {
    std::vector<std::byte> bytes(numbers_.size() * sizeof(int32_t));
    std::memcpy(bytes.data(), numbers_.data(), bytes.size());
    return bytes;
  }

 private:
  std::vector<int32_t> numbers_;
};

class Reader {
 public:
  explicit Reader(const std::vector<std::byte>& bytes)
      : next_(reinterpret_cast<const int32_t*>(bytes.data())),
        end_(next_ + bytes.size() / sizeof(int32_t)) {}

  int64_t Number() {
    if (next_ == end_) ok_ = false;
    return ok_ ? *next_++ : 0;
  }
  template <int N>
  void Get(View<const int32_t, N>& v) {
    std::array<int64_t, N> shape;
    for (int64_t& n : shape) {
      n = Number();
      ok_ = ok_ && n >= 0;
    }
    v = View<const int32_t, N>(next_, shape);
    ok_ = ok_ && v.size() <= end_ - next_;
    if (ok_) next_ += v.size();
  }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && next_ == end_; }

 private:
  const int32_t *next_, *end_;
  bool ok_ = true;
};

// Calls f(view) for every array of a batch.
template <typename B, typename F>
void ForArrays(B& b, const F& f) {
  f(b.ids);
  f(b.positions);
  f(b.seq_of);
  f(b.seq_begin);
  f(b.slots);
  f(b.window_pages);
  f(b.compressed_pages);
  f(b.logit_rows);
}

std::string TermsOf(const ModelOptions& o) {
  return fmt::format(
      "load_format {}\nnumerics {}\noutput_projection {}\nkernels {}\nseed {}\nmtp {}\n"
      "max_num_batched_tokens {}\nwindow_pages {}\ncompressed_pages {}\nslots {}\nsnapshots {}\n",
      o.load_format, o.numerics == Numerics::kExact ? "exact" : "checkpoint",
      o.fp8_output_projection ? "fp8" : "bf16", o.kernels, o.seed, o.mtp, o.max_tokens,
      o.window_pages, o.compressed_pages, o.slots, o.snapshots);
}

Status Obey(const RankCommand& command, Model& model) {
  double microseconds = 0;
  return RunCommand(command, model, &microseconds);
}

}  // namespace

std::vector<std::byte> EncodeCommand(const RankCommand& command) {
  Writer w;
  w.Put(static_cast<int64_t>(command.kind));
  const ForwardTrace* trace = command.trace;
  w.Put(trace == nullptr ? -1 : trace->token);
  const bool margins = trace != nullptr && trace->expert_margin;
  w.Put(margins ? trace->expert_margin.shape[0] : 0);
  w.Put(margins ? trace->expert_margin.shape[1] : 0);
  ForArrays(command.batch, [&](const auto& v) { w.Put(v); });
  w.Put(command.next_ids);
  w.Put(static_cast<int64_t>(command.copies.size()));
  for (const RowCopy& copy : command.copies) {
    w.Put(copy.slot);
    w.Put(copy.snapshot);
    w.Put(copy.position);
    w.Put(copy.to_slot ? 1 : 0);
  }
  return w.Take();
}

Status DecodedCommand::Decode(std::vector<std::byte> bytes) {
  bytes_ = std::move(bytes);
  Reader r(bytes_);
  command_ = {};
  const int64_t kind = r.Number(), token = r.Number();
  const int64_t layers = r.Number(), tokens = r.Number();
  ForArrays(command_.batch, [&](auto& v) { r.Get(v); });
  r.Get(command_.next_ids);
  copies_.clear();
  for (int64_t left = r.Number(); left > 0 && r.ok(); --left) {
    RowCopy& copy = copies_.emplace_back();
    copy.slot = static_cast<int32_t>(r.Number());
    copy.snapshot = static_cast<int32_t>(r.Number());
    copy.position = r.Number();
    copy.to_slot = r.Number() != 0;
  }
  const bool known = kind >= 0 && kind <= static_cast<int64_t>(RankCommand::Kind::kStop);
  if (!r.done() || !known) return InvalidArgument("node 0 sent what is no command");
  command_.kind = static_cast<RankCommand::Kind>(kind);
  command_.copies = copies_;
  if (token < 0) return OkStatus();
  trace_ = {};
  trace_.token = token;
  if (layers > 0) {
    margins_.resize(static_cast<size_t>(2 * layers * tokens));
    trace_.expert_margin = {margins_.data(), {layers, tokens}};
    trace_.index_margin = {margins_.data() + layers * tokens, {layers, tokens}};
  }
  command_.trace = &trace_;
  return OkStatus();
}

Result<std::unique_ptr<TcpNode>> JoinNodes(const ModelOptions& options) {
  if (options.rendezvous.empty()) {
    return InvalidArgument("nnodes: --rendezvous HOST:PORT must say where node 0 is");
  }
  if (options.device == "cuda") {
    return Unimplemented("nnodes: several hosts share a model on the CPU alone (--device cpu)");
  }
  TcpOptions tcp;
  tcp.address = options.rendezvous;
  tcp.nodes = options.nodes;
  tcp.node = options.node_rank;
  tcp.ranks = options.tensor_parallel_size;
  tcp.terms = TermsOf(options);
  tcp.rank_timeout = std::chrono::milliseconds(std::llround(options.rank_timeout * 1000));
  return TcpNode::Join(tcp);
}

Status Model::Follow(const ModelOptions& options, const LoadProgress& progress) {
  if (options.nodes == 1) return InvalidArgument("node_rank: there is one node (--nnodes)");
  SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(options));
  SC_RETURN_IF_ERROR(RankConfig(config, options.tensor_parallel_size).status());
  SC_ASSIGN_OR_RETURN(const std::unique_ptr<TcpNode> node, JoinNodes(options));
  auto model = LoadRanks(options, {}, node->TakeRanks(), progress);
  SC_RETURN_IF_ERROR(node->Report(model.status()));
  SC_RETURN_IF_ERROR(model.status());
  SC_LOG_INFO("node {}: computing for node 0", options.node_rank);
  DecodedCommand decoded;
  while (true) {
    SC_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, node->Receive());
    SC_RETURN_IF_ERROR(decoded.Decode(std::move(bytes)));
    if (decoded.command().kind == RankCommand::Kind::kStop) return OkStatus();
    // All nodes have the same errors of a step, which node 0 tells.
    const Status status = Obey(decoded.command(), **model);
    if (status.code() == Code::kUnavailable) return status;
  }
}

}  // namespace seacliff
