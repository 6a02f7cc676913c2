// The forward pass on a device.
#include "model/device_model.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cache/store.h"
#include "kernels/common/mhc.h"
#include "kernels/embed/op.h"
#include "model/device_weights.h"
#include "model/forward.h"
#include "model/rope.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace seacliff {
namespace {

// A step's numbers on the device: one copy for all of its arrays.
class DeviceBatch {
 public:
  // The views hold until the next call.
  Batch Upload(const Batch& b, Device& device) {
    staging_.clear();
    Batch copy = b;
    Add(copy.ids);
    Add(copy.positions);
    Add(copy.seq_of);
    Add(copy.seq_begin);
    Add(copy.slots);
    Add(copy.window_pages);
    Add(copy.compressed_pages);
    Add(copy.logit_rows);
    const auto bytes = static_cast<int64_t>(staging_.size() * sizeof(int32_t));
    if (bytes > memory_.bytes()) {
      memory_ = Buffer();
      memory_ = device.Allocate(2 * bytes);
    }
    device.Upload(memory_.data(), staging_.data(), bytes);
    auto* next = static_cast<const int32_t*>(memory_.data());
    Move(copy.ids, next);
    Move(copy.positions, next);
    Move(copy.seq_of, next);
    Move(copy.seq_begin, next);
    Move(copy.slots, next);
    Move(copy.window_pages, next);
    Move(copy.compressed_pages, next);
    Move(copy.logit_rows, next);
    return copy;
  }

 private:
  static size_t Padded(int64_t count) { return static_cast<size_t>((count + 3) / 4 * 4); }

  void Add(const View<const int32_t, 1>& v) {
    const size_t begin = staging_.size();
    for (int64_t i = 0; i < v.shape[0]; ++i) staging_.push_back(v(i));
    staging_.resize(begin + Padded(v.size()));
  }
  void Add(const View<const int32_t, 2>& v) {
    const size_t begin = staging_.size();
    for (int64_t i = 0; i < v.shape[0]; ++i) {
      for (int64_t j = 0; j < v.shape[1]; ++j) staging_.push_back(v(i, j));
    }
    staging_.resize(begin + Padded(v.size()));
  }
  template <int N>
  static void Move(View<const int32_t, N>& v, const int32_t*& next) {
    v = View<const int32_t, N>(next, v.shape);
    next += Padded(v.size());
  }

  std::vector<int32_t> staging_;
  Buffer memory_;
};

class DeviceModel : public Model {
 public:
  DeviceModel(const ModelOptions& options, ModelConfig config, Checkpoint checkpoint, Rows rows,
              std::unique_ptr<Device> device)
      : config_(std::move(config)),
        checkpoint_(std::move(checkpoint)),
        host_(options.threads),
        device_(std::move(device)),
        context_(1),
        frequencies_{RopeFrequencies(config_, 0), RopeFrequencies(config_, 4)},
        weights_(BindWeights(checkpoint_, config_, frequencies_)) {
    context_.set_device(device_.get());
    context_.rows() = std::move(rows);
  }

  Status Load(const ModelOptions& options, const LoadProgress& progress) {
    SC_ASSIGN_OR_RETURN(uploaded_, DeviceWeights::Upload(weights_, *device_, progress));
    const Allocate allocate = [this](int64_t bytes) { return device_->Allocate(bytes); };
    scratch_ = std::make_unique<Scratch>(config_, DType::kBf16, options.max_tokens, allocate);
    head_rows_ = allocate(options.max_tokens * config_.dim * SizeOf(DType::kBf16));
    cache_ = std::make_unique<CacheStore>(config_, false, config_.layers, options.window_pages,
                                          options.compressed_pages, options.slots, allocate);
    return device_->Synchronize();
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return host_; }

  Status Forward(const Batch& batch, View<float, 2> logits, const ForwardTrace* trace) override {
    SC_CHECK(batch.tokens() <= scratch_->max_tokens());
    if (trace != nullptr && trace->expert_margin) {
      return InvalidArgument("margins are told by the reference rows: --device cpu");
    }
    const Batch b = batch_.Upload(batch, *device_);
    Activations s = scratch_->For(batch.tokens());
    Embed(context_, {b.ids, weights_.embed, s.streams});
    for (int64_t i = 0; i < config_.layers; ++i) {
      Block(context_, config_, weights_.layers[static_cast<size_t>(i)], b, cache_->layer(i), i == 0,
            s);
      if (trace != nullptr && trace->layers) TraceStreams(*trace, i, s);
    }
    const int64_t bytes = logits.size() * static_cast<int64_t>(sizeof(float));
    if (bytes > logits_.bytes()) {
      logits_ = Buffer();
      logits_ = device_->Allocate(bytes);
    }
    Head(context_, config_, b, weights_.hc_head, weights_.norm, weights_.head, s, head_rows_.data(),
         static_cast<float*>(logits_.data()));
    if (context_.ok()) device_->Download(logits.data, logits_.data(), bytes);
    Status error = context_.TakeError();
    const Status device_error = device_->Synchronize();
    return error.ok() ? device_error : error;
  }

  Status ForwardMtp(const Batch&, View<const int32_t, 1>, View<float, 2>) override {
    return Unimplemented("the MTP layer does not run on a GPU yet: --device cpu");
  }

 private:
  // The streams of the traced token after layer i: what the next boundary will make of them.
  void TraceStreams(const ForwardTrace& trace, int64_t i, const Activations& s) {
    const int64_t n = config_.streams, dim = config_.dim, t = trace.token;
    std::vector<Bf16> streams(static_cast<size_t>(n * dim)), y(static_cast<size_t>(dim));
    std::vector<float> mix(static_cast<size_t>(n + n * n));
    device_->Download(streams.data(), s.streams.Rows(t, 1).data, n * dim * 2);
    device_->Download(y.data(), s.y.Rows(t, 1).data, dim * 2);
    device_->Download(mix.data(), &s.mix(t, 0), (n + n * n) * 4);
    const Act<3> copy(streams.data(), DType::kBf16, {1, n, dim});
    MhcPost(Act<2>(y.data(), DType::kBf16, {1, dim}), copy, {mix.data(), {1, n + n * n}}, 0);
    for (int64_t d = 0; d < n * dim; ++d) trace.layers[i].data[d] = copy.Load(d);
  }

  ModelConfig config_;
  Checkpoint checkpoint_;
  Context host_;  // sampling's
  std::unique_ptr<Device> device_;
  Context context_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  DeviceWeights uploaded_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<CacheStore> cache_;
  Buffer head_rows_;  // [rows, dim]
  Buffer logits_;     // [rows, vocab]
  DeviceBatch batch_;
};

}  // namespace

Result<std::unique_ptr<Model>> LoadDeviceModel(const ModelOptions& options, ModelConfig config,
                                               Checkpoint checkpoint, Rows rows,
                                               std::unique_ptr<Device> device,
                                               const LoadProgress& progress) {
  if (options.mtp) return Unimplemented("the MTP layer does not run on a GPU yet: --device cpu");
  auto model = std::make_unique<DeviceModel>(options, std::move(config), std::move(checkpoint),
                                             std::move(rows), std::move(device));
  SC_RETURN_IF_ERROR(model->Load(options, progress));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace seacliff
