// Weights from a seed: every 8 bytes are a hash of (seed, tensor name, place), shaped into the
// stored format so that activations keep sizes around 1 through any number of layers. They mean
// nothing.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

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

constexpr size_t kNormals = 4096;
constexpr uint64_t kEachByte = 0x0101010101010101ull;

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

using Codes = std::shared_ptr<const std::vector<uint32_t>>;

// Of the normal distribution, in bits of a dtype of `width` bytes.
template <size_t N, typename ToBits>
Codes MakeCodes(double spread, ToBits to_bits) {
  static const auto normals = NormalQuantiles<N>();
  std::vector<uint32_t> codes;
  for (const float v : normals) codes.push_back(to_bits(v * static_cast<float>(spread)));
  return std::make_shared<const std::vector<uint32_t>>(std::move(codes));
}

// Rules of one model's tensors, which share their tables.
class RuleMaker {
 public:
  RuleMaker(const ModelConfig& config, uint64_t seed) : config_(config), seed_(seed) {}

  FillRule Make(const TensorSpec& spec) {
    const bool packed = spec.row->storage == StoredAs::kExpert && config_.experts_fp4;
    FillRule rule;
    rule.key = KeyOf(seed_, spec.name);
    switch (spec.row->fill) {
      case Fill::kZeros:
        return rule;
      case Fill::kExpertIds:
        rule.kind = FillRule::Kind::kExpertIds;
        rule.picks = config_.picks;
        rule.experts = config_.experts;
        return rule;
      case Fill::kOnes:
        rule.word = spec.dtype == DType::kF32
                        ? 0x0000000100000001ull * std::bit_cast<uint32_t>(1.0f)
                        : 0x0001000100010001ull * ToBf16(1.0f).bits;
        return rule;
      default:
        break;
    }
    rule.kind = FillRule::Kind::kTable;
    rule.width = static_cast<int32_t>(SizeOf(spec.dtype));
    switch (spec.dtype) {
      case DType::kBf16:
        rule.codes = Table(spec.dtype, Spread(spec), [](double spread) {
          return MakeCodes<kNormals>(spread, [](float v) { return ToBf16(v).bits; });
        });
        return rule;
      case DType::kF32:
        rule.codes = Table(spec.dtype, Spread(spec), [](double spread) {
          return MakeCodes<kNormals>(spread, [](float v) { return std::bit_cast<uint32_t>(v); });
        });
        return rule;
      case DType::kE4m3:
        rule.codes = Table(spec.dtype, SplitFp8(spec.cols).code_spread, [](double spread) {
          return MakeCodes<256>(spread, [](float v) { return ToE4m3(v).bits; });
        });
        return rule;
      case DType::kE8m0: {
        const int exponent = (packed ? SplitMxfp4(spec.cols) : SplitFp8(spec.cols)).exponent;
        rule.kind = FillRule::Kind::kScales;
        rule.word = kEachByte * static_cast<uint64_t>(std::clamp(127 + exponent, 2, 254));
        return rule;
      }
      case DType::kI8:
        rule.kind = FillRule::Kind::kHash;
        return rule;
      default:
        SC_CHECK(false);
    }
  }

 private:
  template <typename MakeTable>
  const Codes& Table(DType dtype, double spread, MakeTable make) {
    Codes& codes = tables_[{dtype, spread}];
    if (codes == nullptr) codes = make(spread);
    return codes;
  }

  const ModelConfig& config_;
  const uint64_t seed_;
  std::map<std::pair<DType, double>, Codes> tables_;
};

// Writes bytes [begin, end) of a tensor, begin a multiple of kWord, eight at a time.
template <typename MakeWord>
void FillWords(std::byte* data, int64_t begin, int64_t end, MakeWord make) {
  for (int64_t at = begin; at < end; at += kWord) {
    const uint64_t word = make(at / kWord);
    std::memcpy(data + at, &word, static_cast<size_t>(std::min(kWord, end - at)));
  }
}

template <int kWidth>
void FillFromTable(const FillRule& rule, std::byte* data, int64_t begin, int64_t end) {
  const uint32_t* const codes = rule.codes->data();
  const uint64_t mask = rule.codes->size() - 1;
  FillWords(data, begin, end, [&](int64_t word) {
    const uint64_t h = HashAt(rule.key, word);
    uint64_t made = 0;
    for (int bit = 0; bit < 64; bit += 8 * kWidth) {
      made |= static_cast<uint64_t>(codes[(h >> bit) & mask]) << bit;
    }
    return made;
  });
}

