// Weights from a seed: every 8 bytes are a hash of (seed, tensor name, place), shaped into the
// stored format so that activations keep sizes around 1 through any number of layers. They mean
// nothing.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "base/numbers.h"
#include "base/status.h"
#include "base/threads.h"
#include "checkpoint/catalogue.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tally.h"

namespace seacliff {
namespace {

constexpr int64_t kWord = 8;  // bytes one hash makes

// SplitMix64's finaliser: a bijection that looks random even on consecutive integers.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
uint64_t HashAt(uint64_t key, int64_t place) {
  return Mix(key + static_cast<uint64_t>(place) * 0x9e3779b97f4a7c15ull);
}
uint64_t KeyOf(uint64_t seed, std::string_view name) {
  uint64_t key = Mix(seed + 1);
  for (char c : name) key = Mix(key ^ static_cast<unsigned char>(c));
  return key;
}

// Quantiles of the normal distribution at (i + 1/2) / size. Coarse on purpose (multiples of 2^-10):
// they shall not depend on the last bit of a maths library.
template <size_t N>
std::array<float, N> NormalQuantiles() {
  std::array<float, N> quantiles{};
  for (size_t i = 0; i < N; ++i) {
    const double wanted = (static_cast<double>(i) + 0.5) / N;
    double low = -8, high = 8;
    for (int step = 0; step < 48; ++step) {
      const double middle = (low + high) / 2;
      (0.5 * std::erfc(-middle / std::sqrt(2.0)) < wanted ? low : high) = middle;
    }
    quantiles[i] = static_cast<float>(std::round(low * 1024) / 1024);
  }
  return quantiles;
}

constexpr int kNormalBits = 12;
const std::array<float, 1 << kNormalBits>& Normals() {
  static const auto table = NormalQuantiles<1 << kNormalBits>();
  return table;
}

// How the values of a quantised weight are split between codes and scales. Scales are one of two
// neighbouring powers of two, so that a kernel that reads the wrong one is found out.
struct Quantised {
  int exponent;       // of the larger scale
  float code_spread;  // standard deviation of the codes
};
constexpr double kScaleSpread = 0.790569415042094833;  // root of (1 + 1/4) / 2

Quantised SplitFp8(int64_t cols) {
  const double spread = 1 / (std::sqrt(static_cast<double>(cols)) * kScaleSpread);
  const int exponent = static_cast<int>(std::floor(std::log2(spread))) - 5;
  return {exponent, static_cast<float>(std::ldexp(spread, -exponent))};  // codes: 32 to 64
}

Quantised SplitMxfp4(int64_t cols) {
  constexpr double kCodeSpread = 2.92617498;  // of the 16 e2m1 values, each as likely
  const double spread = 1 / (std::sqrt(static_cast<double>(cols)) * kScaleSpread);
  return {static_cast<int>(std::lround(std::log2(spread / kCodeSpread))), kCodeSpread};
}

double Spread(const TensorSpec& spec) {
  switch (spec.row->fill) {
    case Fill::kNormal:
      return 1;
    case Fill::kSmall:
      return 0.125;
    case Fill::kLinear:
      return 1 / std::sqrt(static_cast<double>(spec.cols));
    default:
      return 0;
  }
}

// Writes bytes [begin, end) of a tensor, begin a multiple of kWord, eight at a time.
template <typename MakeWord>
void FillWords(std::byte* data, int64_t begin, int64_t end, MakeWord make) {
  for (int64_t at = begin; at < end; at += kWord) {
    const uint64_t word = make(at / kWord);
    std::memcpy(data + at, &word, static_cast<size_t>(std::min(kWord, end - at)));
  }
}

struct Range {
  std::byte* data;  // of the whole tensor
  int64_t begin, end;
  uint64_t key;
};

void FillNormalBf16(const Range& r, double spread) {
  const auto& normals = Normals();
  std::array<uint16_t, 1 << kNormalBits> codes;
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = ToBf16(normals[i] * static_cast<float>(spread)).bits;
  }
  FillWords(r.data, r.begin, r.end, [&](int64_t word) {
    const uint64_t h = HashAt(r.key, word);
    uint64_t made = 0;
    for (int lane = 0; lane < 4; ++lane) {
      const uint64_t index = (h >> (16 * lane)) & ((1 << kNormalBits) - 1);
      made |= static_cast<uint64_t>(codes[index]) << (16 * lane);
    }
    return made;
  });
}

void FillNormalF32(const Range& r, double spread) {
  const auto& normals = Normals();
  FillWords(r.data, r.begin, r.end, [&](int64_t word) {
    const uint64_t h = HashAt(r.key, word);
    uint64_t made = 0;
    for (int lane = 0; lane < 2; ++lane) {
      const uint64_t index = (h >> (32 * lane)) & ((1 << kNormalBits) - 1);
      const float value = normals[index] * static_cast<float>(spread);
      made |= static_cast<uint64_t>(std::bit_cast<uint32_t>(value)) << (32 * lane);
    }
    return made;
  });
}

void FillE4m3(const Range& r, float spread) {
  const std::array<float, 256> normals = NormalQuantiles<256>();
  std::array<uint8_t, 256> codes;
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = ToE4m3(normals[i] * spread).bits;
  FillWords(r.data, r.begin, r.end, [&](int64_t word) {
    const uint64_t h = HashAt(r.key, word);
    uint64_t made = 0;
    for (int lane = 0; lane < 8; ++lane) {
      made |= static_cast<uint64_t>(codes[(h >> (8 * lane)) & 255]) << (8 * lane);
    }
    return made;
  });
}

void FillScales(const Range& r, int exponent) {
  const auto high = static_cast<uint64_t>(std::clamp(127 + exponent, 2, 254));
  FillWords(r.data, r.begin, r.end, [&](int64_t word) {
    constexpr uint64_t kEachByte = 0x0101010101010101ull;
    return kEachByte * high - (HashAt(r.key, word) & kEachByte);
  });
}

template <typename T>
void FillConstant(const Range& r, T value) {
  for (int64_t at = r.begin; at < r.end; at += static_cast<int64_t>(sizeof(T))) {
    std::memcpy(r.data + at, &value, sizeof(T));
  }
}

void FillExpertIds(const Range& r, int64_t picks, int64_t experts) {
  const int64_t row_bytes = picks * SizeOf(DType::kI64);
  std::vector<int64_t> ids(static_cast<size_t>(picks));
  for (int64_t row = r.begin / row_bytes; row < r.end / row_bytes; ++row) {
    for (int64_t i = 0; i < picks; ++i) {
      auto id =
          static_cast<int64_t>(HashAt(r.key, row * picks + i) % static_cast<uint64_t>(experts));
      while (std::find(ids.begin(), ids.begin() + i, id) != ids.begin() + i) {
        id = (id + 1) % experts;
      }
      ids[static_cast<size_t>(i)] = id;
    }
    std::memcpy(r.data + row * row_bytes, ids.data(), static_cast<size_t>(row_bytes));
  }
}

void FillRange(const TensorSpec& spec, const Range& r, const ModelConfig& config) {
  const bool packed = spec.row->storage == StoredAs::kExpert && config.experts_fp4;
  const Fill fill = spec.row->fill;
  if (fill == Fill::kZeros) return;  // fresh memory is zero
  if (fill == Fill::kExpertIds) return FillExpertIds(r, config.picks, config.experts);
  if (fill == Fill::kOnes) {
    return spec.dtype == DType::kF32 ? FillConstant(r, 1.0f) : FillConstant(r, ToBf16(1.0f));
  }
  switch (spec.dtype) {
    case DType::kBf16:
      return FillNormalBf16(r, Spread(spec));
    case DType::kF32:
      return FillNormalF32(r, Spread(spec));
    case DType::kE4m3:
      return FillE4m3(r, SplitFp8(spec.cols).code_spread);
    case DType::kE8m0:
      return FillScales(r, (packed ? SplitMxfp4(spec.cols) : SplitFp8(spec.cols)).exponent);
    case DType::kI8:
      return FillWords(r.data, r.begin, r.end, [&](int64_t w) { return HashAt(r.key, w); });
    default:
      SC_CHECK(false);
  }
}

struct Job {
  size_t tensor;
  int64_t begin, end;
};

struct Plan {
  std::vector<TensorSpec> specs;
  std::vector<int64_t> offsets;  // of each tensor in the arena
  std::vector<Job> jobs;
  int64_t bytes = 0;
};

Plan MakePlan(const ModelConfig& config, bool with_mtp) {
  constexpr int64_t kJobBytes = int64_t{4} << 20;
  Plan plan;
  ForEachTensor(config, with_mtp, [&](const TensorSpec& spec) {
    // Whole rows, where a row is made as one.
    const int64_t unit = spec.row->fill == Fill::kExpertIds ? spec.bytes / spec.shape[0] : kWord;
    const int64_t step = std::max(kJobBytes / unit, int64_t{1}) * unit;
    for (int64_t at = 0; at < spec.bytes; at += step) {
      plan.jobs.push_back({plan.specs.size(), at, std::min(at + step, spec.bytes)});
    }
    plan.specs.push_back(spec);
    plan.offsets.push_back(AlignedOffset(plan.bytes, spec.bytes));
    plan.bytes = plan.offsets.back() + spec.bytes;
    return true;
  });
  return plan;
}

}  // namespace

