// Packing of all weights into one piece of memory, or finding them packed in a file.
#include "model/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "base/log.h"
#include "kernels/common/packing.h"
#include "model/repack_cache.h"
#include "model/weight_arrays.h"

namespace seacliff {
namespace {

// The bytes of rows begin .. begin + count that packing reads.
struct Source {
  Source(const Matrix& m, int64_t begin, int64_t count)
      : data(static_cast<const uint8_t*>(m.data) + begin * m.row_bytes()),
        bytes(count * m.row_bytes()) {
    if (m.format != WeightFormat::kMxfp4) return;  // the scales of kFp8 stay where they are
    scales = m.scale_row(begin);
    scale_bytes = count * m.scale_cols();
  }
  bool Read() const { return ReadPages(data, bytes) && ReadPages(scales, scale_bytes); }
  void Prefetch() const {
    PrefetchPages(data, bytes);
    PrefetchPages(scales, scale_bytes);
  }
  void Release() const {
    ReleasePages(data, bytes);
    ReleasePages(scales, scale_bytes);
  }

  const uint8_t* data;
  int64_t bytes;
  const E8m0* scales = nullptr;
  int64_t scale_bytes = 0;
};

Source SourceOf(const Matrix& m) { return {m, 0, m.rows}; }

// Points a row-major matrix at its packed form and gives its memory back.
void MoveTo(const std::byte* packed, Matrix& m) {
  SourceOf(m).Release();
  m.data = packed;
  m.layout = WeightLayout::kTiles;
  if (m.format == WeightFormat::kMxfp4) m.scales = nullptr;
}

// Asks the disk for what comes next, so that it does not wait while something is packed.
class Prefetcher {
 public:
  explicit Prefetcher(const std::vector<Matrix*>& matrices) : matrices_(matrices) {}

  // Before the next matrix is packed.
  void Next() {
    constexpr int64_t kAhead = int64_t{128} << 20;
    while (fetched_ < matrices_.size() && ahead_ < kAhead) {
      SourceOf(*matrices_[fetched_]).Prefetch();
      ahead_ += PackedBytes(*matrices_[fetched_++]);
    }
    ahead_ -= PackedBytes(*matrices_[packed_++]);
  }

 private:
  const std::vector<Matrix*>& matrices_;
  size_t packed_ = 0, fetched_ = 0;
  int64_t ahead_ = 0;
};

}  // namespace

std::vector<Matrix*> PackableOf(ModelWeights& w) {
  std::vector<Matrix*> all = MatricesOf(w);
  std::erase_if(all, [&](const Matrix* m) { return m == &w.embed || !CanPack(*m); });
  return all;
}

Status PackedWeights::Pack(const std::vector<Matrix*>& matrices, const Checkpoint& checkpoint,
                           ThreadPool& pool, const Progress& progress) {
  int64_t total = 0;
  for (const Matrix* m : matrices) total += PackedBytes(*m);
  SC_ASSIGN_OR_RETURN(memory_, PageMemory::Allocate(total, "the packed weights"));
  Prefetcher prefetcher(matrices);
  std::byte* next = memory_.data();
  for (Matrix* m : matrices) {
    prefetcher.Next();
    const int64_t bytes = PackedBytes(*m);  // of the matrix as it is now
    std::atomic<bool> failed = false;
    pool.For(TileCount(*m), 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t row = tile * kTileRows;
        if (Source(*m, row, std::min(kTileRows, m->rows - row)).Read()) {
          PackTile(*m, tile, reinterpret_cast<uint8_t*>(next) + tile * TileBytes(*m));
        } else {
          failed = true;
        }
      }
    });
    if (failed) return checkpoint.ReadError(m->data);
    MoveTo(next, *m);
    next += bytes;
    if (progress) progress(next - memory_.data(), total);
  }
  return OkStatus();
}

Result<PackedWeights> PackedWeights::Load(const std::vector<Matrix*>& matrices,
                                          const Checkpoint& checkpoint,
                                          const std::string& cache_file, ThreadPool& pool,
                                          const LoadProgress& progress) {
  PackedWeights packed;
  if (cache_file.empty()) {
    SC_RETURN_IF_ERROR(packed.Pack(matrices, checkpoint, pool, PhaseOf(progress, "packing")));
    return packed;
  }
  const RepackKey key = RepackKeyOf(matrices, checkpoint.origin());
  SC_ASSIGN_OR_RETURN(std::optional<FileMap> kept,
                      OpenRepackCache(cache_file, key, pool, PhaseOf(progress, "verifying")));
  if (kept) {
    packed.file_ = *std::move(kept);
    const std::byte* next = RepackData(packed.file_);
    for (Matrix* m : matrices) {
      const int64_t bytes = PackedBytes(*m);  // of the matrix as it is now
      MoveTo(next, *m);
      next += bytes;
    }
    return packed;
  }
  SC_ASSIGN_OR_RETURN(const auto writer, RepackWriter::Create(cache_file, key.bytes));
  SC_RETURN_IF_ERROR(packed.Pack(matrices, checkpoint, pool, PhaseOf(progress, "packing")));
  if (writer == nullptr) return packed;
  SC_RETURN_IF_ERROR(writer->Write(key, packed.memory_.data(), pool, PhaseOf(progress, "writing")));
  SC_LOG_INFO("{}: packed weights written, {:.1f} MB", cache_file,
              static_cast<double>(key.bytes) / 1e6);
  return packed;
}

}  // namespace seacliff
