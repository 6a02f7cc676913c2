// One walk over everything that the weights consist of, whatever it is: pieces of memory.
#pragma once

#include <functional>
#include <vector>

#include "model/weights.h"

namespace seacliff {

// Rows of memory, `pitch` bytes from one to the next, which is `bytes` where there are no gaps.
struct WeightArray {
  const void* data;
  int64_t rows, bytes, pitch;
  int64_t size() const { return rows * bytes; }
};

// In the order of VisitWeights, of a matrix its scales first. What is not there is passed over.
void ForEachArray(ModelWeights& weights, const std::function<void(const WeightArray&)>& visit);

// Lets every array lie where `place` says, without gaps.
void MoveArrays(ModelWeights& weights, const std::function<const void*(const WeightArray&)>& place);

// The matrices that are there, in the same order.
std::vector<Matrix*> MatricesOf(ModelWeights& weights);

}  // namespace seacliff
