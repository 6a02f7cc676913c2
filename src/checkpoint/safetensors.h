// Reading and writing one safetensors file. Knows the container alone: which tensors a model needs
// is catalogue.h, and a directory of shards is checkpoint.h.
//
// A file is: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}},
// tensor bytes. Reading is strict: the tensors must cover the data section without gap or overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file_map.h"
#include "base/status.h"
#include "tensor/dtype.h"

namespace seacliff {

struct StoredTensor {
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // row-major, little-endian; owned by the file or checkpoint
  int64_t bytes = 0;
};

struct NamedTensor {
  std::string name;
  StoredTensor tensor;
};

// The product of a shape, or of a shape and its element size; -1 if one of them is negative or the
// product does not fit.
int64_t ElementCount(std::span<const int64_t> shape);
int64_t ByteCount(DType dtype, std::span<const int64_t> shape);

// "[8, 4096]"
std::string ShapeString(std::span<const int64_t> shape);

// The tensors of a whole file held in memory, in the order of their data. Their data points into
// `file`, at any alignment. Errors name `source` and the tensor.
Result<std::vector<NamedTensor>> ParseSafetensors(std::span<const std::byte> file,
                                                  const std::string& source);

// One file, memory-mapped: opening reads the header only.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return map_.path(); }
  // "name size time": one line that changes when the file does.
  std::string Describe() const;
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  const StoredTensor* Find(const std::string& name) const;

 private:
  FileMap map_;
  std::vector<NamedTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

// Writes `tensors` to `path`, each tensor aligned to its element size. A reader sees the old file
// or the whole new one, never a part. Names must be unique and bytes must fit shapes (checked).
Status WriteSafetensors(const std::string& path, std::span<const NamedTensor> tensors);

}  // namespace seacliff
