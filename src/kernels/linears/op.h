// linears: products of one x with several matrices, each as linear gives it (kernels/linear/op.h).
//
//   outs_i[t, n] = sum_k x'[t, k] * w_i[n, k]
//
// All w_i have x's columns; formats, rows, rounding and dtypes of the results are each part's own.
#pragma once

#include <array>
#include <span>

#include "base/check.h"
#include "kernels/linear/op.h"

namespace seacliff {

struct LinearsArgs {
  struct Part {
    Matrix w;
    bool quantise = false;
    Act<2> out;
  };

  Act<2> x;
  std::array<Part, 8> all = {};
  size_t count = 0;

  void Add(const Matrix& w, bool quantise, const Act<2>& out) {
    SC_CHECK(count < all.size());
    all[count++] = {w, quantise, out};
  }
  std::span<const Part> parts() const { return {all.data(), count}; }
  LinearArgs part(size_t i) const { return {x, all[i].w, all[i].quantise, all[i].out}; }
};

void Linears(Context& k, const LinearsArgs& a);

namespace linears {
constexpr int64_t kCudaTokens = 32;    // of one launch (common/matmul_few.cuh)
bool CudaTakes(const LinearsArgs& a);  // so many, weights as stored, bf16
void Cuda(Context& k, const LinearsArgs& a);
// One linear after the other, on a device (what linear's rows take there) or the host.
bool CudaPartsTakes(const LinearsArgs& a);
void Parts(Context& k, const LinearsArgs& a);
void Ref(Context& k, const LinearsArgs& a);
}  // namespace linears

}  // namespace seacliff
