// The CUDA side of machine.h; its definition exists in CUDA builds only.
#pragma once

#include <string>
#include <vector>

#include "kernels/machine.h"

namespace seacliff {

// Appends the usable GPUs; returns why there is none, else nothing.
std::string ListCudaDevices(std::vector<Gpu>& gpus);

}  // namespace seacliff
