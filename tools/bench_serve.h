// seacliff bench serve: a load over HTTP, on any server of the OpenAI API.
#pragma once

#include "base/status.h"
#include "config/settings.h"

namespace seacliff {

Status BenchServe(const Settings& settings);

}  // namespace seacliff
