// The forward pass on a device.
#include "model/device_model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "cache/store.h"
#include "kernels/common/device_timer.h"
#include "model/device_weights.h"
#include "model/forward.h"
#include "model/rope.h"
#include "model/scratch.h"
#include "model/step_shape.h"
#include "model/weights.h"

namespace seacliff {
namespace {

// Whether every sequence brings one token and wants its logits.
bool IsDecode(const Batch& b) {
  if (b.tokens() != b.seqs() || b.logit_rows.shape[0] != b.seqs() || b.seqs() == 0) return false;
  for (int64_t i = 0; i < b.seqs(); ++i) {
    if (b.seq_begin(i) != i || b.logit_rows(i) != i) return false;
  }
  return true;
}

// Where the sequences that pad a decode step live: nobody has these.
struct Spare {
  int64_t window_page = 0, compressed_page = 0, slot = 0;
};

// A step's numbers on the device: all arrays in one piece of memory, filled by one copy.
class DeviceBatch {
 public:
  // `seqs` and `width` may be larger than the batch's if it is a decode step: sequences of one
  // token are added, which live in what is spare. The views hold until the next call; the copy is
  // under way when this returns. `moved` is set if the arrays lie elsewhere than before. Empty
  // views, and an error of the device, if there is no memory.
  Batch Upload(const Batch& b, int64_t seqs, int64_t width, const Spare& spare, Device& device,
               bool* moved) {
    const int64_t added = seqs - b.seqs(), tokens = b.tokens();
    numbers_.clear();
    begins_.clear();
    Add(b.ids, added, [](int64_t) { return 0; });
    Add(b.positions, added, [](int64_t) { return 0; });
    Add(b.seq_of, added, [&](int64_t i) { return b.seqs() + i; });
    Add(b.seq_begin, added, [&](int64_t i) { return tokens + i + 1; });
    Add(b.slots, added, [&](int64_t) { return spare.slot; });
    Add(b.window_pages, added, width, spare.window_page);
    Add(b.compressed_pages, added, width, spare.compressed_page);
    Add(b.logit_rows, added, [&](int64_t i) { return tokens + i; });

    const auto bytes = static_cast<int64_t>(numbers_.size() * sizeof(int32_t));
    if (bytes > memory_.bytes()) {
      memory_ = Buffer();
      pinned_ = Buffer();
      memory_ = device.Allocate(2 * bytes, "a step's numbers");
      pinned_ = device.AllocatePinned(2 * bytes);
      *moved = true;
      if (pinned_.data() == nullptr) return {};
    }
    std::memcpy(pinned_.data(), numbers_.data(), static_cast<size_t>(bytes));
    device.UploadLater(memory_.data(), pinned_.data(), bytes);

    Batch copy;
    size_t next = 0;
    const auto view = [&](int64_t count) { return View<const int32_t, 1>(At(next++), {count}); };
    copy.ids = view(tokens + added);
    copy.positions = view(tokens + added);
    copy.seq_of = view(tokens + added);
    copy.seq_begin = view(seqs + 1);
    copy.slots = view(seqs);
    copy.window_pages = {At(next++), {seqs, width}};
    copy.compressed_pages = {At(next++), {seqs, width}};
    copy.logit_rows = view(b.logit_rows.shape[0] + added);
    return copy;
  }

 private:
  const int32_t* At(size_t array) const {
    return static_cast<const int32_t*>(memory_.data()) + begins_[array];
  }
  void Begin() {
    numbers_.resize((numbers_.size() + 3) / 4 * 4);
    begins_.push_back(static_cast<int64_t>(numbers_.size()));
  }
  template <typename F>
  void Add(const View<const int32_t, 1>& v, int64_t added, F value) {
    Begin();
    for (int64_t i = 0; i < v.shape[0]; ++i) numbers_.push_back(v(i));
    for (int64_t i = 0; i < added; ++i) numbers_.push_back(static_cast<int32_t>(value(i)));
  }
  void Add(const View<const int32_t, 2>& v, int64_t added, int64_t width, int64_t spare_page) {
    Begin();
    for (int64_t i = 0; i < v.shape[0]; ++i) {
      for (int64_t j = 0; j < width; ++j) numbers_.push_back(j < v.shape[1] ? v(i, j) : -1);
    }
    for (int64_t i = 0; i < added; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        numbers_.push_back(j == 0 ? static_cast<int32_t>(spare_page) : -1);
      }
    }
  }

  std::vector<int32_t> numbers_;
  std::vector<int64_t> begins_;  // of each array in numbers_
  Buffer memory_, pinned_;
};

class DeviceModel : public Model {
 public:
  DeviceModel(const ModelOptions& options, RankParts parts, std::shared_ptr<Device> device)
      : config_(std::move(parts.config)),
        part_(std::move(parts.part)),
        checkpoint_(std::move(parts.checkpoint)),
        device_(std::move(device)),
        comm_(parts.comm),
        context_(1),
        frequencies_{RopeFrequencies(config_, 0), RopeFrequencies(config_, 4)},
        weights_(BindWeights(checkpoint_, config_, frequencies_, options.fp8_output_projection,
                             SliceOf(comm_))) {
    context_.set_device(device_.get());
    context_.rows() = std::move(parts.rows);
  }

