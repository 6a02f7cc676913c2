// The model: checkpoint, weights, caches and scratch of one process, and the order of its layers.
#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <vector>

#include "base/log.h"
#include "cache/store.h"
#include "checkpoint/checkpoint.h"
#include "model/device_model.h"
#include "model/forward.h"
#include "model/packing.h"
#include "model/rope.h"
#include "model/weights.h"

namespace seacliff {
namespace {

class HostModel : public Model {
 public:
  HostModel(const ModelOptions& options, ModelConfig config, Checkpoint checkpoint, Rows rows)
      : config_(std::move(config)),
        checkpoint_(std::move(checkpoint)),
        context_(options.threads),
        frequencies_{RopeFrequencies(config_, 0), RopeFrequencies(config_, 4)},
        weights_(BindWeights(checkpoint_, config_, frequencies_, options.fp8_output_projection)),
        exact_(options.numerics == Numerics::kExact),
        scratch_(config_, dtype(), options.max_tokens, Buffer::Host),
        head_rows_(Buffer::Host(options.max_tokens * config_.dim * SizeOf(dtype()))),
        normed_(Buffer::Host(weights_.mtp.empty() ? 0
                                                  : options.max_tokens * config_.streams *
                                                        config_.dim * SizeOf(dtype()))),
        cache_(config_, exact_, config_.layers + static_cast<int64_t>(weights_.mtp.size()),
               options.window_pages, options.compressed_pages, options.slots, Buffer::Host,
               options.snapshots) {
    context_.rows() = std::move(rows);
  }

  // Brings all weights into memory, packed where they can be. Exact numerics run on the reference
  // rows, which read them as they are stored.
  Status ReadWeights(const std::string& repack_cache, const LoadProgress& progress) {
    std::vector<Matrix*> matrices;
    if (!exact_) matrices = PackableOf(weights_);
    std::unordered_set<const void*> to_pack;
    for (const Matrix* m : matrices) {
      to_pack.insert(m->data);
      if (m->format == WeightFormat::kMxfp4) to_pack.insert(m->scales);
    }
    SC_RETURN_IF_ERROR(checkpoint_.Read(to_pack, PhaseOf(progress, "loading")));
    if (exact_) return OkStatus();
    SC_ASSIGN_OR_RETURN(packed_, PackedWeights::Load(matrices, checkpoint_, repack_cache,
                                                     context_.pool(), progress));
    return OkStatus();
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return context_; }

  Status Forward(const Batch& batch, const ForwardTrace* trace) override {
    SC_CHECK(batch.tokens() <= scratch_.max_tokens());
    Activations s = scratch_.For(batch.tokens());
    Trunk(context_, config_, weights_, batch, cache_, trace, s);
    Head(context_, config_, batch, weights_.hc_head, weights_.norm, weights_.head, s,
         head_rows_.data(), MakeLogits(batch));
    return context_.TakeError();
  }

  void CopyRows(std::span<const RowCopy> copies) override {
    for (const RowCopy& copy : copies) {
      cache_.CopyRows(copy.from, copy.to, [](float* to, const float* from, int64_t bytes) {
        std::memcpy(to, from, static_cast<size_t>(bytes));
      });
    }
  }

  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) override {
    if (weights_.mtp.empty()) return InvalidArgument("the checkpoint has no MTP layer");
    const MtpWeights& w = weights_.mtp.front();
    Activations s = scratch_.For(batch.tokens());
    JoinNext(context_, config_, weights_.embed, w, next_ids, s, normed_.data());
    Block(context_, config_, w.layer, batch, cache_.layer(config_.layers), true, s);
    Head(context_, config_, batch, w.hc_head, w.norm, weights_.head, s, head_rows_.data(),
         MakeLogits(batch));
    return context_.TakeError();
  }

  Result<double> TimeLastStep() override {
    return Unimplemented("steps are timed on a GPU alone (--device cuda)");
  }

  View<const float, 2> logits() const override {
    return {logits_.data(), {logit_rows_, config_.vocab_size}};
  }

