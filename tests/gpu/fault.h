// A fault on purpose, for the test of what follows one.
#pragma once

#include "kernels/device.h"

namespace seacliff {

// Launches a kernel that writes through a null pointer: the device's context ends with it.
void WriteToNull(const Device& device);

}  // namespace seacliff