Result<Checkpoint> Checkpoint::Dummy(const ModelConfig& config, bool with_mtp, uint64_t seed,
                                     const Progress& progress) {
  Checkpoint checkpoint;
  checkpoint.has_mtp_ = with_mtp && config.mtp_layers > 0;
  checkpoint.origin_ = fmt::format("dummy weights of seed {}", seed);
  // Counted before anything is listed: the list of an absurd model would not fit either.
  const TensorTotals totals = CountTensors(config, checkpoint.has_mtp_);
  SC_RETURN_IF_ERROR(PageMemory::Allocate(totals.bytes, "the weights").status());
  const Plan plan = MakePlan(config, checkpoint.has_mtp_);
  SC_ASSIGN_OR_RETURN(checkpoint.memory_, PageMemory::Allocate(plan.bytes, "the weights"));
  std::byte* const base = checkpoint.memory_.data();

  Tally tally(progress, totals.bytes);
  ThreadPool pool(0);
  pool.For(static_cast<int64_t>(plan.jobs.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Job& job = plan.jobs[static_cast<size_t>(i)];
      const TensorSpec& spec = plan.specs[job.tensor];
      const Range range = {base + plan.offsets[job.tensor], job.begin, job.end,
                           KeyOf(seed, spec.name)};
      FillRange(spec, range, config);
      tally.Add(job.end - job.begin);
    }
  });
  checkpoint.tensors_.reserve(plan.specs.size());
  for (size_t i = 0; i < plan.specs.size(); ++i) {
    const TensorSpec& spec = plan.specs[i];
    checkpoint.Add(spec.name, {spec.dtype, spec.shape, base + plan.offsets[i], spec.bytes});
  }
  return checkpoint;
}

}  // namespace seacliff
