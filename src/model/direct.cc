// Builds the integer arrays of a batch for sequences with fixed pages.
#include "model/direct.h"

#include "tensor/paged_view.h"

namespace seacliff {
namespace {

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

View<const int32_t, 1> AsView(const std::vector<int32_t>& v) {
  return {v.data(), {static_cast<int64_t>(v.size())}};
}

}  // namespace

void DirectRunner::SizeCache(int64_t seqs, int64_t max_len, ModelOptions& options) {
  options.window_pages = options.compressed_pages = seqs * PagesFor(max_len);
  options.slots = seqs;
}

DirectRunner::DirectRunner(Model& model, int64_t seqs, int64_t max_len)
    : model_(model), pages_per_seq_(PagesFor(max_len)), lengths_(static_cast<size_t>(seqs), 0) {}

Status DirectRunner::Step(std::span<const Piece> pieces, std::span<const int32_t> rows,
                          const ForwardTrace* trace) {
  ids_.clear();
  positions_.clear();
  seq_of_.clear();
  slots_.clear();
  pages_.clear();
  seq_begin_.assign(1, 0);
  for (const Piece& piece : pieces) {
    int64_t& length = lengths_[static_cast<size_t>(piece.seq)];
    const auto index = static_cast<int32_t>(slots_.size());
    for (const int32_t id : piece.ids) {
      ids_.push_back(id);
      positions_.push_back(static_cast<int32_t>(length++));
      seq_of_.push_back(index);
    }
    SC_CHECK(PagesFor(length) <= pages_per_seq_);
    seq_begin_.push_back(static_cast<int32_t>(ids_.size()));
    slots_.push_back(static_cast<int32_t>(piece.seq));
    for (int64_t p = 0; p < pages_per_seq_; ++p) {
      pages_.push_back(static_cast<int32_t>(piece.seq * pages_per_seq_ + p));
    }
  }
  rows_.assign(rows.begin(), rows.end());
  return model_.Forward(batch(), trace);
}

Status DirectRunner::Step(std::span<const Piece> pieces, std::span<const int32_t> rows,
                          std::vector<float>& logits, const ForwardTrace* trace) {
  SC_RETURN_IF_ERROR(Step(pieces, rows, trace));
  return model_.ReadLogits(logits);
}

Status DirectRunner::StepMtp(std::span<const int32_t> next_ids, std::vector<float>& logits) {
  const View<const int32_t, 1> ids(next_ids.data(), {static_cast<int64_t>(next_ids.size())});
  SC_RETURN_IF_ERROR(model_.ForwardMtp(batch(), ids));
  return model_.ReadLogits(logits);
}

Batch DirectRunner::batch() const {
  const View<const int32_t, 2> pages(pages_.data(),
                                     {static_cast<int64_t>(slots_.size()), pages_per_seq_});
  return {
      AsView(ids_), AsView(positions_), AsView(seq_of_), AsView(seq_begin_), AsView(slots_), pages,
      pages,        AsView(rows_)};
}

}  // namespace seacliff
