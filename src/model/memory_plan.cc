// Counting; see memory_plan.h.
#include "model/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string_view>
#include <utility>

#include "cache/storages.h"
#include "checkpoint/catalogue.h"
#include "kernels/common/mhc.h"
#include "kernels/common/packing.h"
#include "kernels/experts/op.h"
#include "kernels/index_topk/op.h"
#include "kernels/linear/op.h"
#include "kernels/router/op.h"
#include "kernels/sample/op.h"
#include "kernels/sparse_attention/op.h"
#include "model/device_weights.h"
#include "model/scratch.h"
#include "model/slice.h"
#include "model/step_shape.h"

namespace seacliff {
namespace {

using WeightBytes = std::array<int64_t, kWeightKinds>;

WeightKind KindOf(const TensorRow& row) {
  const auto has = [&](std::string_view part) {
    return row.pattern.find(part) != row.pattern.npos;
  };
  if (has(".ffn.experts.")) return WeightKind::kExperts;
  if (has(".ffn.shared_experts.")) return WeightKind::kShared;
  if (has(".attn.")) return WeightKind::kAttention;
  if (row.pattern == "embed.weight" || row.pattern == "head.weight") return WeightKind::kEmbedding;
  return WeightKind::kOther;
}

// Bytes of a tensor as the cpu rows have it (model/packing.h).
int64_t HostBytes(const TensorSpec& spec) {
  if (spec.shape.size() != 2 || spec.row->pattern == "embed.weight") return spec.bytes;
  Matrix m;
  m.rows = spec.shape[0];
  m.cols = spec.cols;
  const bool fp4 = spec.row->storage == StoredAs::kExpert && spec.dtype != DType::kE4m3;
  if (spec.is_scale) return fp4 ? 0 : spec.bytes;  // MXFP4 tiles hold their scales
  if (spec.dtype == DType::kBf16) {
    m.format = WeightFormat::kBf16;
  } else if (spec.dtype == DType::kE4m3) {
    m.format = WeightFormat::kFp8;
  } else if (spec.dtype == DType::kI8) {
    m.format = WeightFormat::kMxfp4;
  } else {
    return spec.bytes;
  }
  return CanPack(m) ? PackedBytes(m) : spec.bytes;
}

// `rank`: the config of one rank; `whole`: of the model.
WeightBytes CountWeights(const ModelConfig& rank, const ModelConfig& whole, bool gpu, bool exact) {
  WeightBytes weights = {};
  ForEachTensor(rank, false, [&](const TensorSpec& spec) {
    int64_t bytes = gpu ? DeviceWeights::Aligned(spec.bytes) : exact ? spec.bytes : HostBytes(spec);
    // Ids are looked up in the whole vocabulary on every rank.
    if (spec.row->present == Present::kHashed) bytes *= whole.vocab_size / rank.vocab_size;
    weights[static_cast<size_t>(KindOf(*spec.row))] += bytes;
    return true;
  });
  // Each layer's frequencies of rotation.
  if (gpu) {
    weights[static_cast<size_t>(WeightKind::kOther)] +=
        rank.layers * DeviceWeights::Aligned(rank.rope_dim / 2 * 4);
  }
  return weights;
}

// Memory that is counted and not allocated.
class Counter {
 public:
  Allocate allocate() {
    return [this](int64_t bytes) {
      bytes_ += bytes;
      return Buffer(nullptr, bytes, std::free);
    };
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

// A request with what does not depend on its limits, so that many limits can be tried.
class Planner {
 public:
  static Result<Planner> Make(const MemoryRequest& request) {
    Planner planner;
    SC_ASSIGN_OR_RETURN(planner.config_, RankConfig(request.config, request.ranks));
    planner.gpu_ = request.gpu;
    planner.dtype_ = request.exact ? DType::kF32 : DType::kBf16;
    planner.unit_ = UnitBytesOf(planner.config_, request.exact);
    planner.vocab_ = request.config.vocab_size;
    planner.weights_ = CountWeights(planner.config_, request.config, request.gpu, request.exact);
    return planner;
  }

  Result<MemoryPlan> Plan(const MemoryRequest& request) const {
    CacheLimits limits = request.limits;
    limits.max_positions = config_.max_positions;
    limits.window = config_.window;
    limits.spare = gpu_ ? 1 : 0;
    MemoryPlan plan;
    plan.weights = weights_;
    plan.unit = unit_;
    plan.spare = limits.spare;
    plan.allowed =
        gpu_ ? request.device_memory * request.utilization / 1000 : request.device_memory;
    if (request.pages) {
      const CacheSize& pages = *request.pages;
      plan.cache = {pages, limits.max_model_len, CacheBytes(pages, unit_, plan.spare)};
    } else {
      CacheLimits valid = limits;  // as far as no machine is asked
      valid.kv_cache_memory = 0;
      SC_RETURN_IF_ERROR(SizeCache(valid, unit_).status());
      if (gpu_ && limits.kv_cache_memory == 0) FillDevice(plan, limits);
      SC_ASSIGN_OR_RETURN(plan.cache, SizeCache(limits, unit_));
    }
    CountStep(limits, plan.cache.max_model_len, plan);
    return plan;
  }

  bool Fits(const MemoryRequest& request) const {
    const Result<MemoryPlan> plan = Plan(request);
    return plan.ok() && plan->fits();
  }

 private:
  // What a step needs where sequences have up to `length` tokens.
  void CountStep(const CacheLimits& limits, int64_t length, MemoryPlan& plan) const {
    const int64_t tokens = limits.max_num_batched_tokens, pages = PagesOf(length);
    const int64_t seqs =
        gpu_ ? std::min(PaddedSeqs(limits.max_num_seqs), tokens) : limits.max_num_seqs;
    Counter counter;
    const Scratch scratch(config_, dtype_, tokens, counter.allocate());
    plan.activations = counter.bytes() + tokens * config_.dim * SizeOf(dtype_);  // and head rows
    plan.logit_rows = seqs;
    // Rank 0's: all of them, and before that those of its own part of the vocabulary.
    const int64_t own = vocab_ == config_.vocab_size ? 0 : config_.vocab_size;
    plan.logits = seqs * (vocab_ + own) * static_cast<int64_t>(sizeof(float)) +
                  limits.max_num_seqs * MaskBytes(vocab_);
    if (!gpu_) return;
    plan.numbers = StepNumberBytes(tokens, seqs, PaddedWidth(pages), tokens);
    const Workspace workspace = WorkspaceOf(config_, vocab_, tokens, seqs, PaddedWidth(pages));
    plan.workspace = workspace.bytes;
    plan.workspace_op = workspace.op;
  }

  // Gives the cache what the rest leaves, and a length if none is given.
  void FillDevice(MemoryPlan& plan, CacheLimits& limits) const;

  ModelConfig config_;
  bool gpu_ = true;
  DType dtype_ = DType::kBf16;
  int64_t vocab_ = 0;
  CacheUnitBytes unit_;
  WeightBytes weights_ = {};
};

// The largest multiple of `step` in [low, high] for which `fits` holds, which holds for all below
// it then; 0: none.
int64_t LargestThatFits(int64_t low, int64_t high, int64_t step,
                        const std::function<bool(int64_t)>& fits) {
  int64_t good = (low + step - 1) / step - 1, bad = high / step + 1;
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (fits(middle * step) ? good : bad) = middle;
  }
  return good * step >= low ? good * step : 0;
}

void Planner::FillDevice(MemoryPlan& plan, CacheLimits& limits) const {
  const auto rest = [&](int64_t length) {
    CountStep(limits, length, plan);
    return plan.allowed - plan.weight_bytes() - plan.step_bytes();
  };
  const auto least = [&](int64_t length) {
    CacheLimits with = limits;
    with.max_model_len = length;
    return LeastCacheBytes(with, unit_);
  };
  if (limits.max_model_len == 0) {
    const auto fits = [&](int64_t length) { return least(length) <= rest(length); };
    const int64_t most = limits.max_positions;
    limits.max_model_len = fits(most) ? most
                                      : std::max(LargestThatFits(1, most, kPageTokens, fits),
                                                 std::min(most, kPageTokens));
  }
  const int64_t length = limits.max_model_len;
  limits.kv_cache_memory = std::max(rest(length), least(length));
}

}  // namespace

int64_t MemoryPlan::weight_bytes() const {
  return std::accumulate(weights.begin(), weights.end(), int64_t{0});
}

Workspace WorkspaceOf(const ModelConfig& c, int64_t vocab, int64_t tokens, int64_t seqs,
                      int64_t pages) {
  const auto has = [&](int64_t ratio) {
    return std::find(c.ratios.begin(), c.ratios.begin() + c.layers, ratio) !=
           c.ratios.begin() + c.layers;
  };
  // A query's compressed keys: those picked, or one for each page.
  const int64_t keys =
      c.window + std::max(has(4) ? c.index_topk : 0, has(128) ? pages * (kPageTokens / 128) : 0);
  const int64_t group_cols = (c.heads * c.head_dim / c.o_groups + 127) / 128 * 128;
  const int64_t cols = std::max({c.dim, c.q_rank, c.o_groups * group_cols, c.o_groups * c.o_rank});
  Workspace most;
  for (const Workspace& op : {
           Workspace{MhcCudaWorkspace(tokens, c.dim, c.mix_dim()), "mhc_boundary"},
           Workspace{linear::CudaWorkspace(tokens, cols), "linear"},
           Workspace{router::CudaWorkspace(tokens, c.experts), "router"},
           Workspace{experts::CudaWorkspace(tokens, c.picks, c.experts, c.dim, c.inter_dim),
                     "experts"},
           Workspace{sparse_attention::CudaWorkspace(tokens, seqs, c.heads, keys),
                     "sparse_attention"},
           Workspace{
               has(4) ? index_topk::CudaWorkspace(tokens, pages * (kPageTokens / 4), c.index_topk)
                      : 0,
               "index_topk"},
           // Every sequence may bring the counts of all its tokens.
           Workspace{
               sample::CudaWorkspace(seqs, vocab, seqs * std::min(vocab, pages * kPageTokens)),
               "sample"},
       }) {
    if (op.bytes > most.bytes) most = op;
  }
  return most;
}

Result<MemoryPlan> PlanMemory(const MemoryRequest& request) {
  SC_ASSIGN_OR_RETURN(const Planner planner, Planner::Make(request));
  return planner.Plan(request);
}

std::vector<Remedy> RemediesFor(const MemoryRequest& request) {
  std::vector<Remedy> remedies;
  const Result<Planner> planner = Planner::Make(request);
  if (!planner.ok()) return remedies;
  const CacheLimits& now = request.limits;
  constexpr int64_t kMega = int64_t{1} << 20;

  // The request with one of its limits changed.
  const auto with = [&](int64_t CacheLimits::*field, int64_t value) {
    MemoryRequest changed = request;
    changed.limits.*field = value;
    return changed;
  };
  const auto lower = [&](const char* flag, int64_t CacheLimits::*field, int64_t least, int64_t step,
                         int64_t unit, const char* suffix) {
    const int64_t value = LargestThatFits(least, now.*field - 1, step * unit,
                                          [&](int64_t v) { return planner->Fits(with(field, v)); });
    if (value == 0) return;
    remedies.push_back({fmt::format("{} {}{}", flag, value / unit, suffix), with(field, value)});
  };
  lower("--max-num-batched-tokens", &CacheLimits::max_num_batched_tokens, now.max_num_seqs,
        now.max_num_batched_tokens > kPageTokens ? kPageTokens : 1, 1, "");
  if (request.pages) return remedies;
  lower("--max-model-len", &CacheLimits::max_model_len, 1, kPageTokens, 1, "");
  lower("--max-num-seqs", &CacheLimits::max_num_seqs, 1, 1, 1, "");
  lower("--kv-cache-memory", &CacheLimits::kv_cache_memory, 1, 1, kMega, "M");
  constexpr int64_t kMostUtilization = 980;
  for (int64_t u = request.utilization / 10 * 10 + 10; request.gpu && u <= kMostUtilization;
       u += 10) {
    MemoryRequest changed = request;
    changed.utilization = u;
    if (!planner->Fits(changed)) continue;
    remedies.push_back({fmt::format("--gpu-memory-utilization 0.{:02}", u / 10), changed});
    break;
  }
  if (!remedies.empty()) return remedies;

  // Several: short steps, then as many sequences as fit, then one of them as long as it can be.
  constexpr int64_t kFewTokens = 256;
  MemoryRequest changed = request;
  CacheLimits& limits = changed.limits;
  limits.max_num_batched_tokens = std::min(now.max_num_batched_tokens, kFewTokens);
  limits.kv_cache_memory = 0;
  const auto largest = [&](int64_t CacheLimits::*field, int64_t most, int64_t step) {
    limits.*field = LargestThatFits(1, most, step, [&](int64_t value) {
      limits.*field = value;
      return planner->Fits(changed);
    });
    return limits.*field != 0;
  };
  if (!largest(&CacheLimits::max_num_seqs, std::min(now.max_num_seqs, kFewTokens), 1)) {
    limits.max_num_seqs = 1;
    const int64_t most = now.max_model_len;
    if (most == 0 || !largest(&CacheLimits::max_model_len, most, kPageTokens)) return remedies;
  }
  std::string flags;
  const auto add = [&](const char* flag, int64_t CacheLimits::*field) {
    if (limits.*field == now.*field) return;
    flags += fmt::format("{}{} {}", flags.empty() ? "" : " ", flag, limits.*field);
  };
  add("--max-num-batched-tokens", &CacheLimits::max_num_batched_tokens);
  add("--max-num-seqs", &CacheLimits::max_num_seqs);
  add("--max-model-len", &CacheLimits::max_model_len);
  add("--kv-cache-memory", &CacheLimits::kv_cache_memory);
  remedies.push_back({flags, changed});
  return remedies;
}

int64_t RanksThatFit(const MemoryRequest& request) {
  constexpr int64_t kMostRanks = 64;
  MemoryRequest changed = request;
  while (request.gpu && ++changed.ranks <= kMostRanks) {
    const Result<MemoryPlan> plan = PlanMemory(changed);
    if (plan.ok() && plan->fits()) return changed.ranks;
  }
  return 0;
}

}  // namespace seacliff
