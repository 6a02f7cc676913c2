// The memory of one check case: guard bands round every array, NaN in every byte that is not given,
// and a record of which bytes a row may write. Also the random inputs and ragged batches that cases
// are made of. It knows no op.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/common/batch.h"
#include "kernels/device.h"
#include "tensor/buffer.h"
#include "tensor/matrix.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

// A small generator whose stream depends on the seed alone, on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  int64_t Below(int64_t n) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(n)); }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Mean 0, variance 1, never beyond 3.5.
  double Normal();

 private:
  uint64_t state_;
};

enum class Access : uint8_t {
  kRead,    // a row must leave every byte as it is
  kWrite,   // an output (poisoned) or both (values given): every byte may be written
  kUpdate,  // read and written, the latter only where MayWrite says
};

// Bytes of a matrix with its scales.
int64_t WeightBytes(const Matrix& w);

class CheckMemory {
 public:
  // The writable blocks, in the order of Add; read-only blocks are empty.
  using Image = std::vector<std::vector<std::byte>>;

  // Poisoned bytes between two guards. `poison` is 0xff (NaN in every float format) or, for
  // integers, a value that no row would write.
  std::byte* Add(const char* name, int64_t bytes, Access access, int poison = 0xff,
                 int64_t guard = 4096);

  template <typename T, int N>
  View<T, N> Array(const char* name, std::array<int64_t, N> shape, Access access) {
    const int poison = std::is_integral_v<T> ? 0x5a : 0xff;
    View<T, N> v(nullptr, shape);
    v.data =
        reinterpret_cast<T*>(Add(name, v.size() * static_cast<int64_t>(sizeof(T)), access, poison));
    return v;
  }
  // Element i is value(i).
  template <typename T, int N, typename F>
  View<T, N> Array(const char* name, std::array<int64_t, N> shape, Access access, F value) {
    View<T, N> v = Array<T, N>(name, shape, access);
    for (int64_t i = 0; i < v.size(); ++i) v.data[i] = static_cast<T>(value(i));
    return v;
  }
  template <int N>
  Act<N> Activations(const char* name, DType dtype, std::array<int64_t, N> shape, Access access) {
    Act<N> a(nullptr, dtype, shape);
    a.data = Add(name, a.size() * SizeOf(dtype), access);
    return a;
  }
  template <int N, typename F>
  Act<N> Activations(const char* name, DType dtype, std::array<int64_t, N> shape, Access access,
                     F value) {
    const Act<N> a = Activations<N>(name, dtype, shape, access);
    for (int64_t i = 0; i < a.size(); ++i) a.Store(i, static_cast<float>(value(i)));
    return a;
  }
  // Norm weights near 1.
  View<const Bf16, 1> NormWeights(int64_t dim, Random& random);
  // theta_i = base^(-i / 32), for 64 rotated dims.
  View<const float, 1> Frequencies(double base);
  // Random weights, about 1 / sqrt(cols) large, block scales spread over three powers of two. Not
  // `used`: NaN throughout, for weights that a row must not read.
  Matrix Weights(const char* name, WeightFormat format, int64_t rows, int64_t cols, Random& random,
                 bool used = true);
  // A copy in the layout that cpu rows read; its scales beside it, if any, are m's own.
  Matrix Packed(const char* name, const Matrix& m);
  // Poisoned pages; the guards hold a page, so that page -1 is poison too.
  PagedView Pages(const char* name, EntryFormat format, int64_t dim, int64_t page_len,
                  int64_t pages, Access access);

  // In a kUpdate block, bytes that a row may write.
  void MayWrite(const void* data, int64_t bytes);
  // The same for one entry of a page: its values and its scales.
  void MayWriteEntry(const PagedView& view, int64_t page, int64_t slot);

  // Inputs are complete: what is there now is what Restore brings back.
  void Seal();
  void Restore();
  Image Snapshot() const;
  // What a row wrote that it must not, or "".
  std::string Damage() const;
  // Where two images differ, or "".
  std::string Difference(const Image& a, const Image& b) const;

 private:
  friend class Place;
  friend class DeviceMemory;
  struct Range {
    int64_t begin, end;
  };
  struct Block {
    std::string name;
    Access access;
    Buffer storage;
    std::byte* data;
    int64_t bytes, guard;
    std::vector<Range> writable;
    std::vector<std::byte> initial;  // not for kRead
    uint64_t hash = 0;               // kRead
  };
  const Block* Find(const void* data, size_t* index) const;

  std::vector<Block> blocks_;
};

// A copy of a case's memory, guards and all, on a device.
class DeviceMemory {
 public:
  DeviceMemory(const CheckMemory& memory, Device& device);

  void Upload();
  void Download(CheckMemory& memory);  // into the case's own memory
  void* Map(size_t block, int64_t offset) const;

 private:
  const CheckMemory& memory_;
  Device& device_;
  std::vector<Buffer> blocks_;
};

// Takes a case's views to a copy of its memory: the case's own, a snapshot, in which read-only
// blocks are shared, or one on a device.
class Place {
 public:
  explicit Place(const CheckMemory& memory, const CheckMemory::Image* image = nullptr)
      : memory_(memory), image_(image) {}
  Place(const CheckMemory& memory, const DeviceMemory& device)
      : memory_(memory), image_(nullptr), device_(&device) {}

  template <typename T, int N>
  View<T, N> operator()(View<T, N> v) const {
    v.data = static_cast<T*>(Map(v.data));
    return v;
  }
  template <int N>
  Act<N> operator()(Act<N> a) const {
    a.data = Map(a.data);
    return a;
  }
  Matrix operator()(Matrix m) const;
  PagedView operator()(PagedView v) const;
  Batch operator()(Batch b) const;

 private:
  void* Map(const void* data) const;

  const CheckMemory& memory_;
  const CheckMemory::Image* image_;
  const DeviceMemory* device_ = nullptr;
};

// One sequence of a step: positions first .. first + count - 1 are in the step. count may be 0.
struct CheckSequence {
  int64_t first, count;
};

struct CheckBatch {
  Batch all;
  std::vector<Batch> single;                       // the same tokens one at a time
  int64_t window_pages = 0, compressed_pages = 0;  // pages to allocate; one of each is never named
  int64_t slots = 0;                               // likewise
};

// Pages are handed out in random order; ids are hostile. Window pages that no query sees are -1;
// compressed pages are held from `history` tokens before a sequence's first one on; what lies
// beyond a sequence's end is a page number far out of range.
CheckBatch MakeBatch(CheckMemory& memory, Random& random,
                     const std::vector<CheckSequence>& sequences, int64_t window_len,
                     int64_t history);

}  // namespace seacliff
