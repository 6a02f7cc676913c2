// Guarded, poisoned memory and random inputs for check cases.
#include "kernels/common/check_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "kernels/common/packing.h"

namespace seacliff {
namespace {

constexpr int kGuardByte = 0xff;

constexpr int64_t kPieceBytes = int64_t{1} << 20;
constexpr int64_t kDeviceAlign = 256;  // of a block's data, as a device's own allocations

// Reading through this page number must fault or show.
constexpr int32_t kWildPage = 0x3fffff00;

uint64_t Hash(const std::byte* data, int64_t bytes) {
  uint64_t h = 0x9e3779b97f4a7c15u;
  int64_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + i, 8);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  for (; i < bytes; ++i) h = (h ^ static_cast<uint64_t>(data[i])) * 0xff51afd7ed558ccdu;
  return h;
}

// The first byte of [begin, end) that is not the guards' value, or end.
int64_t FirstOther(const std::byte* data, int64_t begin, int64_t end) {
  while (begin < end && data[begin] == static_cast<std::byte>(kGuardByte)) ++begin;
  return begin;
}

bool Is(const std::byte* data, int64_t bytes, int value) {
  return bytes == 0 || (data[0] == static_cast<std::byte>(value) &&
                        std::memcmp(data, data + 1, static_cast<size_t>(bytes - 1)) == 0);
}

// One shuffled list of `count` numbers.
std::vector<int32_t> Shuffled(int64_t count, Random& random) {
  std::vector<int32_t> v(static_cast<size_t>(count));
  std::iota(v.begin(), v.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) std::swap(v[i], v[random.Below(i + 1)]);
  return v;
}

// A random block scale: `middle` or a neighbour of it.
E8m0 RandomScale(int middle, Random& random) {
  return {static_cast<uint8_t>(127 + middle + random.Below(3) - 1)};
}

// Eight e4m3 codes, none of them NaN.
uint64_t Codes(Random& random) {
  const uint64_t codes = random.Next();
  const uint64_t carries = (codes & 0x7f7f7f7f7f7f7f7fu) + 0x0101010101010101u;
  return codes ^ (carries & 0x8080808080808080u) >> 7;
}

int64_t ScaleCount(const Matrix& m) {
  return (m.format == WeightFormat::kFp8 ? (m.rows + 127) / 128 : m.rows) * m.scale_cols();
}

}  // namespace

int64_t WeightBytes(const Matrix& w) { return w.rows * w.row_bytes() + ScaleCount(w); }

uint64_t Random::Next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double Random::Normal() {
  const uint64_t bits = Next();  // the sum of four 16-bit uniforms
  double sum = 0;
  for (int i = 0; i < 64; i += 16) sum += static_cast<double>((bits >> i) & 0xffffu);
  return (sum * 0x1p-16 - 2.0) * 1.7320508;
}

std::byte* CheckMemory::Add(const char* name, int64_t bytes, Access access, int poison,
                            int64_t guard) {
  Block b;
  b.name = name;
  b.access = access;
  b.bytes = bytes;
  b.guard = (guard + 63) / 64 * 64;
  b.poison = poison;
  const int64_t all = (bytes + 2 * b.guard + 63) / 64 * 64;
  auto* base = static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(all)));
  SC_CHECK(base != nullptr);
  b.storage = Buffer(base, all, std::free);
  b.data = base + b.guard;
  const auto set = [&](int64_t begin, int64_t end, int value) {
    std::memset(base + begin, value, static_cast<size_t>(end - begin));
  };
  set(0, b.guard, kGuardByte);
  set(b.guard + bytes, all, kGuardByte);
  ForPieces((bytes + kPieceBytes - 1) / kPieceBytes, [&](int64_t from, int64_t to) {
    set(b.guard + from * kPieceBytes, b.guard + std::min(bytes, to * kPieceBytes), poison);
  });
  if (access == Access::kWrite) b.writable.push_back({0, bytes});
  blocks_.push_back(std::move(b));
  return blocks_.back().data;
}

void CheckMemory::ForPieces(int64_t pieces, const LoopBody& body) const {
  if (pool_ != nullptr && pieces > 1) return pool_->For(pieces, 1, body);
  if (pieces > 0) body(0, pieces);
}

void CheckMemory::InPieces(int64_t pieces, Random& random,
                           const std::function<void(int64_t, Random&)>& body) const {
  const uint64_t seed = random.Next();
  ForPieces(pieces, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      Random own(Random(seed ^ static_cast<uint64_t>(piece)).Next());
      body(piece, own);
    }
  });
}

