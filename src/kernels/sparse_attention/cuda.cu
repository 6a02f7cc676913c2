// cuda row of sparse_attention.
//
// Tokens of sequences that bring few to the step share their keys out in pieces of fixed length
// (cuda_decode.cuh); a token of a long chunk goes through its keys in one block (cuda_chunk.cuh).
// So a token's bits depend on its own sequence alone, and on no number of heads in a block.
#include <algorithm>

#include "kernels/sparse_attention/cuda_chunk.cuh"
#include "kernels/sparse_attention/cuda_scores.cuh"
#include "kernels/sparse_attention/cuda_values.cuh"

namespace seacliff::sparse_attention {
namespace {

constexpr int64_t kDrafted = 4;  // tokens of a sequence in a decode step

Entries EntriesOf(const PagedView& view, const View<const int32_t, 2>& table) {
  Entries e = {};
  e.data = reinterpret_cast<const uint8_t*>(view.data);
  e.table = table.data;
  e.table_stride = table.stride[0];
  e.table_width = static_cast<uint32_t>(table.shape[1]);
  e.page_bytes = static_cast<int32_t>(view.page_bytes());
  e.scales = static_cast<int32_t>(view.page_len * (view.dim + kGroup));
  e.pages = static_cast<int32_t>(view.pages);
  while (int64_t{1} << e.shift < view.page_len) ++e.shift;
  return e;
}

// More heads to a block decode fewer keys again, as long as there is work for every processor.
bool Busy(Context& k, int64_t items, int64_t heads, int64_t of_block) {
  return heads > of_block / 2 && items * CeilDiv(heads, of_block) >= 2 * Multiprocessors(k);
}

// Sequences that bring few: their tokens are slots.
void LaunchFew(Context& k, Params p, int64_t slots, int64_t keys, int64_t workspace) {
  const int64_t at_once =
      std::min(slots, std::max<int64_t>(1, kCudaWeights / CudaTokenBytes(p.heads, keys)));
  p.units = static_cast<int32_t>(CeilDiv(keys, kUnit));
  p.tiles = static_cast<int32_t>(CeilDiv(p.heads, 64) * 8);
  p.weights = static_cast<uint32_t*>(k.device()->Workspace(workspace));
  if (p.weights == nullptr) return;  // the device keeps the error
  const int64_t of_tiles = at_once * p.units * p.tiles;
  p.stats = reinterpret_cast<float2*>(p.weights + of_tiles * 4 * kWarp);

  // More heads to a block decode fewer keys again, as long as there is work for every processor.
  const int64_t room = 2 * Multiprocessors(k), slices = p.dim / kGroup + 1;
  const auto fits = [&](int64_t items, int64_t tiles) {
    return items * CeilDiv(p.heads, 8 * tiles) <= room;
  };
  const bool full = p.dim == 8 * kGroup;
  const auto scores = !full                        ? LaunchScores<2, false>
                      : fits(at_once * p.units, 2) ? LaunchScores<2, true>
                                                   : LaunchScores<4, true>;
  const auto values = fits(at_once * slices, 1)   ? LaunchValues<1>
                      : fits(at_once * slices, 4) ? LaunchValues<4>
                                                  : LaunchValues<8>;
  for (; p.first_slot < slots; p.first_slot += at_once) {
    const int64_t now = std::min(at_once, slots - p.first_slot);
    scores(k, p, now);
    values(k, p, now);
  }
}

void LaunchMany(Context& k, const Params& p, int64_t tokens) {
  const bool full = p.dim == 8 * kGroup;
  const auto chunk = full && Busy(k, tokens, p.heads, 64) && SharedBytes<4>(8) <= SharedLimit(k)
                         ? LaunchChunk<4, true>
                     : full && Busy(k, tokens, p.heads, 32) ? LaunchChunk<2, true>
                     : full                                 ? LaunchChunk<1, true>
                                                            : LaunchChunk<1, false>;
  chunk(k, p, tokens);
}

}  // namespace

void Cuda(Context& k, const SparseAttentionArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  const int64_t seqs = a.batch.seqs();
  if (tokens == 0) return;
  Params p = {};
  p.q = static_cast<const Bf16*>(a.q.data);
  p.out = static_cast<Bf16*>(a.out.data);
  p.sink = a.sink.data;
  p.frequencies = a.frequencies.data;
  p.positions = a.batch.positions.data;
  p.seq_of = a.batch.seq_of.data;
  p.seq_begin = a.batch.seq_begin.data;
  p.window = p.compressed = EntriesOf(a.window, a.batch.window_pages);
  p.heads = static_cast<int32_t>(heads);
  p.dim = static_cast<int32_t>(dim);
  p.window_len = static_cast<int32_t>(a.window_len);
  p.ratio = static_cast<int32_t>(a.ratio);
  p.scale = a.scale;
  int64_t most_keys = a.window_len;
  if (a.ratio != 0) {
    p.compressed = EntriesOf(a.compressed, a.batch.compressed_pages);
    if (a.picks) {
      p.picks = a.picks.data;
      p.picks_stride = a.picks.stride[0];
      p.topk = static_cast<int32_t>(a.picks.shape[1]);
    }
    most_keys += a.picks ? a.picks.shape[1] : p.compressed.table_width * a.compressed.page_len;
  }

  // Without a look at the batch: which kinds of tokens may be there? Of a step that can be one of
  // decoded and drafted tokens every token is taken for such a one: that is one launch.
  p.all_few = tokens <= std::max<int64_t>(seqs * kDrafted, kFew);
  if (!p.all_few) LaunchMany(k, p, tokens);
  if (!p.all_few && seqs == 1) return;
  const bool slots_are_tokens = tokens <= seqs * kFew;
  p.slots_of_seq = slots_are_tokens ? 0 : kFew;
  LaunchFew(k, p, slots_are_tokens ? tokens : seqs * kFew, most_keys,
            CudaWorkspace(tokens, seqs, heads, most_keys));
}

}  // namespace seacliff::sparse_attention
