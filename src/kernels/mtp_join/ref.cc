// Reference row of mtp_join.
#include "kernels/mtp_join/op.h"

namespace seacliff::mtp_join {

void Ref(Context&, const MtpJoinArgs& a) {
  const int64_t tokens = a.streams.shape[0], streams = a.streams.shape[1], dim = a.streams.shape[2];
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < streams; ++j) {
      for (int64_t i = 0; i < dim; ++i) {
        const int64_t at = (t * streams + j) * dim + i;
        a.streams.Store(at, a.streams.Load(at) + a.x.Load(t * dim + i));
      }
    }
  }
}

}  // namespace seacliff::mtp_join
