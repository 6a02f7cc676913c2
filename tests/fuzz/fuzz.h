// What the fuzz targets share. A target is one file NAME_fuzz.cc with the function below: libFuzzer
// calls it with inputs of its own (`make fuzz`), replay.cc with the kept ones (`make test`).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "seacliff/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace seacliff::fuzz {

inline std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A property that must hold whatever the input is; the fuzzer keeps the input that breaks it.
#define FUZZ_REQUIRE(condition)                                                           \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)

// What a refused file or request must be told: why, beginning with the name of the source. No input
// can be our own fault.
inline void RequireRefusal(const Status& status, std::string_view source) {
  FUZZ_REQUIRE(status.code() == Code::kInvalidArgument || status.code() == Code::kUnimplemented);
  FUZZ_REQUIRE(status.message().starts_with(source));
  FUZZ_REQUIRE(status.message().size() > source.size() + 2);
}

// Takes small choices off the front of an input; zeros when it is used up.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : rest_(AsText(data, size)) {}

  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }
  // Up to the next 0 byte, which is taken too.
  std::string_view Word() {
    const size_t end = rest_.find('\0');
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    return word;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace seacliff::fuzz
