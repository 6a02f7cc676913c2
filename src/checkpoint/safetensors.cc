// Strict reading of the safetensors container (nothing in a file is trusted), and its writer.
#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "base/status.h"

namespace seacliff {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr uint64_t kLengthBytes = sizeof(uint64_t);
constexpr std::string_view kMetadata = "__metadata__";

constexpr DType kDTypes[] = {DType::kF32, DType::kBf16, DType::kE4m3, DType::kE8m0,
                             DType::kI8,  DType::kU8,   DType::kI32,  DType::kI64};

std::optional<DType> DTypeNamed(std::string_view name) {
  for (DType t : kDTypes) {
    if (Name(t) == name) return t;
  }
  return std::nullopt;
}

// Text from a file as it may stand in a message: one line, of bounded length.
std::string Printable(std::string_view text) {
  constexpr size_t kLongest = 120;
  std::string shown(text.substr(0, kLongest));
  std::replace_if(
      shown.begin(), shown.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  if (text.size() > kLongest) shown += "...";
  return shown;
}

// Fills `values` from a list of integers in [0, 2^63).
Status ReadSizes(element from, const char* what, std::vector<int64_t>& values) {
  array list;
  if (from.get<array>().get(list) != simdjson::SUCCESS) {
    return InvalidArgument(fmt::format("{}: must be a list", what));
  }
  for (element e : list) {
    int64_t v = 0;
    if (e.get<int64_t>().get(v) != simdjson::SUCCESS || v < 0) {
      return InvalidArgument(fmt::format("{}: must be integers from 0 to 2^63 - 1, not {}", what,
                                         Printable(simdjson::minify(e))));
    }
    values.push_back(v);
  }
  return OkStatus();
}

struct Entry {
  std::optional<DType> dtype;
  std::optional<std::vector<int64_t>> shape, offsets;
};

Status ReadField(std::string_view key, element value, Entry& entry) {
  if (key == "dtype" && !entry.dtype) {
    std::string_view name;
    if (value.get<std::string_view>().get(name) != simdjson::SUCCESS) {
      return InvalidArgument("dtype: must be a string");
    }
    entry.dtype = DTypeNamed(name);
    if (entry.dtype) return OkStatus();
    return InvalidArgument(fmt::format("dtype: {} is unknown", Printable(name)));
  }
  if (key == "shape" && !entry.shape) return ReadSizes(value, "shape", entry.shape.emplace());
  if (key == "data_offsets" && !entry.offsets) {
    return ReadSizes(value, "data_offsets", entry.offsets.emplace());
  }
  return InvalidArgument(fmt::format("field {} is unknown or there twice", Printable(key)));
}

// One header entry, checked against itself and the size of the data section.
Status ReadEntry(element value, std::span<const std::byte> data, StoredTensor& tensor) {
  object fields;
  if (value.get<object>().get(fields) != simdjson::SUCCESS) {
    return InvalidArgument("must be an object");
  }
  Entry entry;
  for (const auto field : fields) SC_RETURN_IF_ERROR(ReadField(field.key, field.value, entry));
  if (!entry.dtype) return InvalidArgument("dtype: missing");
  if (!entry.shape) return InvalidArgument("shape: missing");
  if (!entry.offsets) return InvalidArgument("data_offsets: missing");
  if (entry.offsets->size() != 2) {
    return InvalidArgument("data_offsets: must be two numbers: begin and end");
  }

  const int64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
  const auto size = static_cast<int64_t>(data.size());
  if (begin > end || end > size) {
    return InvalidArgument(fmt::format(
        "data_offsets: [{}, {}] is not a range within the {} bytes of data", begin, end, size));
  }
  const int64_t bytes = ByteCount(*entry.dtype, *entry.shape);
  if (bytes < 0) {
    return InvalidArgument(
        fmt::format("shape: {} does not fit in 64 bits", Printable(ShapeString(*entry.shape))));
  }
  if (bytes != end - begin) {
    return InvalidArgument(fmt::format("{} {} takes {} bytes, but data_offsets span {}",
                                       Name(*entry.dtype), Printable(ShapeString(*entry.shape)),
                                       bytes, end - begin));
  }
  tensor = {*entry.dtype, std::move(*entry.shape), data.data() + begin, bytes};
  return OkStatus();
}

Status CheckMetadata(element value) {
  object fields;
  if (value.get<object>().get(fields) != simdjson::SUCCESS) {
    return InvalidArgument("must be an object of strings");
  }
  for (const auto field : fields) {
    if (!field.value.is_string()) return InvalidArgument("must be an object of strings");
  }
  return OkStatus();
}

Status ReadHeader(object root, std::span<const std::byte> data, std::vector<NamedTensor>& tensors) {
  std::unordered_set<std::string_view> names;  // the document owns them
  for (const auto field : root) {
    const std::string name = Printable(field.key);
    const auto in_tensor = [&](const Status& status) {
      return Status(status.code(), name + ": " + status.message());
    };
    if (!names.insert(field.key).second) return in_tensor(InvalidArgument("is there twice"));
    if (field.key == kMetadata) {
      const Status status = CheckMetadata(field.value);
      if (!status.ok()) return in_tensor(status);
      continue;
    }
    NamedTensor& tensor = tensors.emplace_back();
    tensor.name = field.key;
    const Status status = ReadEntry(field.value, data, tensor.tensor);
    if (!status.ok()) return in_tensor(status);
  }
  return OkStatus();
}

// Sorts by place and checks that each tensor begins where the one before it ends.
Status CheckCover(std::span<const std::byte> data, std::vector<NamedTensor>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return a.tensor.data != b.tensor.data ? a.tensor.data < b.tensor.data
                                          : a.tensor.bytes < b.tensor.bytes;
  });
  int64_t end = 0;
  const NamedTensor* before = nullptr;
  for (const NamedTensor& t : tensors) {
    const int64_t begin = t.tensor.data - data.data();
    if (begin < end) {
      return InvalidArgument(fmt::format("{}: its data overlap those of {}", Printable(t.name),
                                         Printable(before->name)));
    }
    if (begin > end) {
      return InvalidArgument(fmt::format("{}: {} bytes before its data belong to no tensor",
                                         Printable(t.name), begin - end));
    }
    end = begin + t.tensor.bytes;
    before = &t;
  }
  const auto size = static_cast<int64_t>(data.size());
  if (end != size) {
    return InvalidArgument(
        fmt::format("the last {} bytes of data belong to no tensor", size - end));
  }
  return OkStatus();
}