void CheckMemory::FillNormals(const Act<1>& a, double magnitude, Random& random) const {
  constexpr int64_t kPiece = 1 << 16;
  InPieces((a.size() + kPiece - 1) / kPiece, random, [&](int64_t piece, Random& own) {
    const int64_t end = std::min(a.size(), (piece + 1) * kPiece);
    for (int64_t i = piece * kPiece; i < end; ++i) {
      a.Store(i, static_cast<float>(magnitude * own.Normal()));
    }
  });
}

View<const Bf16, 1> CheckMemory::NormWeights(int64_t dim, Random& random) {
  return Array<Bf16, 1>("weight", {dim}, Access::kRead, [&](int64_t) {
    return ToBf16(static_cast<float>(1.0 + 0.25 * random.Normal()));
  });
}

View<const float, 1> CheckMemory::Frequencies(double base) {
  return Array<float, 1>("frequencies", {32}, Access::kRead, [&](int64_t i) {
    return static_cast<float>(std::pow(base, -static_cast<double>(i) / 32));
  });
}

Matrix CheckMemory::Weights(const char* name, WeightFormat format, int64_t rows, int64_t cols,
                            Random& random, bool used) {
  Matrix m;
  m.format = format;
  m.rows = rows;
  m.cols = cols;
  std::byte* data = Add(name, rows * m.row_bytes(), Access::kRead);
  m.data = data;
  E8m0* scales = nullptr;
  const int64_t scale_count = ScaleCount(m);
  if (scale_count > 0) {
    scales = reinterpret_cast<E8m0*>(Add("scales", scale_count, Access::kRead));
    m.scales = scales;
  }
  if (!used) return m;

  const double amplitude = 1.0 / std::sqrt(static_cast<double>(cols));
  // Uniform codes have a root mean square near 2^7 (e4m3) and 2^1.5 (e2m1).
  const double bits = std::log2(amplitude) - (format == WeightFormat::kFp8 ? 7 : 1.5);
  const int middle = static_cast<int>(std::lround(bits));
  for (int64_t i = 0; i < scale_count; ++i) scales[i] = RandomScale(middle, random);
  const int64_t bytes = rows * m.row_bytes();
  if (format == WeightFormat::kF32 || format == WeightFormat::kBf16) {
    const DType dtype = format == WeightFormat::kF32 ? DType::kF32 : DType::kBf16;
    FillNormals({data, dtype, {rows * cols}}, amplitude, random);
    return m;
  }
  InPieces((bytes + kPieceBytes - 1) / kPieceBytes, random, [&](int64_t piece, Random& own) {
    const int64_t end = std::min(bytes, (piece + 1) * kPieceBytes);
    for (int64_t i = piece * kPieceBytes; i < end; i += 8) {
      const uint64_t codes = format == WeightFormat::kFp8 ? Codes(own) : own.Next();
      std::memcpy(data + i, &codes, static_cast<size_t>(std::min<int64_t>(8, end - i)));
    }
  });
  return m;
}

Matrix CheckMemory::Packed(const char* name, const Matrix& m) {
  Matrix packed = m;
  packed.layout = WeightLayout::kTiles;
  std::byte* data = Add(name, PackedBytes(m), Access::kRead);
  ForPieces(TileCount(m), [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      PackTile(m, tile, reinterpret_cast<uint8_t*>(data) + tile * TileBytes(m));
    }
  });
  packed.data = data;
  if (m.format == WeightFormat::kMxfp4) packed.scales = nullptr;
  return packed;
}

PagedView CheckMemory::Pages(const char* name, EntryFormat format, int64_t dim, int64_t page_len,
                             int64_t pages, Access access) {
  PagedView v;
  v.format = format;
  v.dim = dim;
  v.page_len = page_len;
  v.pages = pages;
  v.data = Add(name, pages * v.page_bytes(), access, 0xff, std::max<int64_t>(4096, v.page_bytes()));
  return v;
}

const CheckMemory::Block* CheckMemory::Find(const void* data, size_t* index) const {
  const auto* p = static_cast<const std::byte*>(data);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (p >= blocks_[i].data && p <= blocks_[i].data + blocks_[i].bytes) {
      *index = i;
      return &blocks_[i];
    }
  }
  return nullptr;
}