 private:
  DType dtype() const { return exact_ ? DType::kF32 : DType::kBf16; }

  // Room for the step's logits.
  float* MakeLogits(const Batch& batch) {
    logit_rows_ = batch.logit_rows.shape[0];
    const auto count = static_cast<size_t>(logit_rows_ * config_.vocab_size);
    if (count > logits_.size()) logits_.resize(count);
    return logits_.data();
  }

  ModelConfig config_;
  Checkpoint checkpoint_;
  Context context_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PackedWeights packed_;
  bool exact_;
  Scratch scratch_;
  Buffer head_rows_;  // [rows, dim]
  Buffer normed_;     // [tokens, streams, dim]: MTP's
  std::vector<float> logits_;
  int64_t logit_rows_ = 0;
  CacheStore cache_;
};

// The device that the options name; null: the host.
Result<std::unique_ptr<Device>> ChooseDevice(const ModelOptions& options) {
  const bool exact = options.numerics == Numerics::kExact;
  std::unique_ptr<Device> none;
  if (options.device == "cpu" || (options.device == "auto" && exact)) return none;
  if (options.device != "auto" && options.device != "cuda") {
    return InvalidArgument(
        fmt::format("device must be auto, cpu or cuda, got \"{}\"", options.device));
  }
  if (exact) return InvalidArgument("numerics exact runs on the CPU alone");
  auto device = OpenDevice(0, {});
  if (device.ok()) {
    SC_LOG_INFO("running on {}", device.value()->gpu().name);
    return device;
  }
  if (options.device == "cuda") {
    return Status(device.status().code(), "--device cuda: " + device.status().message());
  }
  SC_LOG_INFO("running on the CPU: {}", device.status().message());
  return none;
}

}  // namespace

Status Model::ReadLogits(std::vector<float>& to) {
  const View<const float, 2> from = logits();
  to.resize(static_cast<size_t>(from.size()));
  Device* device = context().device();
  if (device == nullptr) {
    std::copy_n(from.data, to.size(), to.data());
    return OkStatus();
  }
  device->Download(to.data(), from.data, from.size() * static_cast<int64_t>(sizeof(float)));
  return device->Synchronize();
}

Result<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                           const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(ModelConfig config, options.config_file.empty()
                                              ? LoadModelConfig(options.dir)
                                              : LoadModelConfigFile(options.config_file));
  SC_ASSIGN_OR_RETURN(Rows rows, Rows::Parse(options.kernels));
  if (options.fp8_output_projection && options.numerics == Numerics::kExact) {
    return InvalidArgument("exact numerics quantise nothing: output_projection must be bf16");
  }
  if (!options.repack_cache.empty() && options.numerics == Numerics::kExact) {
    return InvalidArgument(fmt::format("{}: exact numerics pack no weights, so none can be kept",
                                       options.repack_cache));
  }
  SC_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, ChooseDevice(options));
  if (!options.repack_cache.empty() && device != nullptr) {
    return InvalidArgument(
        fmt::format("{}: a GPU reads weights as they are stored, so there is "
                    "nothing to keep (--repack-cache needs --device cpu)",
                    options.repack_cache));
  }
  const bool mtp = options.mtp && config.mtp_layers > 0;
  auto checkpoint =
      options.load_format == "dummy"
          ? Checkpoint::Dummy(config, mtp, options.seed, PhaseOf(progress, "making weights"))
          : Checkpoint::Open(options.dir, config, mtp);
  if (!checkpoint.ok()) return checkpoint.status();
  if (device != nullptr) {
    return LoadDeviceModel(options, std::move(config), std::move(checkpoint).value(),
                           std::move(rows), std::move(device), progress);
  }
  auto model = std::make_unique<HostModel>(options, std::move(config),
                                           std::move(checkpoint).value(), std::move(rows));
  SC_RETURN_IF_ERROR(model->ReadWeights(options.repack_cache, progress));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace seacliff
