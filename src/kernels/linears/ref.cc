// Reference row of linears.
#include "kernels/linears/op.h"

namespace seacliff::linears {

void Ref(Context& k, const LinearsArgs& a) {
  for (size_t i = 0; i < a.count; ++i) linear::Ref(k, a.part(i));
}

}  // namespace seacliff::linears
