// Fuzz target: config.json. A config that is taken has sizes that the rest of the engine may
// multiply.
#include <cmath>
#include <string>

#include "base/log.h"
#include "config/model_config.h"
#include "tests/fuzz/fuzz.h"

namespace seacliff {
namespace {

void CheckAccepted(const ModelConfig& c) {
  for (const int64_t size :
       {c.vocab_size,     c.dim,        c.layers,  c.inter_dim,      c.experts,
        c.shared_experts, c.picks,      c.heads,   c.head_dim,       c.rope_dim,
        c.q_rank,         c.o_groups,   c.o_rank,  c.window,         c.index_heads,
        c.index_dim,      c.index_topk, c.streams, c.sinkhorn_iters, c.rope_original_len,
        c.max_positions}) {
    FUZZ_REQUIRE(size > 0 && size <= int64_t{1} << 30);
  }
  for (const double number : {c.route_scale, c.swiglu_limit, c.hc_eps, c.norm_eps, c.rope_theta,
                              c.compress_rope_theta, c.rope_factor, c.rope_beta_fast}) {
    FUZZ_REQUIRE(std::isfinite(number) && number > 0);
  }
  FUZZ_REQUIRE(c.hash_layers >= 0 && c.hash_layers <= c.layers);
  FUZZ_REQUIRE(c.picks <= c.experts);
  FUZZ_REQUIRE(c.nope_dim() >= 0);
  FUZZ_REQUIRE(c.heads_per_group() * c.o_groups == c.heads);
  FUZZ_REQUIRE(static_cast<int64_t>(c.ratios.size()) == c.layers + c.mtp_layers);
  for (const int64_t ratio : c.ratios) FUZZ_REQUIRE(ratio == 0 || ratio == 4 || ratio == 128);
  FUZZ_REQUIRE(c.bos_token_id >= 0 && c.bos_token_id < c.vocab_size);
  FUZZ_REQUIRE(c.eos_token_id >= 0 && c.eos_token_id < c.vocab_size);
}

}  // namespace
}  // namespace seacliff

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seacliff;  // NOLINT: one function
  spdlog::set_level(spdlog::level::err);
  const auto config = ParseModelConfig(std::string(fuzz::AsText(data, size)), "config.json");
  if (config.ok()) {
    CheckAccepted(*config);
  } else {
    fuzz::RequireRefusal(config.status(), "config.json: ");
  }
  return 0;
}
