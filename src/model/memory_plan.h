// What a model takes of a machine's memory, counted before anything is loaded: the weights, what a
// step needs, and the cache in what is left. Integers only. The engine sizes the cache by it, and
// `seacliff show memory` prints it (memory_report.h).
//
// On a GPU weights lie as they are stored, and all that a step needs is counted. On the host they
// are packed (kernels/common/packing.h), and what rows keep for themselves is not counted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache/size.h"
#include "config/model_config.h"

namespace seacliff {

enum class WeightKind : uint8_t { kExperts, kAttention, kShared, kEmbedding, kOther, kCount };
inline constexpr size_t kWeightKinds = static_cast<size_t>(WeightKind::kCount);

struct MemoryRequest {
  ModelConfig config;
  bool gpu = true;
  bool exact = false;              // numerics; on the host alone
  int64_t ranks = 1;               // GPUs that share the model; the plan is that of each
  bool echo = false;               // one of them is there, and stands for all
  int64_t device_memory = 0;       // bytes of the GPU or the host
  int64_t utilization = 900;       // thousandths of it that may be used; of a host all may
  CacheLimits limits;              // as given; max_positions, window and spare come from here
  std::optional<CacheSize> pages;  // a cache of exactly this size, for sequences of max_model_len
};

struct MemoryPlan {
  std::array<int64_t, kWeightKinds> weights = {};
  int64_t activations = 0;
  int64_t logits = 0, logit_rows = 0;  // with the masks of what may be sampled from them
  int64_t numbers = 0;                 // of the step: ids, positions, page tables
  int64_t workspace = 0;
  const char* workspace_op = "";  // whose it is: the op that asks for most
  CacheUnitBytes unit;
  SizedCache cache;
  int64_t spare = 0;    // pages and slots that are counted in cache.bytes but not in cache.size
  int64_t allowed = 0;  // what may be used

  int64_t weight_bytes() const;
  int64_t step_bytes() const { return activations + logits + numbers + workspace; }
  int64_t bytes() const { return weight_bytes() + step_bytes() + cache.bytes; }
  bool fits() const { return bytes() <= allowed; }
  // Sequences of this length that the cache holds at once, limited by its pages alone.
  int64_t SequencesOf(int64_t tokens) const {
    return cache.size.compressed_pages / PagesOf(tokens);
  }
};

// On a GPU without kv_cache_memory the cache gets what is left of `allowed`, and a max_model_len of
// 0 becomes the longest that fits; otherwise cache/size.h says how both are chosen. A plan that
// does not fit is no error. kInvalidArgument names a setting that makes no sense on any machine.
Result<MemoryPlan> PlanMemory(const MemoryRequest& request);

// A change of settings that makes a plan fit.
struct Remedy {
  std::string flags;      // as typed
  MemoryRequest request;  // changed accordingly
};
// For a plan that does not fit: each setting alone as far as it must be lowered (or raised), if
// that is enough; else several together; empty if even the smallest do not help. With `pages` the
// tokens of a step alone can be lowered.
std::vector<Remedy> RemediesFor(const MemoryRequest& request);
// The fewest GPUs, more than request.ranks, that would hold the model with the settings as they are
// and that can share it; 0: none.
int64_t RanksThatFit(const MemoryRequest& request);

// Workspace of the largest step, over all ops (kernels/*/op.h).
struct Workspace {
  int64_t bytes = 0;
  const char* op = "";
};
// For steps of up to `tokens` tokens of `seqs` sequences, with page tables of up to `pages` a row,
// on a rank with this config; `vocab` logits of a sequence are sampled from. Requests with very
// long lists of penalties or biases can make `sample` ask for more.
Workspace WorkspaceOf(const ModelConfig& config, int64_t vocab, int64_t tokens, int64_t seqs,
                      int64_t pages);

}  // namespace seacliff