void CheckMemory::MayWrite(const void* data, int64_t bytes) {
  size_t index = 0;
  const Block* found = Find(data, &index);
  SC_CHECK(found != nullptr && found->access == Access::kUpdate);
  const int64_t begin = static_cast<const std::byte*>(data) - found->data;
  SC_CHECK(begin + bytes <= found->bytes);
  blocks_[index].writable.push_back({begin, begin + bytes});
}

void CheckMemory::MayWriteEntry(const PagedView& view, int64_t page, int64_t slot) {
  const int64_t entry = EntryBytes(view.format, view.dim);
  int64_t row = entry;  // bytes of the entry's values; its scales stand behind all values
  if (view.format == EntryFormat::kKvFp8) row = view.dim - 64 + 128;
  if (view.format == EntryFormat::kIndexFp4) row = view.dim / 2;
  MayWrite(view.page(page) + slot * row, row);
  if (row == entry) return;
  MayWrite(view.page(page) + view.page_len * row + slot * (entry - row), entry - row);
}

uint64_t CheckMemory::HashOf(const Block& b) const {
  const int64_t pieces = (b.bytes + kPieceBytes - 1) / kPieceBytes;
  std::vector<uint64_t> hashes(static_cast<size_t>(pieces));
  ForPieces(pieces, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * kPieceBytes;
      hashes[i] = Hash(b.data + at, std::min(kPieceBytes, b.bytes - at));
    }
  });
  return Hash(reinterpret_cast<const std::byte*>(hashes.data()), 8 * pieces);
}

void CheckMemory::Seal() {
  for (Block& b : blocks_) {
    // Outputs without given values are poison throughout.
    const bool given = b.access == Access::kUpdate || !Is(b.data, b.bytes, b.poison);
    if (b.access == Access::kRead) {
      b.hash = HashOf(b);
    } else if (given) {
      b.initial.assign(b.data, b.data + b.bytes);
    }
    std::sort(b.writable.begin(), b.writable.end(),
              [](const Range& x, const Range& y) { return x.begin < y.begin; });
  }
}

void CheckMemory::Restore() {
  for (Block& b : blocks_) {
    if (!b.initial.empty()) {
      std::copy(b.initial.begin(), b.initial.end(), b.data);
    } else if (b.access != Access::kRead) {
      std::memset(b.data, b.poison, static_cast<size_t>(b.bytes));
    }
    std::memset(b.data - b.guard, kGuardByte, static_cast<size_t>(b.guard));
    std::memset(b.data + b.bytes, kGuardByte, static_cast<size_t>(b.guard));
  }
}

CheckMemory::Image CheckMemory::Snapshot() const {
  Image image;
  for (const Block& b : blocks_) {
    const int64_t bytes = b.access == Access::kRead ? 0 : b.bytes;
    image.emplace_back(b.data, b.data + bytes);
  }
  return image;
}

std::string CheckMemory::Damage() const {
  for (const Block& b : blocks_) {
    const int64_t before = FirstOther(b.data, -b.guard, 0);
    const int64_t after = FirstOther(b.data, b.bytes, b.bytes + b.guard);
    if (before < 0) return fmt::format("wrote {} bytes before {}", -before, b.name);
    if (after < b.bytes + b.guard) {
      return fmt::format("wrote {} bytes behind the end of {}", after - b.bytes, b.name);
    }
    if (b.access == Access::kRead) {
      if (HashOf(b) != b.hash) return fmt::format("changed its input {}", b.name);
      continue;
    }
    if (b.access == Access::kWrite) continue;
    int64_t at = 0;
    const auto check = [&](int64_t end) {
      while (at < end && b.data[at] == b.initial[at]) ++at;
      return at >= end;
    };
    for (const Range& r : b.writable) {
      if (!check(r.begin)) break;
      at = std::max(at, r.end);
    }
    if (!check(b.bytes))
      return fmt::format("wrote byte {} of {}, which is not its own", at, b.name);
  }
  return "";
}

std::string CheckMemory::Difference(const Image& image) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& b = blocks_[i];
    const size_t size = image[i].size();  // that of an empty block has no address
    if (size == 0 || std::memcmp(image[i].data(), b.data, size) == 0) continue;
    const auto at = std::mismatch(image[i].begin(), image[i].end(), b.data);
    return fmt::format("{} differs at byte {}", b.name, at.first - image[i].begin());
  }
  return "";
}

