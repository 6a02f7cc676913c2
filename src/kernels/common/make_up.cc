// MakeUp of a build without CUDA, where there is no device to call it for; the other is in
// make_up.cu.
#include "kernels/common/make_up.h"

namespace seacliff {

#ifndef SEACLIFF_CUDA
void MakeUp(Device&, const FillRule&, const TensorRows&, void*) { SC_CHECK(false); }
#endif

}  // namespace seacliff
