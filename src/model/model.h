// A loaded model and its caches: one call runs one step of a ragged batch. It never sees a request;
// pages and slots are the caller's to hand out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache/plan.h"
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
  bool fp8_output_projection = false;  // kernels/grouped_linear `quantise`; not in exact numerics
  std::string repack_cache;    // a file for the packed weights (model/repack_cache.h); empty: none
  std::string device = "cpu";  // cpu | cuda | auto: the first GPU if there is one
  DeviceLimits device_limits;  // of what kernels may use of each GPU
  std::string kernels;         // "op=row,op=row"
  int32_t threads = 0;         // 0: one per core
  uint64_t seed = 0;           // dummy weights
  bool mtp = false;            // load the MTP layer too
  int64_t max_tokens = 512;    // tokens of one step
  // Cache memory: pages of 128 tokens for the window and for compressed entries, and slots for
  // compressor rows (one a live sequence).
  int64_t window_pages = 0, compressed_pages = 0, slots = 0;
  int64_t snapshots = 0;  // places for rows that sequences are resumed from (cache/plan.h)
  int64_t workspace = 0;  // bytes of it that a device gets at once (model/memory_plan.h)
  // Ranks that share the model, as many on each of `nodes` hosts. With several of them every host
  // loads with the same options but for its own number; host 0 listens on `rendezvous`, HOST:PORT.
  int32_t tensor_parallel_size = 1;
  int32_t nodes = 1, node_rank = 0;
  std::string rendezvous;
  double rank_timeout = 20;  // seconds that a rank may let the others wait in a step
  std::string nccl_library;  // file of NCCL; empty: libnccl.so.2 where it is installed
  bool echo_ranks = false;   // rank 0 alone, on one GPU (parallel/device_group.h)
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
  // Computes the part of options.node_rank, which is not 0, for node 0, which loads with the same
  // options: until its model ends (ok) or is gone (kUnavailable).
  static Status Follow(const ModelOptions& options, const LoadProgress& progress);
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  // What the model runs in; its logits are sampled in it too.
  virtual Context& context() = 0;

  // Runs the step: logits() are then those of batch.logit_rows. On a device this returns once all
  // is launched; what goes wrong there is told by whoever waits next (Sample, ReadLogits or the
  // next step). After an error the sequences of the batch have lost their cache content; the model
  // itself stays usable, but for kUnavailable. `trace` may be null.
  virtual Status Forward(const Batch& batch, const ForwardTrace* trace) = 0;
  // All of Forward that may wait for the device or take memory, but for what it launches: the same
  // Forward follows. Ranks do this first, so that none of them does it while others compute.
  virtual Status Prepare(const Batch&, const ForwardTrace*) { return OkStatus(); }
  // Whether Forward returns before the step is done, so that its caller can work meanwhile.
  virtual bool runs_ahead() const { return false; }

  // Copies compressor rows between slots and snapshots, in this order, before what Forward does
  // next and after what it did last. What goes wrong on a device is told as Forward's errors are.
  virtual void CopyRows(std::span<const RowCopy> copies) = 0;

  // The MTP layer over the batch that Forward ran last: position i joins its residual streams with
  // next_ids[i], the token at position i + 1 (spec/model.md 2.15), and predicts the one after it.
  virtual Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) = 0;

  // Microseconds of the last step on the device, run again many times as one graph; of those of its
  // calls that the context wants (Context::wanted).
  virtual Result<double> TimeLastStep() = 0;
  // As Prepare, of TimeLastStep on all ranks together.
  virtual Status PrepareTiming() { return OkStatus(); }

  // Once the last step's logits have been waited for, or with nothing to do: whether all ranks of
  // the model did their part of it and are there. kUnavailable if not; no step will succeed then.
  virtual Status CheckRanks() { return OkStatus(); }

  // [logit_rows, vocab_size] of the last step, in the memory that the model runs in; they hold
  // until the next one.
  virtual View<const float, 2> logits() const = 0;
  // Waits for them and copies them to the host.
  Status ReadLogits(std::vector<float>& to);
};

}  // namespace seacliff