std::string CheckMemory::Unwritten() const {
  for (const Block& b : blocks_) {
    if (b.access != Access::kWrite) continue;
    const DType dtype = b.float_bytes == 2 ? DType::kBf16 : DType::kF32;
    const Act<1> all(b.data, dtype, {b.bytes / SizeOf(dtype)});
    const auto bad = [&](int64_t i) {
      if (b.float_bytes != 0) return std::isnan(all.Load(i));
      return static_cast<const uint32_t*>(all.data)[i] == 0x01010101u * b.poison;
    };
    constexpr int64_t kPiece = 1 << 20;
    std::atomic<int64_t> first{all.size()};
    ForPieces((all.size() + kPiece - 1) / kPiece, [&](int64_t begin, int64_t end) {
      int64_t i = begin * kPiece;
      end = std::min(all.size(), end * kPiece);
      while (i < end && !bad(i)) ++i;
      int64_t before = first;
      while (i < end && i < before && !first.compare_exchange_weak(before, i)) {
      }
    });
    if (first < all.size()) {
      return fmt::format("{} is {} at {}", b.name, b.float_bytes != 0 ? "NaN" : "not written",
                         first.load());
    }
  }
  return "";
}

void* Place::Map(const void* data, int64_t copy) const {
  size_t index = 0;
  if (data == nullptr) return nullptr;
  const auto* block = memory_.Find(data, &index);
  SC_CHECK(block != nullptr);
  if (device_ != nullptr) {
    return device_->Map(copy, index, static_cast<const std::byte*>(data) - block->data);
  }
  if (image_ == nullptr || block->access == Access::kRead) return const_cast<void*>(data);
  const int64_t offset = static_cast<const std::byte*>(data) - block->data;
  return const_cast<std::byte*>((*image_)[index].data()) + offset;
}

