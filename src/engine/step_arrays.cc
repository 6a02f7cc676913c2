// Filling a batch from a plan; see step_arrays.h.
#include "engine/step_arrays.h"

#include <algorithm>

#include "base/check.h"

namespace seacliff {

StepArrays::StepArrays(int64_t max_tokens, int64_t max_seqs, int64_t max_model_len) {
  const size_t tokens = static_cast<size_t>(max_tokens), seqs = static_cast<size_t>(max_seqs);
  const size_t pages = static_cast<size_t>(PagesOf(max_model_len));
  for (std::vector<int32_t>* array : {&ids_, &positions_, &seq_of_, &logit_rows_}) {
    array->resize(tokens);
  }
  seq_begin_.resize(seqs + 1);
  slots_.resize(seqs);
  window_pages_.resize(seqs * pages);
  compressed_pages_.resize(seqs * pages);
}

Batch StepArrays::Fill(const StepPlan& plan) {
  const int64_t seqs = static_cast<int64_t>(plan.steps.size());
  size_t width = 0;
  for (const SequenceStep& step : plan.steps) {
    width = std::max(width, step.compressed_pages().size());
  }
  SC_CHECK(plan.tokens <= static_cast<int64_t>(ids_.size()) && plan.steps.size() <= slots_.size() &&
           plan.steps.size() * width <= window_pages_.size());

  size_t token = 0, row = 0;
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const SequenceStep& step = plan.steps[s];
    seq_begin_[s] = static_cast<int32_t>(token);
    slots_[s] = step.slot();
    for (size_t i = 0; i < step.ids.size(); ++i, ++token) {
      ids_[token] = step.ids[i];
      positions_[token] = static_cast<int32_t>(step.first_position) + static_cast<int32_t>(i);
      seq_of_[token] = static_cast<int32_t>(s);
    }
    for (int64_t i = step.logits; i > 0; --i) {
      logit_rows_[row++] = static_cast<int32_t>(static_cast<int64_t>(token) - i);
    }
    const auto fill_row = [&](std::span<const int32_t> pages, std::vector<int32_t>& table) {
      const auto begin = table.begin() + static_cast<int64_t>(s * width);
      const auto end = std::copy(pages.begin(), pages.end(), begin);
      std::fill(end, begin + static_cast<int64_t>(width), -1);
    };
    fill_row(step.window_pages(), window_pages_);
    fill_row(step.compressed_pages(), compressed_pages_);
  }
  seq_begin_[plan.steps.size()] = static_cast<int32_t>(token);

  Batch batch;
  batch.ids = {ids_.data(), {plan.tokens}};
  batch.positions = {positions_.data(), {plan.tokens}};
  batch.seq_of = {seq_of_.data(), {plan.tokens}};
  batch.seq_begin = {seq_begin_.data(), {seqs + 1}};
  batch.slots = {slots_.data(), {seqs}};
  const int64_t pages = static_cast<int64_t>(width);
  batch.window_pages = {window_pages_.data(), {seqs, pages}};
  batch.compressed_pages = {compressed_pages_.data(), {seqs, pages}};
  batch.logit_rows = {logit_rows_.data(), {plan.logits}};
  return batch;
}

}  // namespace seacliff
