// Checking and writing of the repack cache.
#include "model/repack_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/log.h"
#include "base/pages.h"
#include "checkpoint/tally.h"
#include "kernels/common/packing.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace seacliff {
namespace {

constexpr int64_t kHeaderBytes = sizeof(RepackHeader);

uint64_t SelfOf(const RepackHeader& header) {
  return HashOf(&header, offsetof(RepackHeader, self));
}

bool IsRepackCache(const FileMap& file) {
  const auto bytes = file.bytes();
  return bytes.size() >= kRepackMagic.size() &&
         std::memcmp(bytes.data(), kRepackMagic.data(), kRepackMagic.size()) == 0;
}

// Calls visit(piece, offset, bytes) for every piece of the data, on all threads; false if one of
// them failed.
template <typename Visit>
bool ForPieces(int64_t total, ThreadPool& pool, const Progress& progress, const Visit& visit) {
  Tally tally(progress, total);
  std::atomic<bool> good = true;
  pool.For((total + kRepackPiece - 1) / kRepackPiece, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && good; ++i) {
      const int64_t at = i * kRepackPiece, bytes = std::min(kRepackPiece, total - at);
      if (!visit(static_cast<size_t>(i), at, bytes)) good = false;
      tally.Add(bytes);
    }
  });
  return good;
}

// The hashes of pieces, and of them all.
class Checksum {
 public:
  explicit Checksum(int64_t total)
      : pieces_(static_cast<size_t>((total + kRepackPiece - 1) / kRepackPiece)) {}
  void Add(size_t piece, const std::byte* data, int64_t bytes) {
    pieces_[piece] = HashOf(data, static_cast<size_t>(bytes));
  }
  uint64_t Sum() const { return HashOf(pieces_.data(), pieces_.size() * sizeof(uint64_t)); }

 private:
  std::vector<uint64_t> pieces_;
};

// What the header says against what is wanted; empty if it fits.
std::string Difference(const RepackHeader& h, const RepackKey& key, int64_t data_bytes) {
  if (h.self != SelfOf(h)) return "its header is damaged";
  if (h.layout != kTileLayoutId) {
    return fmt::format("it has packed layout {}, and this program reads {}", h.layout,
                       kTileLayoutId);
  }
  if (h.bytes != static_cast<uint64_t>(data_bytes)) {
    return fmt::format("it is truncated or damaged: {} bytes of data and not {}", data_bytes,
                       h.bytes);
  }
  if (h.matrices != key.matrices || data_bytes != key.bytes) {
    return "it is of another model, whose matrices differ";
  }
  if (h.origin != key.origin) {
    return "it was made from other weights: names, sizes or times of the files (or the seed) "
           "differ";
  }
  return {};
}

// Writes all of it; else errno says why.
bool WriteAt(int fd, const void* data, int64_t bytes, int64_t at) {
  const auto* next = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd, next, static_cast<size_t>(bytes), at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    next += written;
    bytes -= written;
    at += written;
  }
  return true;
}

// Whether `fd` is the file of that name: another process may have renamed or removed it.
bool IsFile(int fd, const std::string& path) {
  struct stat held {
  }, named{};
  return fstat(fd, &held) == 0 && stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

bool SyncFolder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool good = fsync(fd) == 0;
  close(fd);
  return good;
}

}  // namespace