Result<std::vector<NamedTensor>> Parse(std::span<const std::byte> file) {
  uint64_t length = 0;
  if (file.size() < kLengthBytes) {
    return InvalidArgument(
        fmt::format("not a safetensors file: it has {} bytes in all", file.size()));
  }
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeader) {
    return InvalidArgument(
        fmt::format("not a safetensors file: a header of {} bytes is over {}", length, kMaxHeader));
  }
  if (length > file.size() - kLengthBytes) {
    return InvalidArgument(
        fmt::format("truncated: a header of {} bytes in a file of {}", length, file.size()));
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!header.starts_with('{')) return InvalidArgument("header: does not begin with {");
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(header, "header"));
  object root;
  if (document.root().get<object>().get(root) != simdjson::SUCCESS) {
    return InvalidArgument("header: must be a JSON object");
  }
  const auto data = file.subspan(kLengthBytes + length);
  std::vector<NamedTensor> tensors;
  SC_RETURN_IF_ERROR(ReadHeader(root, data, tensors));
  SC_RETURN_IF_ERROR(CheckCover(data, tensors));
  return tensors;
}

// A JSON string literal.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

// The header, with its length in front, padded so that the data begin at a multiple of 64.
std::string MakeHeader(std::span<const NamedTensor* const> tensors) {
  std::string json = "{";
  int64_t offset = 0;
  for (const NamedTensor* t : tensors) {
    if (offset > 0 || json.size() > 1) json += ',';
    json += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        Quoted(t->name), Name(t->tensor.dtype), fmt::join(t->tensor.shape, ","),
                        offset, offset + t->tensor.bytes);
    offset += t->tensor.bytes;
  }
  json += '}';
  constexpr size_t kAlign = 64;
  while ((json.size() + kLengthBytes) % kAlign != 0) json += ' ';
  const uint64_t length = json.size();
  std::string header(kLengthBytes, '\0');
  std::memcpy(header.data(), &length, kLengthBytes);
  return header + json;
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

