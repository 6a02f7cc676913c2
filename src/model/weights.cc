// Binds the tensors of a checkpoint, by their official names, to the structs of the forward pass.
#include "model/weights.h"

#include <fmt/format.h>

#include "base/check.h"

namespace seacliff {
namespace {

class Binder {
 public:
  Binder(const Checkpoint& checkpoint, std::string prefix, Slice slice)
      : checkpoint_(checkpoint), prefix_(std::move(prefix)), slice_(slice) {}

  Binder Sub(const std::string& name) const { return {checkpoint_, prefix_ + name, slice_}; }

  template <typename T, int N>
  View<const T, N> Values(const std::string& name) const {
    const StoredTensor& tensor = checkpoint_.Get(prefix_ + name);
    SC_CHECK(tensor.dtype == DTypeOf<T>() && tensor.shape.size() == N);
    std::array<int64_t, N> shape{};
    std::copy(tensor.shape.begin(), tensor.shape.end(), shape.begin());
    return {reinterpret_cast<const T*>(tensor.data), shape};
  }
  NormWeight Norm(const std::string& name) const { return Values<Bf16, 1>(name + ".weight"); }

  Matrix Weight(const std::string& name, const char* suffix = ".weight") const {
    const StoredTensor& tensor = checkpoint_.Get(prefix_ + name + suffix);
    SC_CHECK(tensor.shape.size() == 2);
    Matrix m{WeightFormat::kBf16, tensor.shape[0], tensor.shape[1], tensor.data, nullptr};
    switch (tensor.dtype) {
      case DType::kF32:
        m.format = WeightFormat::kF32;
        return m;
      case DType::kBf16:
        return m;
      case DType::kE4m3:
        m.format = WeightFormat::kFp8;
        break;
      case DType::kI8:
        m.format = WeightFormat::kMxfp4;
        m.cols *= 2;
        break;
      default:
        SC_CHECK(false);
    }
    const StoredTensor& scale = checkpoint_.Get(prefix_ + name + ".scale");
    SC_CHECK(scale.dtype == DType::kE8m0);
    m.scales = reinterpret_cast<const E8m0*>(scale.data);
    return m;
  }

  // The rank's part of a matrix whose rows are shared out.
  Matrix Rows(const std::string& name) const {
    Matrix m = Weight(name);
    m.rows /= slice_.size;
    const int64_t begin = slice_.rank * m.rows;
    m.scales = m.scale_row(begin);
    m.data = static_cast<const std::byte*>(m.data) + begin * m.row_bytes();
    return m;
  }
  // Of one whose columns are.
  Matrix Columns(const std::string& name) const {
    Matrix m = Weight(name);
    if (slice_.size == 1) return m;
    m.pitch = m.row_bytes();
    m.scale_pitch = m.scale_cols();
    m.cols /= slice_.size;
    m.data = static_cast<const std::byte*>(m.data) + slice_.rank * m.row_bytes();
    if (m.scales != nullptr) m.scales += slice_.rank * m.scale_cols();
    return m;
  }
  View<const float, 1> Part(const std::string& name) const {
    const View<const float, 1> whole = Values<float, 1>(name);
    const int64_t count = whole.shape[0] / slice_.size;
    return {whole.data + slice_.rank * count, {count}};
  }

 private:
  const Checkpoint& checkpoint_;
  std::string prefix_;
  Slice slice_;
};

MhcWeights BindMhc(const Binder& b, const std::string& name) {
  return {b.Weight(name, "_fn"), b.Values<float, 1>(name + "_base"),
          b.Values<float, 1>(name + "_scale")};
}

CompressorWeights BindCompressor(const Binder& b) {
  return {b.Weight("wkv"), b.Weight("wgate"), b.Values<float, 2>("ape"), b.Norm("norm")};
}

ExpertWeights BindExpert(const Binder& b) { return {b.Rows("w1"), b.Rows("w3"), b.Columns("w2")}; }

AttentionWeights BindAttention(const Binder& b, int64_t ratio,
                               const std::vector<float> (&frequencies)[2]) {
  AttentionWeights w;
  const std::vector<float>& f = frequencies[ratio == 0 ? 0 : 1];
  w.ratio = ratio;
  w.frequencies = {f.data(), {static_cast<int64_t>(f.size())}};
  w.wq_a = b.Weight("wq_a");
  w.wq_b = b.Rows("wq_b");
  w.wkv = b.Weight("wkv");
  w.wo_a = b.Rows("wo_a");
  w.wo_b = b.Columns("wo_b");
  w.q_norm = b.Norm("q_norm");
  w.kv_norm = b.Norm("kv_norm");
  w.sink = b.Part("attn_sink");
  if (ratio != 0) w.compressor = BindCompressor(b.Sub("compressor."));
  if (ratio == 4) {
    w.index_wq_b = b.Weight("indexer.wq_b");
    w.index_weights = b.Weight("indexer.weights_proj");
    w.index_compressor = BindCompressor(b.Sub("indexer.compressor."));
  }
  return w;
}

LayerWeights BindLayer(const Binder& b, const ModelConfig& config, int64_t ratio, bool hash,
                       const std::vector<float> (&frequencies)[2]) {
  LayerWeights w;
  w.hc_attn = BindMhc(b, "hc_attn");
  w.hc_ffn = BindMhc(b, "hc_ffn");
  w.attn_norm = b.Norm("attn_norm");
  w.ffn_norm = b.Norm("ffn_norm");
  w.attn = BindAttention(b.Sub("attn."), ratio, frequencies);
  w.moe.gate = b.Weight("ffn.gate");
  if (hash)
    w.moe.table = b.Values<int64_t, 2>("ffn.gate.tid2eid");
  else
    w.moe.bias = b.Values<float, 1>("ffn.gate.bias");
  for (int64_t e = 0; e < config.experts; ++e) {
    w.moe.experts.push_back(BindExpert(b.Sub(fmt::format("ffn.experts.{}.", e))));
  }
  if (config.shared_experts > 0) w.moe.shared = BindExpert(b.Sub("ffn.shared_experts."));
  return w;
}

}  // namespace

ModelWeights BindWeights(const Checkpoint& checkpoint, const ModelConfig& config,
                         const std::vector<float> (&frequencies)[2], bool quantise_o, Slice slice) {
  const Binder b(checkpoint, "", slice);
  ModelWeights w;
  w.embed = b.Rows("embed");
  w.head = b.Rows("head");
  w.first_id = slice.rank * w.embed.rows;
  w.norm = b.Norm("norm");
  w.hc_head = BindMhc(b, "hc_head");
  for (int64_t i = 0; i < config.layers; ++i) {
    w.layers.push_back(BindLayer(b.Sub(fmt::format("layers.{}.", i)), config,
                                 config.ratios[static_cast<size_t>(i)], i < config.hash_layers,
                                 frequencies));
  }
  if (checkpoint.has_mtp()) {
    const Binder m = b.Sub("mtp.0.");
    MtpWeights mtp;
    mtp.layer = BindLayer(m, config, 0, false, frequencies);
    mtp.e_proj = m.Weight("e_proj");
    mtp.h_proj = m.Weight("h_proj");
    mtp.enorm = m.Norm("enorm");
    mtp.hnorm = m.Norm("hnorm");
    mtp.norm = m.Norm("norm");
    mtp.hc_head = BindMhc(m, "hc_head");
    w.mtp.push_back(std::move(mtp));
  }
  for (LayerWeights& layer : w.layers) layer.attn.quantise_o = quantise_o;
  for (MtpWeights& mtp : w.mtp) mtp.layer.attn.quantise_o = quantise_o;
  return w;
}

}  // namespace seacliff
