// Fuzz target: the safetensors container. The input is a whole file; and, as lengths and offsets
// that fit are hard to come by, a header alone and a header with data behind a 0 byte.
#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace seacliff {
namespace {

// The tensors tile the data section in their order, each as long as its shape says.
void Check(std::span<const std::byte> file) {
  const auto tensors = ParseSafetensors(file, "fuzz.safetensors");
  if (!tensors.ok()) return fuzz::RequireRefusal(tensors.status(), "fuzz.safetensors: ");
  uint64_t header = 0;
  FUZZ_REQUIRE(file.size() >= sizeof header);
  std::memcpy(&header, file.data(), sizeof header);
  FUZZ_REQUIRE(header <= file.size() - sizeof header);
  const std::byte* at = file.data() + sizeof header + header;
  std::set<std::string> names;
  uint8_t sum = 0;
  for (const NamedTensor& named : *tensors) {
    const StoredTensor& tensor = named.tensor;
    FUZZ_REQUIRE(names.insert(named.name).second);
    FUZZ_REQUIRE(tensor.data == at);
    FUZZ_REQUIRE(tensor.bytes == ByteCount(tensor.dtype, tensor.shape));
    FUZZ_REQUIRE(tensor.bytes <= file.data() + file.size() - at);
    for (int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<uint8_t>(tensor.data[i]);
    FUZZ_REQUIRE(ShapeString(tensor.shape).size() >= 2);
    at += tensor.bytes;
  }
  FUZZ_REQUIRE(at == file.data() + file.size());
  static volatile uint8_t sink;  // so that the bytes are read
  sink = sum;
  (void)sink;
}

void CheckHeader(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::vector<char> file(sizeof length);
  std::memcpy(file.data(), &length, sizeof length);
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  Check(std::as_bytes(std::span(file)));
}

}  // namespace
}  // namespace seacliff

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seacliff;  // NOLINT: one function
  Check(std::as_bytes(std::span(data, size)));
  fuzz::Choices input(data, size);
  const std::string_view header = input.Word();
  CheckHeader(header, input.rest());
  return 0;
}