  Status Load(const ModelOptions& options, const LoadProgress& progress) {
    SC_ASSIGN_OR_RETURN(uploaded_,
                        DeviceWeights::Upload(weights_, checkpoint_, *device_, progress));
    const auto named = [this](const char* what) {
      return [this, what](int64_t bytes) { return device_->Allocate(bytes, what); };
    };
    device_->Workspace(options.workspace);
    scratch_ = std::make_unique<Scratch>(part_, DType::kBf16, options.max_tokens,
                                         named("the activations"));
    head_rows_ = device_->Allocate(options.max_tokens * config_.dim * SizeOf(DType::kBf16),
                                   "the activations");
    if (!weights_.mtp.empty()) {
      normed_ = device_->Allocate(
          options.max_tokens * config_.streams * config_.dim * SizeOf(DType::kBf16),
          "the activations");
      next_ids_ = device_->Allocate(options.max_tokens * static_cast<int64_t>(sizeof(int32_t)),
                                    "a step's numbers");
    }
    spare_ = {options.window_pages, options.compressed_pages, options.slots};
    cache_ = std::make_unique<CacheStore>(
        config_, false, config_.layers + static_cast<int64_t>(weights_.mtp.size()),
        options.window_pages + 1, options.compressed_pages + 1, options.slots + 1,
        named("the cache"), options.snapshots);
    ReserveLogits(std::min(PaddedSeqs(options.slots), options.max_tokens));
    return device_->Synchronize();
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return context_; }

  Status Prepare(const Batch& batch, const ForwardTrace* trace) override {
    SC_CHECK(batch.tokens() <= scratch_->max_tokens());
    if (trace != nullptr && trace->expert_margin) {
      return InvalidArgument("margins are told by the reference rows: --device cpu");
    }
    // The step before must be done: its numbers' staging memory is used again.
    SC_RETURN_IF_ERROR(device_->Synchronize());
    logit_rows_ = batch.logit_rows.shape[0];
    graph_ = nullptr;
    if (trace == nullptr && context_.profile() == nullptr && IsDecode(batch)) {
      SC_RETURN_IF_ERROR(PrepareDecode(batch));
    } else {
      SC_RETURN_IF_ERROR(Upload(batch, batch.seqs(), batch.window_pages.shape[1]).status());
    }
    prepared_ = true;
    return OkStatus();
  }

  Status Forward(const Batch& batch, const ForwardTrace* trace) override {
    if (!prepared_) SC_RETURN_IF_ERROR(Prepare(batch, trace));
    prepared_ = false;
    if (graph_ != nullptr) {
      device_->Run(*graph_);
    } else {
      Launch(last_, trace);
    }
    return TakeError();
  }

  bool runs_ahead() const override { return true; }

  void CopyRows(std::span<const RowCopy> copies) override {
    for (const RowCopy& copy : copies) {
      cache_->CopyRows(copy, [this](float* to, const float* from, int64_t bytes) {
        device_->Copy(to, from, bytes);
      });
    }
  }

  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) override {
    if (weights_.mtp.empty()) return InvalidArgument("the checkpoint has no MTP layer");
    SC_RETURN_IF_ERROR(device_->Synchronize());
    logit_rows_ = batch.logit_rows.shape[0];
    SC_ASSIGN_OR_RETURN(const Batch b, Upload(batch, batch.seqs(), batch.window_pages.shape[1]));
    device_->Upload(next_ids_.data(), next_ids.data,
                    next_ids.size() * static_cast<int64_t>(sizeof(int32_t)));
    const MtpWeights& w = weights_.mtp.front();
    Activations s = scratch_->For(b.tokens());
    JoinNext(context_, comm_, part_, weights_,
             {static_cast<const int32_t*>(next_ids_.data()), next_ids.shape}, s, normed_.data());
    Block(context_, comm_, part_, w.layer, b, cache_->layer(config_.layers), true, s);
    Head(context_, comm_, part_, b, w.hc_head, w.norm, weights_.head, s, head_rows_.data(), room());
    return TakeError();
  }

  Status PrepareTiming() override {
    timed_ = device_->Record([&] { Launch(last_, nullptr); });
    return TakeError();
  }

  Result<double> TimeLastStep() override {
    // A part of a step run over and over leaves values that the others should not meet.
    const auto* wanted = context_.wanted();
    context_.set_wanted(nullptr);
    Launch(last_, nullptr);
    context_.set_wanted(wanted);
    SC_RETURN_IF_ERROR(device_->Synchronize());
    if (comm_.waits()) return TimeTogether();
    SC_ASSIGN_OR_RETURN(const CallTiming timing,
                        TimeCalls(*device_, 1, [this](int64_t) { Launch(last_, nullptr); }));
    SC_RETURN_IF_ERROR(TakeError());
    return timing.median_us;
  }

