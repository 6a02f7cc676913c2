// VisitWeights with its two kinds of things made one.
#include "model/weight_arrays.h"

namespace seacliff {
namespace {

struct Placer {
  const std::function<const void*(const WeightArray&)>& place;

  void operator()(Matrix& m) const {
    if (!m) return;
    m.scales = Put(m.scales, m.scale_rows(), m.scale_cols(), m.scale_pitch);
    const void* const data = Put(m.data, m.rows, m.row_bytes(), m.pitch);
    if (data == m.data) return;  // seen alone
    m.data = data;
    m.pitch = m.scale_pitch = 0;
  }
  template <typename T, int N>
  void operator()(View<const T, N>& v) const {
    v.data = Put(v.data, 1, v.size() * static_cast<int64_t>(sizeof(T)), 0);
  }

 private:
  template <typename T>
  T* Put(T* data, int64_t rows, int64_t bytes, int64_t pitch) const {
    if (data == nullptr) return nullptr;
    return static_cast<T*>(place({data, rows, bytes, pitch == 0 ? bytes : pitch}));
  }
};

struct Lister {
  std::vector<Matrix*>& all;
  void operator()(Matrix& m) const {
    if (m) all.push_back(&m);
  }
  template <typename T, int N>
  void operator()(View<const T, N>&) const {}
};

}  // namespace

void ForEachArray(ModelWeights& weights, const std::function<void(const WeightArray&)>& visit) {
  MoveArrays(weights, [&](const WeightArray& array) {
    visit(array);
    return array.data;
  });
}

void MoveArrays(ModelWeights& weights,
                const std::function<const void*(const WeightArray&)>& place) {
  VisitWeights(weights, Placer{place});
}

std::vector<Matrix*> MatricesOf(ModelWeights& weights) {
  std::vector<Matrix*> all;
  VisitWeights(weights, Lister{all});
  return all;
}

}  // namespace seacliff