bool WriteAll(std::FILE* file, const void* data, size_t bytes) {
  return bytes == 0 || std::fwrite(data, 1, bytes, file) == bytes;
}

// Writes and flushes the whole content to `path`; false with errno set.
bool WriteContent(const std::string& path, std::span<const NamedTensor* const> tensors) {
  std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "wbe"));
  if (file == nullptr) return false;
  const std::string header = MakeHeader(tensors);
  bool good = WriteAll(file.get(), header.data(), header.size());
  for (const NamedTensor* t : tensors) {
    good = good && WriteAll(file.get(), t->tensor.data, static_cast<size_t>(t->tensor.bytes));
  }
  good = good && std::fflush(file.get()) == 0 && fsync(fileno(file.get())) == 0;
  return good;
}

}  // namespace

int64_t ElementCount(std::span<const int64_t> shape) {
  int64_t count = 1;
  for (int64_t s : shape) {
    if (s < 0 || __builtin_mul_overflow(count, s, &count)) return -1;
  }
  return count;
}

int64_t ByteCount(DType dtype, std::span<const int64_t> shape) {
  int64_t bytes = ElementCount(shape);
  if (bytes < 0 || __builtin_mul_overflow(bytes, SizeOf(dtype), &bytes)) return -1;
  return bytes;
}

std::string ShapeString(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Result<std::vector<NamedTensor>> ParseSafetensors(std::span<const std::byte> file,
                                                  const std::string& source) {
  Result<std::vector<NamedTensor>> tensors = Parse(file);
  if (tensors.ok()) return tensors;
  return Status(tensors.status().code(), source + ": " + tensors.status().message());
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile file;
  SC_ASSIGN_OR_RETURN(file.map_, FileMap::Open(path));
  SC_ASSIGN_OR_RETURN(file.tensors_, ParseSafetensors(file.map_.bytes(), path));
  file.by_name_.reserve(file.tensors_.size());
  for (size_t i = 0; i < file.tensors_.size(); ++i) file.by_name_[file.tensors_[i].name] = i;
  return file;
}

std::string SafetensorsFile::Describe() const {
  return fmt::format("{} {} {}\n", path().substr(path().rfind('/') + 1), map_.bytes().size(),
                     map_.modified());
}

const StoredTensor* SafetensorsFile::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second].tensor;
}

Status WriteSafetensors(const std::string& path, std::span<const NamedTensor> tensors) {
  std::unordered_set<std::string_view> names;
  std::vector<const NamedTensor*> ordered;
  for (const NamedTensor& t : tensors) {
    SC_CHECK(t.name != kMetadata && names.insert(t.name).second);
    SC_CHECK(ByteCount(t.tensor.dtype, t.tensor.shape) == t.tensor.bytes);
    ordered.push_back(&t);
  }
  // Wide elements first keeps every tensor aligned without gaps, which the format forbids.
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return SizeOf(a->tensor.dtype) > SizeOf(b->tensor.dtype);
  });
  const std::string partial = fmt::format("{}.partial-{}", path, getpid());
  if (WriteContent(partial, ordered) && std::rename(partial.c_str(), path.c_str()) == 0) {
    return OkStatus();
  }
  const int error = errno;
  std::remove(partial.c_str());
  return InvalidArgument(fmt::format("{}: cannot write: {}", path, std::strerror(error)));
}

}  // namespace seacliff
