// A read-only memory mapping of a whole file, and small files as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace seacliff {

class FileMap {
 public:
  static Result<FileMap> Open(const std::string& path);

  FileMap() = default;
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  ~FileMap();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // When the file was last written, in nanoseconds since 1970.
  int64_t modified() const { return modified_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int64_t modified_ = 0;
};

// The whole file as a string; for small text files (config.json, tokenizer.json).
Result<std::string> ReadFile(const std::string& path);

// Appends lines of results; kInvalidArgument names the file if it cannot be written.
Status AppendLines(const std::string& path, const std::vector<std::string>& lines);

}  // namespace seacliff
