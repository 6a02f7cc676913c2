// What a request must satisfy before it is queued. Messages name the field.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "seacliff/engine.h"

namespace seacliff {

struct RequestLimits {
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
};

// Checks everything and clamps max_tokens to the context that the prompt leaves free.
Status ValidateRequest(const RequestLimits& limits, Request& request);

}  // namespace seacliff