void FillExpertIds(const FillRule& rule, std::byte* data, int64_t begin, int64_t end) {
  const int64_t picks = rule.picks, row_bytes = picks * SizeOf(DType::kI64);
  std::vector<int64_t> ids(static_cast<size_t>(picks));
  for (int64_t row = begin / row_bytes; row < end / row_bytes; ++row) {
    for (int64_t i = 0; i < picks; ++i) {
      auto id = static_cast<int64_t>(HashAt(rule.key, row * picks + i) %
                                     static_cast<uint64_t>(rule.experts));
      while (std::find(ids.begin(), ids.begin() + i, id) != ids.begin() + i) {
        id = (id + 1) % rule.experts;
      }
      ids[static_cast<size_t>(i)] = id;
    }
    std::memcpy(data + row * row_bytes, ids.data(), static_cast<size_t>(row_bytes));
  }
}

// Bytes [begin, end) of the tensor that begins at `data`.
void FillRange(const FillRule& rule, std::byte* data, int64_t begin, int64_t end) {
  switch (rule.kind) {
    case FillRule::Kind::kRepeat:
      if (rule.word == 0) return;  // fresh memory is zero
      return FillWords(data, begin, end, [&](int64_t) { return rule.word; });
    case FillRule::Kind::kHash:
      return FillWords(data, begin, end, [&](int64_t w) { return HashAt(rule.key, w); });
    case FillRule::Kind::kScales:
      return FillWords(data, begin, end,
                       [&](int64_t w) { return rule.word - (HashAt(rule.key, w) & kEachByte); });
    case FillRule::Kind::kTable:
      return (rule.width == 1   ? FillFromTable<1>
              : rule.width == 2 ? FillFromTable<2>
                                : FillFromTable<4>)(rule, data, begin, end);
    case FillRule::Kind::kExpertIds:
      return FillExpertIds(rule, data, begin, end);
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
  SC_ASSIGN_OR_RETURN(Checkpoint checkpoint, MakeDummy(config, with_mtp, seed, [](int64_t bytes) {
                        return PageMemory::Allocate(bytes, "the weights");
                      }));
  const Plan plan = MakePlan(config, checkpoint.has_mtp_);
  std::byte* const base = checkpoint.memory_.data();
  Tally tally(progress, checkpoint.bytes_);
  ThreadPool pool(0);
  pool.For(static_cast<int64_t>(plan.jobs.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Job& job = plan.jobs[static_cast<size_t>(i)];
      const FillRule& rule = checkpoint.made_up_.at(base + plan.offsets[job.tensor]).rule;
      FillRange(rule, base + plan.offsets[job.tensor], job.begin, job.end);
      tally.Add(job.end - job.begin);
    }
  });
  checkpoint.made_up_.clear();
  return checkpoint;
}

Result<Checkpoint> Checkpoint::DummyOnDemand(const ModelConfig& config, bool with_mtp,
                                             uint64_t seed) {
  return MakeDummy(config, with_mtp, seed,
                   [](int64_t bytes) { return PageMemory::Reserve(bytes, "the weights"); });
}

Result<Checkpoint> Checkpoint::MakeDummy(
    const ModelConfig& config, bool with_mtp, uint64_t seed,
    const std::function<Result<PageMemory>(int64_t)>& allocate) {
  Checkpoint checkpoint;
  checkpoint.has_mtp_ = with_mtp && config.mtp_layers > 0;
  checkpoint.origin_ = fmt::format("dummy weights of seed {}", seed);
  // Counted before anything is listed: the list of an absurd model would not fit either.
  SC_RETURN_IF_ERROR(allocate(CountTensors(config, checkpoint.has_mtp_).bytes).status());
  const Plan plan = MakePlan(config, checkpoint.has_mtp_);
  SC_ASSIGN_OR_RETURN(checkpoint.memory_, allocate(plan.bytes));
  RuleMaker rules(config, seed);
  checkpoint.tensors_.reserve(plan.specs.size());
  for (size_t i = 0; i < plan.specs.size(); ++i) {
    const TensorSpec& spec = plan.specs[i];
    const std::byte* const data = checkpoint.memory_.data() + plan.offsets[i];
    checkpoint.Add(spec.name, {spec.dtype, spec.shape, data, spec.bytes});
    checkpoint.made_up_.emplace(data, MadeUp{rules.Make(spec), spec.bytes});
  }
  return checkpoint;
}

}  // namespace seacliff
