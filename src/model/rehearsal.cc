// Steps of made-up shapes through the forward pass; see rehearsal.h.
#include "model/rehearsal.h"

#include <fmt/format.h>

#include <memory>
#include <vector>

#include "cache/store.h"
#include "checkpoint/checkpoint.h"
#include "model/forward.h"
#include "model/packing.h"
#include "model/rope.h"
#include "model/scratch.h"
#include "parallel/one_rank.h"

namespace seacliff {
namespace {

struct Step {
  const char* name;
  int64_t seqs, tokens;  // of each sequence
};
constexpr Step kSteps[] = {
    {"decode of 1", 1, 1}, {"decode of 32", 32, 1}, {"prefill of 2,048", 1, 2048}};
constexpr int64_t kMostTokens = 2048;

// Addresses that stand for memory: aligned as memory is, and never read.
Buffer Nowhere(int64_t bytes) {
  return {reinterpret_cast<void*>(uintptr_t{1} << 40), bytes, [](void*) {}};
}

// A batch of sequences that are all at their beginning.
struct Numbers {
  std::vector<int32_t> ids, positions, seq_of, begins, slots, pages, rows;

  explicit Numbers(const Step& step) {
    const int64_t pages_each = (step.tokens + kPageTokens - 1) / kPageTokens;
    for (int32_t s = 0; s < step.seqs; ++s) {
      begins.push_back(static_cast<int32_t>(ids.size()));
      slots.push_back(s);
      for (int32_t t = 0; t < step.tokens; ++t) {
        ids.push_back(0);
        positions.push_back(t);
        seq_of.push_back(s);
      }
      for (int64_t p = 0; p < pages_each; ++p) pages.push_back(static_cast<int32_t>(pages.size()));
      rows.push_back(static_cast<int32_t>(ids.size()) - 1);
    }
    begins.push_back(static_cast<int32_t>(ids.size()));
  }
  Batch AsBatch() const {
    const auto view = [](const std::vector<int32_t>& v) {
      return View<const int32_t, 1>(v.data(), {static_cast<int64_t>(v.size())});
    };
    const auto seqs = static_cast<int64_t>(slots.size());
    const View<const int32_t, 2> table(pages.data(),
                                       {seqs, static_cast<int64_t>(pages.size()) / seqs});
    return {view(ids),   view(positions), view(seq_of), view(begins),
            view(slots), table,           table,        view(rows)};
  }
};

}  // namespace

Result<std::string> DescribeRowsTaken(const ModelConfig& config, const Rows& rows, const Gpu* gpu) {
  SC_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::DummyOnDemand(config, false, 0));
  const std::vector<float> frequencies[2] = {RopeFrequencies(config, 0),
                                             RopeFrequencies(config, 4)};
  ModelWeights weights = BindWeights(checkpoint, config, frequencies);
  if (gpu == nullptr) {
    for (Matrix* m : PackableOf(weights)) m->layout = WeightLayout::kTiles;
  }
  const Scratch scratch(config, DType::kBf16, kMostTokens, Nowhere);
  const CacheStore cache(config, false, config.layers, kMostTokens, kMostTokens, kMostTokens,
                         Nowhere);
  const Buffer rest = Nowhere(0);
  OneRank comm;
  std::vector<std::unique_ptr<Context>> steps;
  for (const Step& step : kSteps) {
    Context& k = *steps.emplace_back(std::make_unique<Context>(1));
    k.rows() = rows;
    k.Rehearse(gpu);
    const Numbers numbers(step);
    const Batch batch = numbers.AsBatch();
    Activations s = scratch.For(batch.tokens());
    auto* const logits = static_cast<float*>(rest.data());
    Trunk(k, comm, config, weights, batch, cache, nullptr, s);
    Head(k, comm, config, batch, weights.hc_head, weights.norm, weights.head, s, rest.data(),
         {logits, logits});
    SC_RETURN_IF_ERROR(k.TakeError());
  }

  std::string text = fmt::format("{:<17} {:<13} {:<13} {}\n", "taken in a", kSteps[0].name,
                                 kSteps[1].name, kSteps[2].name);
  for (size_t i = 0; i < static_cast<size_t>(Op::kCount); ++i) {
    const Op op = static_cast<Op>(i);
    const std::string last = RowsRun(*steps[2], op);
    if (last.empty()) continue;  // no part of a step
    text += fmt::format("{:<17} {:<13} {:<13} {}\n", NameOf(op), RowsRun(*steps[0], op),
                        RowsRun(*steps[1], op), last);
  }
  return text;
}

}  // namespace seacliff
