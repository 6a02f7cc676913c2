// The CUDA path of experts for few tokens.
#pragma once

#include "kernels/experts/op.h"

namespace seacliff::experts {

// What CudaTakes takes, if the tokens are few and the rows as long as its stages want them.
bool FewTakes(Context& k, const ExpertsArgs& a);
void CudaFew(Context& k, const ExpertsArgs& a);

}  // namespace seacliff::experts
