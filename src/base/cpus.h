// The CPUs that this process may use. Not what they can do: that is kernels/common/isa.h.
#pragma once

#include <vector>

namespace seacliff {

// Numbers of the CPUs that the affinity mask allows; second threads of a core stand last.
std::vector<int> AllowedCpus();

// How many threads have a core of their own: cores among the allowed CPUs, fewer where a cgroup
// gives less time (`docker --cpus`). At least 1.
int CoresOfOurOwn();

// The CPU that the calling thread runs on at the moment; -1: unknown.
int CurrentCpu();

}  // namespace seacliff
