// Status and Result<T>: how every fallible function of Seacliff reports what went wrong.
//
// Whatever a file, a user, the network or a device can cause is a Status whose message names the
// field, tensor or file. Broken promises between our own functions are SC_CHECK (base/check.h).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace seacliff {

// The HTTP status a code maps to stands beside it.
enum class Code : int32_t {
  kOk = 0,
  kInvalidArgument = 1,  // 400
  kNotFound = 2,         // 404
  kExhausted = 3,        // 429
  kUnimplemented = 4,    // 501
  kInternal = 5,         // 500
  kUnavailable = 6,      // 503: the device is lost; only a new process can go on
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }
inline Status InvalidArgument(std::string message) {
  return {Code::kInvalidArgument, std::move(message)};
}
inline Status NotFound(std::string message) { return {Code::kNotFound, std::move(message)}; }
inline Status Exhausted(std::string message) { return {Code::kExhausted, std::move(message)}; }
inline Status Unimplemented(std::string message) {
  return {Code::kUnimplemented, std::move(message)};
}
inline Status Internal(std::string message) { return {Code::kInternal, std::move(message)}; }
inline Status Unavailable(std::string message) { return {Code::kUnavailable, std::move(message)}; }

// A value of type T, or the Status that says why there is none. Reading the value of a failed
// Result is a programming error and aborts with the message.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok()) status_ = Internal("Result built from an OK status without a value");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& value() & { return Get(); }
  const T& value() const& { return const_cast<Result*>(this)->Get(); }
  T&& value() && { return std::move(Get()); }
  T& operator*() & { return Get(); }
  const T& operator*() const& { return const_cast<Result*>(this)->Get(); }
  T* operator->() { return &Get(); }
  const T* operator->() const { return &const_cast<Result*>(this)->Get(); }

 private:
  T& Get() {
    if (!value_.has_value()) {
      std::fprintf(stderr, "seacliff: value of a failed Result: %s\n", status_.message().c_str());
      std::abort();
    }
    return *value_;
  }

  std::optional<T> value_;
  Status status_;
};

}  // namespace seacliff
