// Reference row of fused.
#include "kernels/fused/op.h"

namespace seacliff::fused {

void Ref(Context& k, const FusedArgs& a) {
  if (a.window) window_insert::Ref(k, *a.window);
  if (a.keys) compress::Ref(k, *a.keys);
  if (a.index_keys) compress::Ref(k, *a.index_keys);
  if (a.norm) rms_norm::Ref(k, *a.norm);
  if (a.query) query_rope::Ref(k, *a.query);
  if (a.index_query) index_query::Ref(k, *a.index_query);
}

}  // namespace seacliff::fused
