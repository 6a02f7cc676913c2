// The OpenAI error body.
#include "serve/api_error.h"

#include <fmt/format.h>

#include "serve/json_writer.h"

namespace seacliff::serve {
namespace {

const char* TypeOf(int http_status) {
  if (http_status == 401) return "authentication_error";
  if (http_status == 429) return "rate_limit_error";
  if (http_status >= 500) return "server_error";
  return "invalid_request_error";
}

}  // namespace

ApiError BadRequest(std::string param, std::string message) {
  return {400, std::move(message), std::move(param), "invalid_value", 0};
}

ApiError NotSupportedYet(std::string_view param) {
  return {400, fmt::format("{}: this server does not support it yet", param), std::string(param),
          "unsupported_parameter", 0};
}

ApiError ContextExceeded(std::string_view param, size_t prompt_tokens, int max_model_len) {
  return {400,
          fmt::format("This model's maximum context length is {} tokens. However, your {} has {} "
                      "tokens, which leaves no room for a reply. Please shorten it.",
                      max_model_len, param, prompt_tokens),
          std::string(param), "context_length_exceeded", 0};
}

ApiError Unavailable(std::string code, std::string message) {
  return {503, std::move(message), "", std::move(code), 1};
}

ApiError FromStatus(const Status& status) {
  ApiError error;
  error.message = status.message();
  switch (status.code()) {
    case Code::kOk:
      return error;
    case Code::kInvalidArgument: {
      error = BadRequest("", status.message());
      const size_t colon = status.message().find(':');
      const std::string field = status.message().substr(0, colon);
      if (colon != std::string::npos && field.find(' ') == std::string::npos) error.param = field;
      if (status.message().find("context_length_exceeded") != std::string::npos) {
        error.code = "context_length_exceeded";
      }
      return error;
    }
    case Code::kNotFound:
      error.http_status = 404;
      error.code = "not_found";
      return error;
    case Code::kExhausted:
      return Unavailable("queue_full", status.message());
    case Code::kUnimplemented:
      error.http_status = 501;
      error.code = "not_implemented";
      return error;
    case Code::kUnavailable:
      return Unavailable("device_lost", status.message());
    case Code::kInternal:
      break;
  }
  error.http_status = 500;
  error.code = "internal_error";
  return error;
}

std::string ErrorBody(const ApiError& error) {
  JsonWriter json;
  json.BeginObject().Key("error").BeginObject();
  json.Field("message", error.message).Field("type", TypeOf(error.http_status));
  json.Key("param");
  if (error.param.empty()) {
    json.Value(nullptr);
  } else {
    json.Value(error.param);
  }
  json.Key("code");
  if (error.code.empty()) {
    json.Value(nullptr);
  } else {
    json.Value(error.code);
  }
  json.EndObject().EndObject();
  return json.Take();
}

}  // namespace seacliff::serve
