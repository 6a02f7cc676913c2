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
#include "model/parallel_model.h"
#include "model/rank.h"
#include "model/rope.h"
#include "model/slice.h"
#include "model/weights.h"
#include "parallel/one_rank.h"

namespace seacliff {
namespace {

class HostModel : public Model {
 public:
  HostModel(const ModelOptions& options, RankParts parts)
      : config_(std::move(parts.config)),
        part_(std::move(parts.part)),
        checkpoint_(std::move(parts.checkpoint)),
        comm_(parts.comm),
        context_(options.threads),
        frequencies_{RopeFrequencies(config_, 0), RopeFrequencies(config_, 4)},
        weights_(BindWeights(checkpoint_, config_, frequencies_, options.fp8_output_projection,
                             SliceOf(comm_))),
        exact_(options.numerics == Numerics::kExact),
        scratch_(part_, dtype(), options.max_tokens, Buffer::Host),
        head_rows_(Buffer::Host(options.max_tokens * config_.dim * SizeOf(dtype()))),
        normed_(Buffer::Host(weights_.mtp.empty() ? 0
                                                  : options.max_tokens * config_.streams *
                                                        config_.dim * SizeOf(dtype()))),
        cache_(config_, exact_, config_.layers + static_cast<int64_t>(weights_.mtp.size()),
               options.window_pages, options.compressed_pages, options.slots, Buffer::Host,
               options.snapshots) {
    context_.rows() = std::move(parts.rows);
  }

  // Brings all weights into memory, packed where they can be. Exact numerics run on the reference
  // rows, which read them as they are stored.
  Status ReadWeights(const std::string& repack_cache, const LoadProgress& progress) {
    std::unordered_set<const void*> to_pack;  // as the checkpoint has them
    if (!exact_) {
      ModelWeights whole = BindWeights(checkpoint_, config_, frequencies_);
      for (const Matrix* m : PackableOf(whole)) {
        to_pack.insert(m->data);
        if (m->format == WeightFormat::kMxfp4) to_pack.insert(m->scales);
      }
    }
    SC_RETURN_IF_ERROR(checkpoint_.Read(to_pack, PhaseOf(progress, "loading")));
    SC_ASSIGN_OR_RETURN(closed_, CloseGaps(weights_));
    if (exact_) return OkStatus();
    SC_ASSIGN_OR_RETURN(packed_, PackedWeights::Load(PackableOf(weights_), checkpoint_,
                                                     repack_cache, context_.pool(), progress));
    return OkStatus();
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return context_; }

  Status Forward(const Batch& batch, const ForwardTrace* trace) override {
    SC_CHECK(batch.tokens() <= scratch_.max_tokens());
    Activations s = scratch_.For(batch.tokens());
    Trunk(context_, comm_, part_, weights_, batch, cache_, trace, s);
    Head(context_, comm_, part_, batch, weights_.hc_head, weights_.norm, weights_.head, s,
         head_rows_.data(), MakeLogits(batch));
    return context_.TakeError();
  }

  void CopyRows(std::span<const RowCopy> copies) override {
    for (const RowCopy& copy : copies) {
      cache_.CopyRows(copy, [](float* to, const float* from, int64_t bytes) {
        std::memcpy(to, from, static_cast<size_t>(bytes));
      });
    }
  }

  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) override {
    if (weights_.mtp.empty()) return InvalidArgument("the checkpoint has no MTP layer");
    const MtpWeights& w = weights_.mtp.front();
    Activations s = scratch_.For(batch.tokens());
    JoinNext(context_, comm_, part_, weights_, next_ids, s, normed_.data());
    Block(context_, comm_, part_, w.layer, batch, cache_.layer(config_.layers), true, s);
    Head(context_, comm_, part_, batch, w.hc_head, w.norm, weights_.head, s, head_rows_.data(),
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
  LogitsRoom MakeLogits(const Batch& batch) {
    logit_rows_ = batch.logit_rows.shape[0];
    const auto room = [this](std::vector<float>& v, int64_t vocab) {
      const auto count = static_cast<size_t>(logit_rows_ * vocab);
      if (count > v.size()) v.resize(count);
      return v.data();
    };
    float* const all = comm_.rank() == 0 ? room(logits_, config_.vocab_size) : nullptr;
    return {comm_.size() == 1 ? all : room(part_logits_, part_.vocab_size), all};
  }

  ModelConfig config_, part_;  // of the model and of the rank
  Checkpoint checkpoint_;
  Communicator& comm_;
  Context context_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PageMemory closed_;  // matrices without their gaps
  PackedWeights packed_;
  bool exact_;
  Scratch scratch_;
  Buffer head_rows_;  // [rows, dim]
  Buffer normed_;     // [tokens, streams, dim]: MTP's
  std::vector<float> logits_, part_logits_;
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
  auto device = OpenDevice(0, options.device_limits);
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
  SC_RETURN_IF_ERROR(device->Synchronize());
  return CheckRanks();
}

Result<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                           const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, ChooseDevice(options));
  if (options.node_rank != 0) {
    return InvalidArgument("node_rank: node 0 alone runs a model, the others follow");
  }
  if (options.tensor_parallel_size > 1 || options.nodes > 1 || options.echo_ranks) {
    return LoadParallelModel(options, std::move(device), progress);
  }
  static OneRank alone;  // has no state
  return LoadRank(options, std::move(device), alone, progress);
}

Result<std::unique_ptr<Model>> LoadRank(const ModelOptions& options, std::shared_ptr<Device> device,
                                        Communicator& comm, const LoadProgress& progress) {
  SC_ASSIGN_OR_RETURN(ModelConfig config, ConfigOf(options));
  SC_ASSIGN_OR_RETURN(ModelConfig part, RankConfig(config, comm.size()));
  SC_ASSIGN_OR_RETURN(Rows rows, Rows::Parse(options.kernels));
  const bool exact = options.numerics == Numerics::kExact;
  if (options.fp8_output_projection && exact) {
    return InvalidArgument("exact numerics quantise nothing: output_projection must be bf16");
  }
  if (!options.repack_cache.empty()) {
    const auto refuse = [&](const char* why) {
      return InvalidArgument(fmt::format("{}: {}", options.repack_cache, why));
    };
    if (exact) return refuse("exact numerics pack no weights, so none can be kept");
    if (device != nullptr) {
      return refuse(
          "a GPU reads weights as they are stored, so there is nothing to keep (--repack-cache "
          "needs --device cpu)");
    }
    if (comm.size() > 1) return refuse("--repack-cache keeps a whole model, not a rank's part");
  }
  const bool mtp = options.mtp && config.mtp_layers > 0;
  auto checkpoint = options.load_format != "dummy" ? Checkpoint::Open(options.dir, config, mtp)
                    : device != nullptr ? Checkpoint::DummyOnDemand(config, mtp, options.seed)
                                        : Checkpoint::Dummy(config, mtp, options.seed,
                                                            PhaseOf(progress, "making weights"));
  if (!checkpoint.ok()) return checkpoint.status();
  RankParts parts{std::move(config), std::move(part), std::move(checkpoint).value(),
                  std::move(rows), comm};
  if (device != nullptr) {
    return LoadDeviceModel(options, std::move(parts), std::move(device), progress);
  }
  auto model = std::make_unique<HostModel>(options, std::move(parts));
  SC_RETURN_IF_ERROR(model->ReadWeights(options.repack_cache, progress));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace seacliff
