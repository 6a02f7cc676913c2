// The walk over all weights, twice: once for their sizes, once to copy them.
#include "model/device_weights.h"

#include <functional>

#include "base/pages.h"

namespace seacliff {
namespace {

// Gives the place of `bytes` of host memory on the device.
using Place = std::function<const void*(const void* host, int64_t bytes)>;

// Puts every array of the weights into its place.
struct Placer {
  Place place;

  void operator()(Matrix& m) const {
    if (!m) return;
    const int64_t scale_rows = m.format == WeightFormat::kFp8 ? (m.rows + 127) / 128 : m.rows;
    m.scales = Put(m.scales, scale_rows * m.scale_cols());
    m.data = Put(m.data, m.rows * m.row_bytes());
  }
  template <typename T, int N>
  void operator()(View<const T, N>& v) const {
    v.data = Put(v.data, v.size() * static_cast<int64_t>(sizeof(T)));
  }

 private:
  template <typename T>
  T* Put(T* data, int64_t bytes) const {
    return data == nullptr ? nullptr : static_cast<T*>(place(data, bytes));
  }
};

}  // namespace

int64_t DeviceWeights::BytesOf(ModelWeights& weights) {
  int64_t total = 0;
  VisitWeights(weights, Placer{[&](const void* host, int64_t bytes) {
                 total += Aligned(bytes);
                 return host;
               }});
  return total;
}

Result<DeviceWeights> DeviceWeights::Upload(ModelWeights& weights, Device& device,
                                            const LoadProgress& progress) {
  const int64_t total = BytesOf(weights);
  DeviceWeights result;
  result.memory_ = device.Allocate(total, "the weights");
  if (result.memory_.data() == nullptr) return device.TakeError();
  auto* next = static_cast<std::byte*>(result.memory_.data());
  int64_t done = 0;
  VisitWeights(weights, Placer{[&](const void* host, int64_t bytes) -> const void* {
                 std::byte* to = next;
                 next += Aligned(bytes);
                 device.Upload(to, host, bytes);
                 ReleasePages(host, bytes);
                 done += Aligned(bytes);
                 if (progress) progress("copying", done, total);
                 return to;
               }});
  SC_RETURN_IF_ERROR(device.Synchronize());
  return result;
}

}  // namespace seacliff
