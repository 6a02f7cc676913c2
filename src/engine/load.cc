// Engine::Load: from options to a running engine. Decides sizes; the model's own loading is below.
#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "cache/plan.h"
#include "cache/storages.h"
#include "config/model_config.h"
#include "engine/engine_loop.h"
#include "model/model.h"
#include "seacliff/engine.h"

namespace seacliff {
namespace {

Result<Numerics> ParseNumerics(const std::string& text) {
  if (text == "checkpoint") return Numerics::kCheckpoint;
  if (text == "exact") return Numerics::kExact;
  return InvalidArgument(fmt::format("numerics must be checkpoint or exact, got \"{}\"", text));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Load(const EngineOptions& options,
                                             const LoadProgress& progress) {
  if (options.load_format != "auto" && options.load_format != "dummy") {
    return InvalidArgument(
        fmt::format("load_format must be auto or dummy, got \"{}\"", options.load_format));
  }
  if (options.threads < 0) return InvalidArgument("threads must not be negative");
  SC_ASSIGN_OR_RETURN(const Numerics numerics, ParseNumerics(options.numerics));
  SC_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(options.model_dir));

  CacheLimits limits;
  limits.max_num_seqs = options.max_num_seqs;
  limits.max_num_batched_tokens = options.max_num_batched_tokens;
  limits.max_model_len = options.max_model_len;
  limits.max_positions = config.max_positions;
  limits.kv_cache_memory = options.kv_cache_memory;
  limits.window = config.window;
  SC_ASSIGN_OR_RETURN(const SizedCache cache,
                      SizeCache(limits, UnitBytesOf(config, numerics == Numerics::kExact)));

  ModelOptions model_options;
  model_options.dir = options.model_dir;
  model_options.load_format = options.load_format;
  model_options.numerics = numerics;
  model_options.repack_cache = options.repack_cache;
  model_options.device = options.device;
  model_options.kernels = options.kernels;
  model_options.threads = options.threads;
  model_options.seed = options.seed;
  model_options.max_tokens = options.max_num_batched_tokens;
  model_options.window_pages = cache.size.window_pages;
  model_options.compressed_pages = cache.size.compressed_pages;
  model_options.slots = cache.size.slots;
  SC_ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Model::Load(model_options, progress));
  SC_LOG_INFO("cache: {:.1f} MB, {} tokens, longest sequence {}, {} sequences at once",
              static_cast<double>(cache.bytes) / 1e6, cache.size.compressed_pages * kPageTokens,
              cache.max_model_len, options.max_num_seqs);

  EngineLoopOptions loop;
  loop.max_model_len = static_cast<int32_t>(cache.max_model_len);
  loop.max_num_seqs = options.max_num_seqs;
  loop.max_num_batched_tokens = options.max_num_batched_tokens;
  loop.cache = cache.size;
  loop.seed = options.seed;
  return std::unique_ptr<Engine>(std::make_unique<EngineLoop>(std::move(model), loop));
}

}  // namespace seacliff
