// seacliff bench throughput --max-concurrency: the load of `bench serve` put to an engine in this
// process. What the two differ by is the cost of HTTP and text.
#pragma once

#include <string>

#include "base/status.h"
#include "config/settings.h"

namespace seacliff {

// `command`: "seacliff bench throughput" and the flags of the model.
Status BenchEngine(const Settings& settings, const std::string& command);

}  // namespace seacliff
