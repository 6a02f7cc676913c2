// OpenSideStream of a build without CUDA, where nobody has a device; the other is in
// side_stream.cu.
#include "kernels/side_stream.h"

namespace seacliff {

#ifndef SEACLIFF_CUDA
Result<std::unique_ptr<SideStream>> OpenSideStream(Device&) {
  return Unimplemented("this program was built without CUDA (make cuda builds it)");
}
#endif

}  // namespace seacliff
