// seacliff bench all-reduce: how long the ranks of a model take to add up what each has, for each
// way of doing it, beside what the link between two of the GPUs carries.
#pragma once

#include "base/status.h"
#include "config/settings.h"

namespace seacliff {

Status BenchAllReduce(const Settings& settings);

}  // namespace seacliff