  View<const float, 2> logits() const override {
    return {static_cast<const float*>(logits_.data()), {logit_rows_, config_.vocab_size}};
  }

 private:
  using Shape = std::pair<int64_t, int64_t>;  // sequences, pages of a table's row

  Result<Batch> Upload(const Batch& batch, int64_t seqs, int64_t width) {
    ReserveLogits(logit_rows_ + seqs - batch.seqs());
    bool moved = false;
    const Batch b = numbers_.Upload(batch, seqs, width, spare_, *device_, &moved);
    if (moved) DropGraphs();
    SC_RETURN_IF_ERROR(device_->TakeError());
    last_ = b;
    return b;
  }

  // The first error since the last call, of an op's arguments or of the device.
  Status TakeError() {
    Status error = context_.TakeError();
    const Status device_error = device_->TakeError();
    return error.ok() ? device_error : error;
  }

  void ReserveLogits(int64_t rows) {
    const auto reserve = [&](Buffer& buffer, int64_t vocab) {
      const int64_t bytes = rows * vocab * static_cast<int64_t>(sizeof(float));
      if (bytes <= buffer.bytes()) return;
      buffer = Buffer();
      buffer = device_->Allocate(bytes, "the logits");
      DropGraphs();
    };
    if (comm_.rank() == 0) reserve(logits_, config_.vocab_size);
    if (comm_.size() > 1) reserve(part_logits_, part_.vocab_size);
  }
  LogitsRoom room() const {
    auto* const all = static_cast<float*>(logits_.data());
    return {comm_.size() == 1 ? all : static_cast<float*>(part_logits_.data()), all};
  }

  // What they read or write lies elsewhere now. Their shapes have run, so they are recorded anew
  // when they are next seen.
  void DropGraphs() {
    for (auto& [shape, graph] : graphs_) graph.reset();
  }

  // The first step of a shape runs as it is, which loads kernels and makes the workspace as large
  // as it must be; the second one is recorded.
  Status PrepareDecode(const Batch& batch) {
    const int64_t seqs = std::min(PaddedSeqs(batch.seqs()), scratch_->max_tokens());
    const Shape shape(seqs, PaddedWidth(batch.window_pages.shape[1]));
    SC_RETURN_IF_ERROR(Upload(batch, shape.first, shape.second).status());
    const auto [place, first] = graphs_.try_emplace(shape);
    if (first) return OkStatus();
    if (workspace_moves_ != device_->workspace_moves()) DropGraphs();
    workspace_moves_ = device_->workspace_moves();
    std::unique_ptr<DeviceGraph>& graph = place->second;
    if (graph == nullptr) {
      graph = device_->Record([&] { Launch(last_, nullptr); });
      const Status error = TakeError();
      if (!error.ok()) graph.reset();
      SC_RETURN_IF_ERROR(error);
    }
    graph_ = graph.get();
    return OkStatus();
  }

  // What was recorded, as often on every rank.
  Result<double> TimeTogether() {
    constexpr int kWarmUps = 10, kRuns = 41;
    std::vector<double> times;
    for (int i = 0; i < kWarmUps + kRuns; ++i) {
      const double us = device_->Time([&] { device_->Run(*timed_); });
      if (i >= kWarmUps) times.push_back(us);
    }
    SC_RETURN_IF_ERROR(TakeError());
    return Median(times);
  }

  void Launch(const Batch& b, const ForwardTrace* trace) {
    Activations s = scratch_->For(b.tokens());
    Trunk(context_, comm_, part_, weights_, b, *cache_, trace, s);
    Head(context_, comm_, part_, b, weights_.hc_head, weights_.norm, weights_.head, s,
         head_rows_.data(), room());
  }

  ModelConfig config_, part_;  // of the model and of the rank
  Checkpoint checkpoint_;
  std::shared_ptr<Device> device_;
  Communicator& comm_;
  Context context_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  DeviceWeights uploaded_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<CacheStore> cache_;
  Buffer head_rows_;    // [rows, dim]
  Buffer logits_;       // [rows, vocab], on rank 0
  Buffer part_logits_;  // [rows, part of the vocabulary], of several ranks
  Buffer normed_;       // [tokens, streams, dim]: MTP's
  Buffer next_ids_;     // [tokens]: MTP's
  int64_t logit_rows_ = 0;
  Spare spare_;
  DeviceBatch numbers_;
  Batch last_;                                            // in numbers_
  std::map<Shape, std::unique_ptr<DeviceGraph>> graphs_;  // null: to be recorded
  const DeviceGraph* graph_ = nullptr;                    // that the prepared step runs as
  bool prepared_ = false;
  std::unique_ptr<DeviceGraph> timed_;
  int64_t workspace_moves_ = 0;  // when they were recorded
};

}  // namespace

Result<std::unique_ptr<Model>> LoadDeviceModel(const ModelOptions& options, RankParts parts,
                                               std::shared_ptr<Device> device,
                                               const LoadProgress& progress) {
  auto model = std::make_unique<DeviceModel>(options, std::move(parts), std::move(device));
  SC_RETURN_IF_ERROR(model->Load(options, progress));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace seacliff
