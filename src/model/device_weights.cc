// The walk over all weights, twice: once for their sizes, once to copy them.
#include "model/device_weights.h"

#include <fmt/format.h>

#include <functional>

#include "base/pages.h"

namespace seacliff {
namespace {

// Gives the place of `bytes` of host memory on the device.
using Place = std::function<const void*(const void* host, int64_t bytes)>;

class Walk {
 public:
  explicit Walk(Place place) : place_(std::move(place)) {}

  void Model(ModelWeights& w) {
    Weight(w.embed);
    for (LayerWeights& layer : w.layers) Layer(layer);
    Weight(w.head);
    Values(w.norm);
    Mhc(w.hc_head);
  }

 private:
  void Bytes(const void*& data, int64_t bytes) {
    if (data != nullptr) data = place_(data, bytes);
  }
  void Weight(Matrix& m) {
    if (!m) return;
    const int64_t rows =
        m.format == WeightFormat::kFp8 ? (m.rows + 127) / 128 : m.rows;  // of the scale table
    const void* scales = m.scales;
    Bytes(scales, rows * m.scale_cols());
    m.scales = static_cast<const E8m0*>(scales);
    Bytes(m.data, m.rows * m.row_bytes());
  }
  template <typename T, int N>
  void Values(View<const T, N>& v) {
    const void* data = v.data;
    Bytes(data, v.size() * static_cast<int64_t>(sizeof(T)));
    v.data = static_cast<const T*>(data);
  }
  void Mhc(MhcWeights& w) {
    Weight(w.fn);
    Values(w.base);
    Values(w.scale);
  }
  void Compressor(CompressorWeights& w) {
    Weight(w.keys);
    Weight(w.gates);
    Values(w.ape);
    Values(w.norm);
  }
  void Expert(ExpertWeights& w) {
    Weight(w.gate);
    Weight(w.up);
    Weight(w.down);
  }
  void Layer(LayerWeights& layer) {
    AttentionWeights& a = layer.attn;
    Mhc(layer.hc_attn);
    Mhc(layer.hc_ffn);
    Values(layer.attn_norm);
    Values(layer.ffn_norm);
    Values(a.frequencies);
    for (Matrix* m : {&a.wq_a, &a.wq_b, &a.wkv, &a.wo_a, &a.wo_b}) Weight(*m);
    Values(a.q_norm);
    Values(a.kv_norm);
    Values(a.sink);
    Compressor(a.compressor);
    Weight(a.index_wq_b);
    Weight(a.index_weights);
    Compressor(a.index_compressor);
    Weight(layer.moe.gate);
    Values(layer.moe.bias);
    Values(layer.moe.table);
    for (ExpertWeights& e : layer.moe.experts) Expert(e);
    Expert(layer.moe.shared);
  }

  Place place_;
};

constexpr int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

Result<DeviceWeights> DeviceWeights::Upload(ModelWeights& weights, Device& device,
                                            const LoadProgress& progress) {
  int64_t total = 0;
  Walk([&](const void* host, int64_t bytes) {
    total += Aligned(bytes);
    return host;
  }).Model(weights);

  DeviceWeights result;
  result.memory_ = device.Allocate(total);
  if (result.memory_.data() == nullptr) {
    return Exhausted(fmt::format("{}: the weights take {:.1f} GB, which are not free on the device",
                                 device.gpu().name, static_cast<double>(total) / 1e9));
  }
  auto* next = static_cast<std::byte*>(result.memory_.data());
  int64_t done = 0;
  Walk([&](const void* host, int64_t bytes) -> const void* {
    std::byte* to = next;
    next += Aligned(bytes);
    device.Upload(to, host, bytes);
    ReleasePages(host, bytes);
    done += Aligned(bytes);
    if (progress) progress("copying", done, total);
    return to;
  }).Model(weights);
  SC_RETURN_IF_ERROR(device.Synchronize());
  return result;
}

}  // namespace seacliff
