// The model: checkpoint, weights, caches and scratch of one process, and the order of its layers.
#include "model/model.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_set>

#include "base/log.h"
#include "cache/store.h"
#include "checkpoint/checkpoint.h"
#include "kernels/common/mhc.h"
#include "kernels/embed/op.h"
#include "kernels/linear/op.h"
#include "kernels/rms_norm/op.h"
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
        weights_(BindWeights(checkpoint_, config_, frequencies_)),
        exact_(options.numerics == Numerics::kExact),
        scratch_(config_, dtype(), options.max_tokens, Buffer::Host),
        head_rows_(Buffer::Host(options.max_tokens * config_.dim * SizeOf(dtype()))),
        next_streams_(Buffer::Host(weights_.mtp.empty() ? 0 : StreamBytes(options.max_tokens))),
        cache_(config_, exact_, config_.layers + static_cast<int64_t>(weights_.mtp.size()),
               options.window_pages, options.compressed_pages, options.slots) {
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

  Status Forward(const Batch& batch, View<float, 2> logits, const ForwardTrace* trace) override {
    SC_CHECK(batch.tokens() <= scratch_.max_tokens());
    Activations s = scratch_.For(batch.tokens());
    Embed(context_, {batch.ids, weights_.embed, s.streams});
    for (int64_t i = 0; i < config_.layers; ++i) {
      const LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
      if (trace != nullptr) WantMargins(*trace, i, s);
      Block(context_, config_, layer, batch, cache_.layer(i), i == 0, s);
      if (trace != nullptr && trace->layers) TraceStreams(*trace, i, s);
    }
    Head(context_, config_, batch, weights_.hc_head, weights_.norm, weights_.head, s,
         head_rows_.data(), logits.data);
    return context_.TakeError();
  }

  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids,
                    View<float, 2> logits) override {
    if (weights_.mtp.empty()) return InvalidArgument("the checkpoint has no MTP layer");
    const MtpWeights& w = weights_.mtp.front();
    Activations s = scratch_.For(batch.tokens());
    JoinNext(w, next_ids, s);
    Block(context_, config_, w.layer, batch, cache_.layer(config_.layers), true, s);
    Head(context_, config_, batch, w.hc_head, w.norm, weights_.head, s, head_rows_.data(),
         logits.data);
    return context_.TakeError();
  }

 private:
  DType dtype() const { return exact_ ? DType::kF32 : DType::kBf16; }
  int64_t StreamBytes(int64_t tokens) const {
    return tokens * (config_.streams + 1) * config_.dim * SizeOf(dtype());
  }

  // streams <- h_proj(hnorm(streams)) + e_proj(enorm(embed(next))), the latter for every stream.
  void JoinNext(const MtpWeights& w, View<const int32_t, 1> next_ids, Activations& s) {
    const int64_t tokens = s.x.shape[0], n = config_.streams, dim = config_.dim;
    const auto eps = static_cast<float>(config_.norm_eps);
    const Act<2> hidden = s.streams.Reshape<2>({tokens * n, dim});
    const Act<2> joined(next_streams_.data(), dtype(), {tokens * (n + 1), dim});
    const Act<2> next = joined.Rows(0, tokens), projected = joined.Rows(tokens, tokens * n);
    Embed(context_, {next_ids, weights_.embed, next.Reshape<3>({tokens, 1, dim})});
    RmsNorm(context_, {next, w.enorm, eps, next});
    Linear(context_, {next, w.e_proj, true, s.x});
    RmsNorm(context_, {hidden, w.hnorm, eps, hidden});
    Linear(context_, {hidden, w.h_proj, true, projected});
    for (int64_t i = 0; i < tokens * n * dim; ++i) {
      hidden.Store(i, projected.Load(i) + s.x.Load(i / (n * dim) * dim + i % dim));
    }
  }

  static void WantMargins(const ForwardTrace& trace, int64_t i, Activations& s) {
    if (!trace.expert_margin) return;
    s.expert_margin = trace.expert_margin[i];
    s.index_margin = trace.index_margin[i];
    for (int64_t t = 0; t < s.index_margin.shape[0]; ++t) s.index_margin(t) = INFINITY;
  }

  // The streams of the traced token after layer i: what the next boundary will make of them.
  void TraceStreams(const ForwardTrace& trace, int64_t i, const Activations& s) {
    const int64_t n = config_.streams, dim = config_.dim;
    std::vector<float> memory(static_cast<size_t>(n * dim));
    const Act<3> copy(memory.data(), dtype(), {1, n, dim});
    const Act<3> streams = s.streams.Rows(trace.token, 1);
    for (int64_t d = 0; d < n * dim; ++d) copy.Store(d, streams.Load(d));
    MhcPost(s.y.Rows(trace.token, 1), copy, {&s.mix(trace.token, 0), {1, n + n * n}}, 0);
    for (int64_t d = 0; d < n * dim; ++d) trace.layers[i].data[d] = copy.Load(d);
  }

  ModelConfig config_;
  Checkpoint checkpoint_;
  Context context_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PackedWeights packed_;
  bool exact_;
  Scratch scratch_;
  Buffer head_rows_;     // [rows, dim]
  Buffer next_streams_;  // [tokens, streams + 1, dim]: MTP's inputs
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

Result<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                           const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(ModelConfig config, options.config_file.empty()
                                              ? LoadModelConfig(options.dir)
                                              : LoadModelConfigFile(options.config_file));
  SC_ASSIGN_OR_RETURN(Rows rows, Rows::Parse(options.kernels));
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