void Place::Put(void* to, const void* from, int64_t bytes) const {
  if (timed_) return;
  if (device_ != nullptr) return device_->device().Upload(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

DeviceMemory::DeviceMemory(const CheckMemory& memory, Device& device, int64_t copies)
    : memory_(memory), device_(device), copies_(copies), stride_(0) {
  for (const CheckMemory::Block& b : memory.blocks_) {
    data_.push_back((stride_ + b.guard + kDeviceAlign - 1) / kDeviceAlign * kDeviceAlign);
    stride_ = data_.back() + b.bytes + b.guard;
  }
  stride_ = (stride_ + kDeviceAlign - 1) / kDeviceAlign * kDeviceAlign;
  storage_ = device.Allocate(copies * stride_);
}

int64_t DeviceMemory::Bytes(const CheckMemory& memory) {
  int64_t bytes = 0;
  for (const CheckMemory::Block& b : memory.blocks_) {
    bytes += b.bytes + 2 * b.guard + 2 * kDeviceAlign;
  }
  return bytes;
}

std::byte* DeviceMemory::Begin(size_t block) const {
  return static_cast<std::byte*>(storage_.data()) + data_[block] - memory_.blocks_[block].guard;
}

void DeviceMemory::Upload() {
  if (storage_.data() == nullptr) return;
  for (size_t i = 0; i < data_.size(); ++i) {
    const CheckMemory::Block& b = memory_.blocks_[i];
    device_.Upload(Begin(i), b.data - b.guard, b.bytes + 2 * b.guard);
  }
  auto* base = static_cast<std::byte*>(storage_.data());
  for (int64_t done = 1; done < copies_; done *= 2) {
    device_.Copy(base + done * stride_, base, std::min(done, copies_ - done) * stride_);
  }
}

void DeviceMemory::Download(CheckMemory& memory, int64_t copy, bool outputs) {
  if (storage_.data() == nullptr) return;
  for (size_t i = 0; i < data_.size(); ++i) {
    const CheckMemory::Block& b = memory.blocks_[i];
    if (outputs && b.access == Access::kRead) continue;
    device_.Download(b.data - b.guard, Begin(i) + copy * stride_, b.bytes + 2 * b.guard);
  }
}

void* DeviceMemory::Map(int64_t copy, size_t block, int64_t offset) const {
  return static_cast<std::byte*>(storage_.data()) + copy * stride_ + data_[block] + offset;
}

Matrix Place::operator()(Matrix m) const {
  m.data = Map(m.data);
  m.scales = static_cast<const E8m0*>(Map(m.scales));
  return m;
}

PagedView Place::operator()(PagedView v) const {
  v.data = static_cast<std::byte*>(Map(v.data));
  return v;
}

Batch Place::operator()(Batch b) const {
  const Place& at = *this;
  return {at(b.ids),   at(b.positions),    at(b.seq_of),           at(b.seq_begin),
          at(b.slots), at(b.window_pages), at(b.compressed_pages), at(b.logit_rows)};
}

std::vector<CheckSequence> RealSequences(int64_t tokens, int64_t position) {
  if (tokens > 32) return {{position + 1 - tokens, tokens}};
  std::vector<CheckSequence> sequences;
  for (int64_t i = 0; i < tokens; ++i) sequences.push_back({position - i * kPageTokens, 1});
  return sequences;
}

CheckBatch MakeBatch(CheckMemory& memory, Random& random,
                     const std::vector<CheckSequence>& sequences, int64_t window_len,
                     int64_t history) {
  const auto seqs = static_cast<int64_t>(sequences.size());
  std::vector<int32_t> positions, seq_of, seq_begin;
  int64_t max_pages = 0;
  for (int64_t s = 0; s < seqs; ++s) {
    const CheckSequence& q = sequences[s];
    seq_begin.push_back(static_cast<int32_t>(positions.size()));
    for (int64_t p = q.first; p < q.first + q.count; ++p) {
      positions.push_back(static_cast<int32_t>(p));
      seq_of.push_back(static_cast<int32_t>(s));
    }
    max_pages = std::max(max_pages, (q.first + q.count) / kPageTokens + 3);
  }
  const auto tokens = static_cast<int64_t>(positions.size());
  seq_begin.push_back(static_cast<int32_t>(tokens));

  CheckBatch out;
  const auto table = [&](const char* name, int64_t reach, int64_t* pages) {
    const auto view =
        memory.Array<int32_t, 2>(name, {seqs, max_pages}, Access::kRead,
                                 [](int64_t i) { return kWildPage + static_cast<int32_t>(i); });
    std::vector<int32_t*> held;
    for (int64_t s = 0; s < seqs; ++s) {
      const CheckSequence& q = sequences[s];
      if (q.count == 0) continue;
      const int64_t from = std::max<int64_t>(0, q.first - reach) / kPageTokens;
      for (int64_t p = 0; p < from; ++p) view(s, p) = -1;
      for (int64_t p = from; p <= (q.first + q.count - 1) / kPageTokens; ++p) {
        held.push_back(&view(s, p));
      }
    }
    *pages = static_cast<int64_t>(held.size()) + 1;
    const std::vector<int32_t> numbers = Shuffled(*pages, random);
    for (size_t i = 0; i < held.size(); ++i) *held[i] = numbers[i];
    return view;
  };
  const auto array = [&](const char* name, const std::vector<int32_t>& v) {
    return memory.Array<int32_t, 1>(name, {static_cast<int64_t>(v.size())}, Access::kRead,
                                    [&](int64_t i) { return v[i]; });
  };

  out.slots = seqs + 1;
  std::vector<int32_t> slots = Shuffled(out.slots, random);
  slots.resize(static_cast<size_t>(seqs));
  Batch& b = out.all;
  b.ids = memory.Array<int32_t, 1>("ids", {tokens}, Access::kRead);
  b.positions = array("positions", positions);
  b.seq_of = array("seq_of", seq_of);
  b.seq_begin = array("seq_begin", seq_begin);
  b.slots = array("slots", slots);
  b.window_pages = table("window_pages", window_len - 1, &out.window_pages);
  b.compressed_pages = table("compressed_pages", history, &out.compressed_pages);
  b.logit_rows = array("logit_rows", {});

  const View<const int32_t, 1> first = array("seq_of", {0});
  const View<const int32_t, 1> bounds = array("seq_begin", {0, 1});
  const auto one = [](View<const int32_t, 1> v, int64_t i) {
    v.data += i;
    v.shape[0] = 1;
    return v;
  };
  const auto row = [](View<const int32_t, 2> v, int64_t i) {
    v.data += i * v.stride[0];
    v.shape[0] = 1;
    return v;
  };
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t s = seq_of[t];
    out.single.push_back({one(b.ids, t), one(b.positions, t), first, bounds, one(b.slots, s),
                          row(b.window_pages, s), row(b.compressed_pages, s), b.logit_rows});
  }
  return out;
}

}  // namespace seacliff
