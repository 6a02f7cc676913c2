// Memory mapping and whole-file reads over POSIX calls.
#include "base/file_map.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace seacliff {
namespace {

Status FileError(const std::string& path, const char* what) {
  const int error = errno;
  std::string message = path + ": " + what + ": " + std::strerror(error);
  return error == ENOENT ? NotFound(std::move(message)) : InvalidArgument(std::move(message));
}

}  // namespace

Result<FileMap> FileMap::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path, "cannot open");
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return InvalidArgument(path + ": not a regular file");
  }
  FileMap map;
  map.path_ = path;
  map.size_ = static_cast<size_t>(info.st_size);
  map.modified_ = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  if (map.size_ > 0) {
    void* data = mmap(nullptr, map.size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      Status status = FileError(path, "cannot map");
      close(fd);
      return status;
    }
    map.data_ = static_cast<const std::byte*>(data);
  }
  close(fd);
  return map;
}

FileMap::FileMap(FileMap&& other) noexcept { *this = std::move(other); }

FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(modified_, other.modified_);
  return *this;
}

FileMap::~FileMap() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

Result<std::string> ReadFile(const std::string& path) {
  SC_ASSIGN_OR_RETURN(FileMap map, FileMap::Open(path));
  const auto bytes = map.bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Status AppendLines(const std::string& path, const std::vector<std::string>& lines) {
  std::ofstream file(path, std::ios::app);
  for (const std::string& line : lines) file << line << '\n';
  if (!file.flush()) return InvalidArgument(fmt::format("{}: cannot write results", path));
  return OkStatus();
}

}  // namespace seacliff
