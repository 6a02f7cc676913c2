// Where a compressor's inputs are kept, [slots, StateRows(ratio), 2, width]: the row of a position.
//
// Blocks of ratio 4 overlap, so that the rows of a block are read until the next is complete: 8
// rows in turn. Those of a page's last block have places of their own, 4 for pages of even and 4
// for pages of odd numbers. They stay for two pages, as what a sequence needs to start where the
// page ends (cache/plan.h). Blocks of ratio 128 are a page each and do not overlap.
#pragma once

#include "tensor/paged_view.h"

#ifdef __CUDACC__
#define SC_HOST_DEVICE __host__ __device__
#else
#define SC_HOST_DEVICE
#endif

namespace seacliff {

inline constexpr int64_t kStateInTurn = 8, kStatePageEnd = 4;  // rows of ratio 4

constexpr int64_t StateRows(int64_t ratio) {
  return ratio == 4 ? kStateInTurn + 2 * kStatePageEnd : kPageTokens;
}

template <typename Int>
SC_HOST_DEVICE constexpr bool IsPageEnd(Int ratio, Int position) {
  return ratio == 4 && position % Int{kPageTokens} >= Int{kPageTokens - kStatePageEnd};
}

template <typename Int>
SC_HOST_DEVICE constexpr Int StateRow(Int ratio, Int position) {
  if (ratio != 4) return position % Int{kPageTokens};
  if (!IsPageEnd(ratio, position)) return position % Int{kStateInTurn};
  return Int{kStateInTurn} + position / Int{kPageTokens} % 2 * Int{kStatePageEnd} +
         position % Int{kStatePageEnd};
}

// Whether a step whose last position of the sequence is `last` leaves the row of a position:
// whether the next with the same place comes later.
template <typename Int>
SC_HOST_DEVICE constexpr bool KeepsState(Int ratio, Int position, Int last) {
  Int turn = ratio == 4 ? Int{kStateInTurn} : Int{kPageTokens};
  if (IsPageEnd(ratio, position))
    turn = Int{2 * kPageTokens};
  else if (IsPageEnd(ratio, position + turn))
    turn *= 2;
  return position + turn > last;
}

}  // namespace seacliff
