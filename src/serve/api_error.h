// What a client is told when a request cannot be served: an HTTP status and the OpenAI error body.
// Not for errors inside the house, which are a Status (FromStatus makes one of these from it).
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace seacliff::serve {

struct [[nodiscard]] ApiError {
  int http_status = 0;  // 0: no error
  std::string message;
  std::string param;    // the field at fault, dotted; "" is written as null
  std::string code;     // a word for programs; "" is written as null
  int retry_after = 0;  // seconds, for the Retry-After header; 0: none

  bool any() const { return http_status != 0; }
};

ApiError BadRequest(std::string param, std::string message);
ApiError NotSupportedYet(std::string_view param);
ApiError ContextExceeded(std::string_view param, size_t prompt_tokens, int max_model_len);
ApiError Unavailable(std::string code, std::string message);  // 503, Retry-After: 1
// A message of the form "field: text" gives its field to `param`.
ApiError FromStatus(const Status& status);

// {"error": {"message", "type", "param", "code"}}; the type follows from the HTTP status.
std::string ErrorBody(const ApiError& error);

}  // namespace seacliff::serve
