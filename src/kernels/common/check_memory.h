// The memory of one check case: guard bands round every array, NaN in every byte that is not given,
// and a record of which bytes a row may write. Also the random inputs and ragged batches that cases
// are made of. It knows no op.
#pragma once

#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/threads.h"
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
  // Large inputs are made on all threads of `pool`, if given; the numbers are the same without.
  explicit CheckMemory(ThreadPool* pool = nullptr) : pool_(pool) {}

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
    if (std::is_floating_point_v<T>) blocks_.back().float_bytes = sizeof(T);
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
    blocks_.back().float_bytes = SizeOf(dtype);
    return a;
  }
  template <int N, typename F>
  Act<N> Activations(const char* name, DType dtype, std::array<int64_t, N> shape, Access access,
                     F value) {
    const Act<N> a = Activations<N>(name, dtype, shape, access);
    for (int64_t i = 0; i < a.size(); ++i) a.Store(i, static_cast<float>(value(i)));
    return a;
  }
  // Normal numbers of this magnitude.
  template <int N>
  Act<N> Normals(const char* name, DType dtype, std::array<int64_t, N> shape, Access access,
                 Random& random, double magnitude = 1) {
    const Act<N> a = Activations<N>(name, dtype, shape, access);
    FillNormals({a.data, dtype, {a.size()}}, magnitude, random);
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

  // body(piece, numbers of its own) for each of `pieces`, on all threads.
  void InPieces(int64_t pieces, Random& random,
                const std::function<void(int64_t, Random&)>& body) const;
  void FillNormals(const Act<1>& a, double magnitude, Random& random) const;

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
  // Where an image differs from what is there now, or "".
  std::string Difference(const Image& image) const;
  // The first number of an output that is NaN or as no row has touched it, or "".
  std::string Unwritten() const;

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
    int poison;
    int64_t float_bytes = 0;  // of an element; 0: no floats
    std::vector<Range> writable;
    std::vector<std::byte> initial;  // of kUpdate, and of kWrite if values were given
    uint64_t hash = 0;               // kRead
  };
  const Block* Find(const void* data, size_t* index) const;
  // On all threads.
  void ForPieces(int64_t pieces, const LoopBody& body) const;
  uint64_t HashOf(const Block& b) const;

  std::vector<Block> blocks_;
  ThreadPool* pool_;
};

// Copies of a case's memory, guards and all, on a device, one behind the other in one buffer.
class DeviceMemory {
 public:
  DeviceMemory(const CheckMemory& memory, Device& device, int64_t copies = 1);
  // What one copy takes.
  static int64_t Bytes(const CheckMemory& memory);

  Device& device() const { return device_; }
  int64_t copies() const { return copies_; }
  // What the case's memory holds now, into every copy.
  void Upload();
  // One copy into the case's own memory; `outputs`: but for what no row may write.
  void Download(CheckMemory& memory, int64_t copy = 0, bool outputs = false);
  void* Map(int64_t copy, size_t block, int64_t offset) const;

 private:
  std::byte* Begin(size_t block) const;  // of its guard, in the first copy

  const CheckMemory& memory_;
  Device& device_;
  int64_t copies_, stride_;
  std::vector<int64_t> data_;  // where each block's data begin in a copy
  Buffer storage_;
};

// Takes a case's views to a copy of its memory: the case's own, a snapshot, in which read-only
// blocks are shared, or one on a device.
class Place {
 public:
  explicit Place(const CheckMemory& memory, const CheckMemory::Image* image = nullptr)
      : memory_(memory), image_(image) {}
  // `timed`: runs there are only timed, and Put does nothing. `warm`: activations are those of the
  // first copy.
  Place(const CheckMemory& memory, const DeviceMemory& device, int64_t copy = 0, bool timed = false,
        bool warm = false)
      : memory_(memory),
        image_(nullptr),
        device_(&device),
        copy_(copy),
        act_copy_(warm ? 0 : copy),
        timed_(timed) {}

  template <typename T, int N>
  View<T, N> operator()(View<T, N> v) const {
    v.data = static_cast<T*>(Map(v.data));
    return v;
  }
  template <int N>
  Act<N> operator()(Act<N> a) const {
    a.data = Map(a.data, act_copy_);
    return a;
  }
  Matrix operator()(Matrix m) const;
  PagedView operator()(PagedView v) const;
  Batch operator()(Batch b) const;

  // Outputs that an op gives the host go among the case's, `to`.
  template <typename T>
  void Put(T* to, std::span<const T> values) const {
    Put(Map(to), values.data(), static_cast<int64_t>(values.size_bytes()));
  }

 private:
  void Put(void* to, const void* from, int64_t bytes) const;
  void* Map(const void* data) const { return Map(data, copy_); }
  void* Map(const void* data, int64_t copy) const;

  const CheckMemory& memory_;
  const CheckMemory::Image* image_;
  const DeviceMemory* device_ = nullptr;
  int64_t copy_ = 0, act_copy_ = 0;
  bool timed_ = false;
};

// One sequence of a step: positions first .. first + count - 1 are in the step. count may be 0.
struct CheckSequence {
  int64_t first, count;
};

// Of a model's step with so many tokens: up to 32 sequences decode one each at or before
// `position`, more are a chunk of one prompt that ends there. Where position + 1 is a multiple of
// 128, so are the decoded ones'.
std::vector<CheckSequence> RealSequences(int64_t tokens, int64_t position);

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
