// The attention sub-block (spec/model.md 2.4-2.9).
#include <cmath>

#include "kernels/fused/op.h"
#include "kernels/grouped_linear/op.h"
#include "kernels/index_topk/op.h"
#include "kernels/linear/op.h"
#include "kernels/linears/op.h"
#include "kernels/sparse_attention/op.h"
#include "model/forward.h"

namespace seacliff {
namespace {

View<const float, 2> Rows(const Act<2>& a) {
  return {static_cast<const float*>(a.data), {a.shape[0], a.shape[1]}};
}

// Everything that reads x: the low-rank query, the window key, compressor rows, index head weights.
void FirstProjections(Context& k, const AttentionWeights& w, Activations& s) {
  LinearsArgs a;
  a.x = s.x;
  a.Add(w.wq_a, true, s.q_low);
  a.Add(w.wkv, true, s.kv);
  if (w.ratio != 0) {
    a.Add(w.compressor.keys, false, s.keys);
    a.Add(w.compressor.gates, false, s.gates);
  }
  if (w.ratio == 4) {
    a.Add(w.index_compressor.keys, false, s.index_keys);
    a.Add(w.index_compressor.gates, false, s.index_gates);
    a.Add(w.index_weights, false, s.index_weights);
  }
  Linears(k, a);
}

// What becomes of them but for the index head weights: the step's keys, and the norm of the query.
void StoreKeys(Context& k, const ModelConfig& c, const AttentionWeights& w, const Batch& b,
               const LayerCache& cache, Activations& s) {
  const auto eps = static_cast<float>(c.norm_eps);
  FusedArgs a;
  a.norm = {s.q_low, w.q_norm, eps, s.q_low};
  a.window = {s.kv, w.kv_norm, w.frequencies, eps, b, cache.window};
  if (w.ratio != 0) {
    a.keys = {Rows(s.keys),     Rows(s.gates),
              w.compressor.ape, w.compressor.norm,
              w.frequencies,    eps,
              w.ratio,          b,
              cache.state,      cache.compressed};
  }
  if (w.ratio == 4) {
    const CompressorWeights& ic = w.index_compressor;
    a.index_keys = {
        Rows(s.index_keys), Rows(s.index_gates), ic.ape, ic.norm, w.frequencies, eps, w.ratio, b,
        cache.index_state,  cache.index};
  }
  Fused(k, a);
}

// Queries, and with ratio 4 the picks of the index's queries. Where no sequence has more blocks
// than are picked, nobody asks for those: all are.
void Queries(Context& k, const ModelConfig& c, const AttentionWeights& w, const Batch& b,
             const LayerCache& cache, Activations& s) {
  const auto eps = static_cast<float>(c.norm_eps);
  const int64_t tokens = b.tokens();
  LinearsArgs a;
  a.x = s.q_low;
  a.Add(w.wq_b, true, s.q);
  const int64_t blocks = b.compressed_pages.shape[1] * (kPageTokens / 4);  // at most
  const bool scored = w.ratio == 4 && blocks > c.index_topk;
  if (scored) a.Add(w.index_wq_b, true, s.index_q);
  Linears(k, a);
  FusedArgs rotated;
  rotated.query = {s.q.Reshape<3>({tokens, c.heads, c.head_dim}), b.positions, w.frequencies, eps};
  const auto index_q = s.index_q.Reshape<3>({tokens, c.index_heads, c.index_dim});
  if (scored) rotated.index_query = {index_q, b.positions, w.frequencies};
  Fused(k, rotated);
  if (w.ratio != 4) return;
  IndexTopk(k, {index_q, s.index_weights, w.ratio, b, cache.index, s.index_picks, s.index_margin});
}

void OutputProjection(Context& k, Communicator& comm, const ModelConfig& c,
                      const AttentionWeights& w, Activations& s) {
  const int64_t tokens = s.x.shape[0];
  GroupedLinear(k, {s.o.Reshape<3>({tokens, c.o_groups, c.heads_per_group() * c.head_dim}), w.wo_a,
                    w.quantise_o, s.z.Reshape<3>({tokens, c.o_groups, c.o_rank})});
  Linear(k, {s.z, w.wo_b, true, s.y});
  comm.AllReduce(k, s.y);
}

}  // namespace

void Attention(Context& k, Communicator& comm, const ModelConfig& c, const AttentionWeights& w,
               const Batch& b, const LayerCache& cache, Activations& s) {
  const int64_t tokens = b.tokens();
  Scratch::SetRatio(c, w.ratio, s);
  FirstProjections(k, w, s);
  StoreKeys(k, c, w, b, cache, s);
  Queries(k, c, w, b, cache, s);
  const View<const int32_t, 2> picks =
      w.ratio == 4 ? View<const int32_t, 2>(s.index_picks) : View<const int32_t, 2>();
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  SparseAttention(k, {s.q.Reshape<3>({tokens, c.heads, c.head_dim}), cache.window, c.window,
                      cache.compressed, w.ratio, picks, w.sink, scale, w.frequencies, b,
                      s.o.Reshape<3>({tokens, c.heads, c.head_dim})});
  OutputProjection(k, comm, c, w, s);
}

}  // namespace seacliff
