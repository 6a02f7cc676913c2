// Engine::Load: from options to a running engine. Decides sizes; the model's own loading is below.
#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "base/log.h"
#include "config/model_config.h"
#include "engine/engine_loop.h"
#include "model/memory_report.h"
#include "model/model.h"
#include "seacliff/engine.h"

namespace seacliff {
namespace {

Result<Numerics> ParseNumerics(const std::string& text) {
  if (text == "checkpoint") return Numerics::kCheckpoint;
  if (text == "exact") return Numerics::kExact;
  return InvalidArgument(fmt::format("numerics must be checkpoint or exact, got \"{}\"", text));
}

Result<MemoryPlan> PlanFor(const EngineOptions& options, bool exact, const ModelConfig& config) {
  if (options.gpu_memory_utilization <= 0 || options.gpu_memory_utilization > 1) {
    return InvalidArgument(
        fmt::format("gpu_memory_utilization must be above 0 and at most 1, got {}",
                    options.gpu_memory_utilization));
  }
  MemoryRequest request;
  request.config = config;
  request.ranks = options.tensor_parallel_size;
  request.echo = options.echo_ranks;
  request.exact = exact;
  request.utilization = std::llround(options.gpu_memory_utilization * 1000);
  request.limits.max_num_seqs = options.max_num_seqs;
  request.limits.max_num_batched_tokens = options.max_num_batched_tokens;
  request.limits.max_model_len = options.max_model_len;
  request.limits.prefix_caching = options.prefix_caching;
  request.limits.kv_cache_memory = options.kv_cache_memory;
  return PlanLoading(options.device, std::move(request));
}

constexpr int32_t kUnpacedTokens = 4096;

// What the options come to.
struct Loading {
  ModelOptions model;
  MemoryPlan plan;
};

Result<Loading> Prepare(const EngineOptions& options) {
  if (options.load_format != "auto" && options.load_format != "dummy") {
    return InvalidArgument(
        fmt::format("load_format must be auto or dummy, got \"{}\"", options.load_format));
  }
  if (options.threads < 0) return InvalidArgument("threads must not be negative");
  SC_ASSIGN_OR_RETURN(const Numerics numerics, ParseNumerics(options.numerics));
  if (options.output_projection != "bf16" && options.output_projection != "fp8") {
    return InvalidArgument(fmt::format("output_projection must be bf16 or fp8, got \"{}\"",
                                       options.output_projection));
  }
  SC_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(options.model_dir));

  Loading loading;
  SC_ASSIGN_OR_RETURN(loading.plan, PlanFor(options, numerics == Numerics::kExact, config));
  const CacheSize& cache = loading.plan.cache.size;
  ModelOptions& model = loading.model;
  model.dir = options.model_dir;
  model.load_format = options.load_format;
  model.numerics = numerics;
  model.fp8_output_projection = options.output_projection == "fp8";
  model.repack_cache = options.repack_cache;
  model.device = options.device;
  model.kernels = options.kernels;
  model.tensor_parallel_size = options.tensor_parallel_size;
  model.nodes = options.nodes;
  model.node_rank = options.node_rank;
  model.rendezvous = options.rendezvous;
  model.rank_timeout = options.rank_timeout;
  model.nccl_library = options.nccl_library;
  model.echo_ranks = options.echo_ranks;
  model.threads = options.threads;
  model.seed = options.seed;
  model.max_tokens = options.max_num_batched_tokens;
  model.window_pages = cache.window_pages;
  model.compressed_pages = cache.compressed_pages;
  model.slots = cache.slots;
  model.snapshots = cache.snapshots;
  model.workspace = loading.plan.workspace;
  return loading;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Load(const EngineOptions& options,
                                             const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(const Loading loading, Prepare(options));
  SC_ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Model::Load(loading.model, progress));
  SC_ASSIGN_OR_RETURN(TokenMasks masks,
                      TokenMasks::Make(model->context().device(), options.max_num_seqs,
                                       model->config().vocab_size));
  SC_LOG_INFO("{}", SummarizeCache(loading.plan));
  const bool on_device = model->context().device() != nullptr;

  EngineLoopOptions loop;
  loop.max_model_len = static_cast<int32_t>(loading.plan.cache.max_model_len);
  loop.max_num_seqs = options.max_num_seqs;
  loop.max_num_batched_tokens = options.max_num_batched_tokens;
  loop.max_waiting = options.max_waiting;
  loop.unpaced_tokens = options.long_prefill_token_threshold;
  if (loop.unpaced_tokens < 0) loop.unpaced_tokens = on_device ? kUnpacedTokens : 0;
  loop.cache = loading.plan.cache.size;
  loop.seed = options.seed;
  loop.on_lost = options.on_lost;
  return std::unique_ptr<Engine>(
      std::make_unique<EngineLoop>(std::move(model), std::move(masks), loop));
}

Status Engine::Follow(const EngineOptions& options, const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(const Loading loading, Prepare(options));
  return Model::Follow(loading.model, progress);
}

}  // namespace seacliff
