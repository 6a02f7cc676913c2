// A loaded model and its caches: one call runs one step of a ragged batch. It never sees a request;
// pages and slots are the caller's to hand out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "config/model_config.h"
#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "seacliff/progress.h"

namespace seacliff {

enum class Numerics : uint8_t { kCheckpoint, kExact };

struct ModelOptions {
  std::string dir;
  std::string config_file;           // empty: DIR/config.json
  std::string load_format = "auto";  // auto | dummy
  Numerics numerics = Numerics::kCheckpoint;
  std::string repack_cache;    // a file for the packed weights (model/repack_cache.h); empty: none
  std::string device = "cpu";  // cpu | cuda | auto: the first GPU if there is one
  std::string kernels;         // "op=row,op=row"
  int32_t threads = 0;         // 0: one per core
  uint64_t seed = 0;           // dummy weights
  bool mtp = false;            // load the MTP layer too
  int64_t max_tokens = 512;    // tokens of one step
  // Cache memory: pages of 128 tokens for the window and for compressed entries, and slots for
  // compressor rows (one a live sequence).
  int64_t window_pages = 0, compressed_pages = 0, slots = 0;
};

// What Forward shows of its inside, for comparison with a reference. Empty views are not filled.
struct ForwardTrace {
  int64_t token = 0;      // the token of the step whose residual streams are copied
  View<float, 3> layers;  // [layers, streams, dim]: the streams after every layer
  // [layers, tokens]: how close each discrete choice was (kernels/router, kernels/index_topk);
  // infinite where a layer makes no choice.
  View<float, 2> expert_margin, index_margin;
};

class Model {
 public:
  static Result<std::unique_ptr<Model>> Load(const ModelOptions& options,
                                             const LoadProgress& progress);
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual Context& context() = 0;

  // Runs the step and writes logits [batch.logit_rows, vocab_size]. After an error the sequences of
  // the batch have lost their cache content; the model itself stays usable.
  // `trace` may be null.
  virtual Status Forward(const Batch& batch, View<float, 2> logits, const ForwardTrace* trace) = 0;

  // The MTP layer over the batch that Forward ran last: position i joins its residual streams with
  // next_ids[i], the token at position i + 1 (spec/model.md 2.15), and predicts the one after it.
  // logits: [batch.logit_rows, vocab_size].
  virtual Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids,
                            View<float, 2> logits) = 0;
};

}  // namespace seacliff
