// The file of --repack-cache: a model's packed weights as they lie in memory, so that a later start
// maps them and reads nothing else. A header of one page, then the matrices one after the other;
// docs/formats.md has the bytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/file_map.h"
#include "base/status.h"
#include "base/threads.h"
#include "checkpoint/checkpoint.h"
#include "tensor/matrix.h"

namespace seacliff {

// What a file must have been written for.
struct RepackKey {
  uint64_t matrices = 0;  // hash of their order, formats and shapes
  uint64_t origin = 0;    // hash of Checkpoint::origin()
  int64_t bytes = 0;      // of the packed matrices
};
RepackKey RepackKeyOf(std::span<Matrix* const> matrices, const std::string& origin);

// Little-endian. Hashes are XXH3 of 64 bits.
struct RepackHeader {
  std::array<char, 8> magic;
  uint64_t layout;  // kTileLayoutId
  uint64_t matrices, origin, bytes;
  uint64_t checksum;  // of the data: the hash of the hashes of its pieces of kRepackPiece bytes
  std::array<char, 4040> unused;
  uint64_t self;  // of all before
};
static_assert(sizeof(RepackHeader) == 4096);
inline constexpr std::array<char, 8> kRepackMagic = {'s', 'e', 'a', 'p', 'a', 'c', 'k', '\n'};
inline constexpr int64_t kRepackPiece = int64_t{16} << 20;
uint64_t HashOf(const void* data, size_t bytes);

// The file at `path`, mapped, with every byte checked. None, after a log line that says why, if
// there is no file or it does not fit: it may be written anew. What is not a cache at all, or
// cannot be opened, is an error, so that no other file is ever overwritten.
Result<std::optional<FileMap>> OpenRepackCache(const std::string& path, const RepackKey& key,
                                               ThreadPool& pool, const Progress& progress);
inline const std::byte* RepackData(const FileMap& file) {
  return file.bytes().data() + sizeof(RepackHeader);
}

// Why a file does not fit, if it does not.
Status CheckRepackCache(const FileMap& file, const RepackKey& key, ThreadPool& pool,
                        const Progress& progress);

// Writes PATH.partial, which becomes PATH when it is complete; until then what PATH was stays.
class RepackWriter {
 public:
  // Takes the room on the disk at once, where the file system can, so that a full disk shows before
  // anything is packed. Null, after a log line, if another process is writing the file.
  static Result<std::unique_ptr<RepackWriter>> Create(const std::string& path, int64_t bytes);
  ~RepackWriter();
  RepackWriter(const RepackWriter&) = delete;
  RepackWriter& operator=(const RepackWriter&) = delete;

  Status Write(const RepackKey& key, const std::byte* data, ThreadPool& pool,
               const Progress& progress);

 private:
  RepackWriter(const std::string& path, int fd)
      : path_(path), partial_(path + ".partial"), fd_(fd) {}
  Status Error(int error) const;

  std::string path_, partial_;
  int fd_;
  bool remove_ = true;  // the partial file, at the end
};

}  // namespace seacliff
