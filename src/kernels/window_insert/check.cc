// Cases, expectation and cost of window_insert.
#include "kernels/check_table.h"
#include "kernels/fused/check_parts.h"
#include "kernels/window_insert/op.h"

namespace seacliff::window_insert {
namespace {

struct Shape {
  std::string name;
  std::vector<CheckSequence> sequences;
  int64_t dim;
  DType dtype;
  double magnitude = 1;
  bool real = false;
};

constexpr float kEps = 1e-6f;

std::vector<Shape> Shapes() {
  return {
      {"ragged", {{0, 3}, {126, 5}, {40, 0}, {1048575, 1}}, 512, DType::kBf16},
      {"ragged, exact", {{0, 3}, {126, 5}, {40, 0}, {1048575, 1}}, 512, DType::kF32},
      {"head_dim 128", {{127, 1}, {128, 1}, {300, 2}}, 128, DType::kBf16},
      {"three pages", {{120, 150}}, 128, DType::kBf16},
      {"zeros", {{7, 2}}, 128, DType::kBf16, 0},
      {"near eps", {{7, 2}}, 192, DType::kBf16, 1e-3},
      {"empty sequences only", {{7, 0}, {0, 0}}, 128, DType::kBf16},
  };
}

Prepared<WindowInsertArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const CheckBatch batch = MakeBatch(memory, random, s.sequences, 128, 0);
  const int64_t tokens = batch.all.tokens();
  const auto kv =
      memory.Normals<2>("kv", s.dtype, {tokens, s.dim}, Access::kRead, random, s.magnitude);
  const auto weight = memory.NormWeights(s.dim, random);
  const auto frequencies = memory.Frequencies(10000);
  const auto format = s.dtype == DType::kF32 ? EntryFormat::kKvF32 : EntryFormat::kKvFp8;
  const PagedView window =
      memory.Pages("window", format, s.dim, kPageTokens, batch.window_pages, Access::kUpdate);
  const auto page = [batch](int64_t t) {
    return batch.all.window_pages(batch.all.seq_of(t), batch.all.positions(t) / kPageTokens);
  };
  const auto slot = [batch](int64_t t) { return batch.all.positions(t) % kPageTokens; };
  for (int64_t t = 0; t < tokens; ++t) memory.MayWriteEntry(window, page(t), slot(t));

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? tokens : 1;
    return WindowInsertArgs{at(kv).Rows(begin, count),
                            at(weight),
                            at(frequencies),
                            kEps,
                            at(part == kWhole ? batch.all : batch.single[part]),
                            at(window)};
  };
  const std::vector<int64_t> sample = TokensToCheck(tokens, s.real, random);
  Case k;
  k.parts = tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : sample) {
      const std::vector<double> entry = ReadEntry(at(window), page(t), slot(t));
      all.insert(all.end(), entry.begin(), entry.end());
    }
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all;
    for (int64_t t : sample) {
      Expect v = Values(kv, t * s.dim, s.dim);
      RmsNorm(v, weight, kEps, a);
      Round(v, s.dtype);
      RotateLast(v, frequencies, batch.all.positions(t), 1, a);
      Append(all, EntryOf(format, v));
    }
    return all;
  };
  k.cost.bytes = kv.size() * SizeOf(s.dtype) + tokens * EntryBytes(format, s.dim);
  k.cost.flops = 6 * kv.size();
  return {k, args};
}

}  // namespace

Prepared<WindowInsertArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s) {
  return Prepare(memory, random, {"", s.sequences, s.dim, DType::kBf16, 1, s.real});
}

void Check(Checker& c) {
  for (const Shape& s : Shapes()) c.Run(s, s.name, Prepare);
  for (int64_t tokens : c.RealTokens()) {
    const Shape s = {
        NameOf("flash and pro", tokens), RealSequences(tokens, 70001), 512, DType::kBf16, 1, true};
    c.Run(s, s.name, Prepare);
  }
}

}  // namespace seacliff::window_insert