uint64_t HashOf(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

RepackKey RepackKeyOf(std::span<Matrix* const> matrices, const std::string& origin) {
  RepackKey key;
  std::vector<int64_t> list;
  for (const Matrix* m : matrices) {
    list.insert(list.end(), {static_cast<int64_t>(m->format), m->rows, m->cols});
    key.bytes += PackedBytes(*m);
  }
  key.matrices = HashOf(list.data(), list.size() * sizeof(int64_t));
  key.origin = HashOf(origin.data(), origin.size());
  return key;
}

Status CheckRepackCache(const FileMap& file, const RepackKey& key, ThreadPool& pool,
                        const Progress& progress) {
  const auto unfit = [&](const std::string& why) {
    return InvalidArgument(fmt::format("{}: cannot be used: {}", file.path(), why));
  };
  const int64_t data_bytes = static_cast<int64_t>(file.bytes().size()) - kHeaderBytes;
  if (data_bytes < 0) return unfit("it is truncated");
  if (!ReadPages(file.bytes().data(), kHeaderBytes)) return unfit("it cannot be read");
  RepackHeader header;
  std::memcpy(&header, file.bytes().data(), sizeof(header));
  const std::string difference = Difference(header, key, data_bytes);
  if (!difference.empty()) return unfit(difference);

  const std::byte* data = RepackData(file);
  Checksum checksum(data_bytes);
  const auto check = [&](size_t piece, int64_t at, int64_t bytes) {
    if (!ReadPages(data + at, bytes)) return false;
    checksum.Add(piece, data + at, bytes);
    return true;
  };
  if (!ForPieces(data_bytes, pool, progress, check)) return unfit("it cannot be read");
  if (checksum.Sum() != header.checksum) return unfit("its data are damaged: checksums differ");
  return OkStatus();
}

Result<std::optional<FileMap>> OpenRepackCache(const std::string& path, const RepackKey& key,
                                               ThreadPool& pool, const Progress& progress) {
  Result<FileMap> file = FileMap::Open(path);
  if (file.status().code() == Code::kNotFound) {
    SC_LOG_INFO("{}: is not there yet; the packed weights are written to it", path);
    return std::optional<FileMap>();
  }
  if (!file.ok()) return file.status();
  if (!IsRepackCache(*file)) {
    return InvalidArgument(
        fmt::format("{}: is not a repack cache and is left alone; name another file", path));
  }
  const Status status = CheckRepackCache(*file, key, pool, progress);
  if (status.ok()) return std::optional<FileMap>(std::move(file).value());
  SC_LOG_WARN("{}; it is written anew", status.message());
  return std::optional<FileMap>();
}

Result<std::unique_ptr<RepackWriter>> RepackWriter::Create(const std::string& path, int64_t bytes) {
  const std::string partial = path + ".partial";
  const int fd = open(partial.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  std::unique_ptr<RepackWriter> writer(new RepackWriter(path, fd));
  if (fd < 0) return writer->Error(errno);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !IsFile(fd, partial)) {
    SC_LOG_WARN("{}: another process is writing it; this one goes on without", path);
    writer->remove_ = false;
    return std::unique_ptr<RepackWriter>();
  }
  if (ftruncate(fd, 0) != 0) return writer->Error(errno);
  if (fallocate(fd, 0, 0, kHeaderBytes + bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
    return writer->Error(errno);
  }
  return writer;
}

RepackWriter::~RepackWriter() {
  if (fd_ < 0) return;
  if (remove_) unlink(partial_.c_str());
  close(fd_);
}

Status RepackWriter::Error(int error) const {
  return InvalidArgument(
      fmt::format("{}: cannot write the packed weights: {}", path_, std::strerror(error)));
}

Status RepackWriter::Write(const RepackKey& key, const std::byte* data, ThreadPool& pool,
                           const Progress& progress) {
  Checksum checksum(key.bytes);
  std::atomic<int> error = 0;
  const auto write = [&](size_t piece, int64_t at, int64_t bytes) {
    checksum.Add(piece, data + at, bytes);
    if (WriteAt(fd_, data + at, bytes, kHeaderBytes + at)) return true;
    error = errno;
    return false;
  };
  if (!ForPieces(key.bytes, pool, progress, write)) return Error(error);

  RepackHeader header{};
  header.magic = kRepackMagic;
  header.layout = kTileLayoutId;
  header.matrices = key.matrices;
  header.origin = key.origin;
  header.bytes = static_cast<uint64_t>(key.bytes);
  header.checksum = checksum.Sum();
  header.self = SelfOf(header);
  if (!WriteAt(fd_, &header, kHeaderBytes, 0) || fsync(fd_) != 0 ||
      std::rename(partial_.c_str(), path_.c_str()) != 0) {
    return Error(errno);
  }
  remove_ = false;
  if (!SyncFolder(path_)) return Error(errno);
  return OkStatus();
}

}  // namespace seacliff
