// The forward pass over ops, in the order and words of the paper (spec/model.md chapter 2).
#pragma once

#include "cache/store.h"
#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "model/scratch.h"
#include "model/weights.h"
#include "parallel/communicator.h"

namespace seacliff {

struct ForwardTrace;

// Everything here runs on one rank of the model, with its part of the weights and of the config
// (model/slice.h); what the ranks made is added up by `comm`.

// x -> y: attention over the window and the layer's compressed entries.
void Attention(Context& k, Communicator& comm, const ModelConfig& c, const AttentionWeights& w,
               const Batch& b, const LayerCache& cache, Activations& s);

// x -> y: routed and shared experts.
void MixtureOfExperts(Context& k, Communicator& comm, const ModelConfig& c, const MoeWeights& w,
                      const Batch& b, Activations& s);

// One layer. `first`: y holds no output of an earlier sub-block yet.
void Block(Context& k, Communicator& comm, const ModelConfig& c, const LayerWeights& w,
           const Batch& b, const LayerCache& cache, bool first, Activations& s);

// All layers: the batch's tokens become streams and pass through every block. `trace` (model.h) may
// be null; its views are on the host, and margins are told there alone.
void Trunk(Context& k, Communicator& comm, const ModelConfig& c, const ModelWeights& w,
           const Batch& b, const CacheStore& cache, const ForwardTrace* trace, Activations& s);

// The MTP layer's input, from what Head left in the streams and the tokens that follow:
// streams <- h_proj(hnorm(streams)) + e_proj(enorm(embed(next_ids))), the latter for every stream
// (spec/model.md 2.15). `normed` is room for as much as the streams. A Block and a Head with the
// layer's own weights come after it.
void JoinNext(Context& k, Communicator& comm, const ModelConfig& c, const ModelWeights& w,
              View<const int32_t, 1> next_ids, Activations& s, void* normed);

// Where logits go, f32 [rows, vocab]: those of the rank's part of the vocabulary, and all of them,
// which are on rank 0 alone (on others null), and the same memory where one rank has them all.
struct LogitsRoom {
  float *part, *all;
};

// The end: the last sub-block goes into the streams; those of the batch's logit rows collapse into
// x [rows, dim] and give logits.
void Head(Context& k, Communicator& comm, const ModelConfig& c, const Batch& b,
          const MhcWeights& hc, const NormWeight& norm, const Matrix& head, Activations& s, void* x,
          LogitsRoom logits);

}  // namespace seacliff
