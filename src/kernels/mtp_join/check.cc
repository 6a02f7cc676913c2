// Cases, expectation and cost of mtp_join.
#include "kernels/check_table.h"
#include "kernels/mtp_join/op.h"

namespace seacliff::mtp_join {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, streams, dim;
  DType dtype;
  bool real = false;
};

constexpr Shape kShapes[] = {
    {"bf16", 5, 4, 256, DType::kBf16},
    {"exact", 5, 4, 256, DType::kF32},
    {"one stream, odd dim", 7, 1, 33, DType::kBf16},
    {"exact, odd dim", 3, 3, 17, DType::kF32},
    {"more columns than a block's", 2, 4, 1936, DType::kBf16},
    {"many tokens", 131, 4, 16, DType::kBf16},
    {"no tokens", 0, 4, 64, DType::kBf16},
    {"flash, 1 token", 1, 4, 4096, DType::kBf16, true},
    {"pro, 64 tokens", 64, 4, 7168, DType::kBf16, true},
};

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory;
  // Sums of like and of unlike magnitudes, and some that cancel.
  const auto value = [&](int64_t) { return random.Normal() * (random.Below(4) == 0 ? 64 : 1); };
  const auto x = memory.Activations<2>("x", s.dtype, {s.tokens, s.dim}, Access::kRead,
                                       [&](int64_t i) { return i % 7 == 3 ? 1.0 : value(i); });
  const auto streams =
      memory.Activations<3>("streams", s.dtype, {s.tokens, s.streams, s.dim}, Access::kWrite,
                            [&](int64_t i) { return i % s.dim % 7 == 3 ? -1.0 : value(i); });
  const Expect before = Values(streams, 0, streams.size());

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    return MtpJoinArgs{at(x).Rows(begin, count), at(streams).Rows(begin, count)};
  };
  Case k;
  k.name = s.name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) { return Loaded(at(streams)); };
  k.expect = [=](Allowance) {
    Expect out = before;
    for (int64_t i = 0; i < streams.size(); ++i) {
      const int64_t token = i / (s.streams * s.dim);
      Approx& y = out[static_cast<size_t>(i)];
      y = Round({y.value + x.Load(token * s.dim + i % s.dim), 0}, s.dtype);
    }
    return out;
  };
  k.cost = {(x.size() + 2 * streams.size()) * SizeOf(s.dtype), streams.size()};
  k.real = s.real;
  c.Run<MtpJoinArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) {
    if (c.Wants(s.name, s.real)) CheckShape(c, s);
  }
}

}  // namespace seacliff::mtp_join
