// Cases of fused: what its parts' own cases say, of all of them together.
#include "kernels/check_table.h"
#include "kernels/fused/check_parts.h"

namespace seacliff::fused {
namespace {

struct Shape {
  std::string name;
  std::vector<CheckSequence> sequences;
  int64_t norm_dim, dim, ratio;        // ratio 0: no compressor; 4: index keys too
  int64_t heads = 0, index_heads = 0;  // 0: none
  bool real = false;
};

const std::vector<CheckSequence>& Ragged() {
  static const std::vector<CheckSequence> ragged = {{0, 9}, {5, 1}, {7, 1}, {126, 7}, {30, 0}};
  return ragged;
}

std::vector<Shape> Shapes() {
  return {
      {"ratio 4", Ragged(), 1024, 512, 4},
      {"ratio 4, short norms", {{3, 1}, {4091, 1}, {6, 1}}, 512, 192, 4},
      {"ratio 128", {{0, 30}, {127, 1}, {383, 2}, {5, 1}}, 1536, 512, 128},
      {"window", Ragged(), 1024, 128, 0},
      {"queries", {{40, 5}}, 0, 512, 0, 5},
      {"queries and the index's", {{1000, 3}}, 0, 128, 0, 3, 9},
      {"all", {{127, 1}, {7, 1}}, 1024, 256, 4, 2, 3},
      {"64 tokens", {{60, 64}}, 512, 128, 4},
      {"65 tokens", {{60, 65}}, 512, 128, 4},
      {"odd norms", {{3, 1}}, 33, 128, 0},
      {"no tokens", {{3, 0}}, 64, 128, 4},
      {"nothing", {{3, 1}}, 0, 0, 0},
  };
}

// What stands between the projections of Flash's attention.
std::vector<Shape> RealShapes(std::span<const int64_t> counts) {
  std::vector<Shape> shapes;
  for (int64_t n : counts) {
    const std::vector<CheckSequence> sequences = RealSequences(n, 65535);
    shapes.push_back({NameOf("flash keys, window", n), sequences, 1024, 512, 0});
    shapes.push_back({NameOf("flash keys, ratio 4", n), sequences, 1024, 512, 4});
    shapes.push_back({NameOf("flash keys, ratio 128", n), sequences, 1024, 512, 128});
    shapes.push_back({NameOf("flash queries, ratio 4", n), sequences, 0, 512, 0, 64, 64});
  }
  for (Shape& s : shapes) s.real = true;
  return shapes;
}

// Adds a part with its outputs, after those there are.
template <typename Args>
void Add(Prepared<FusedArgs>& all, std::optional<Args> FusedArgs::*part, const Prepared<Args>& p) {
  all.args = [=, before = all.args](const Place& at, int64_t i) {
    FusedArgs a = before(at, i);
    a.*part = p.args(at, i);
    return a;
  };
  all.c.read = [before = all.c.read, read = p.c.read](const Place& at) {
    std::vector<double> values = before(at);
    Append(values, read(at));
    return values;
  };
  all.c.expect = [before = all.c.expect, expect = p.c.expect](Allowance a) {
    Expect values = before(a);
    Append(values, expect(a));
    return values;
  };
  all.c.cost.bytes += p.c.cost.bytes;
  all.c.cost.flops += p.c.cost.flops;
}

Prepared<FusedArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const auto shape = [&](int64_t dim, int64_t heads) {
    return PartShape{s.sequences, dim, heads, s.real};
  };
  Prepared<FusedArgs> all;
  all.args = [](const Place&, int64_t) { return FusedArgs(); };
  all.c.read = [](const Place&) { return std::vector<double>(); };
  all.c.expect = [](Allowance) { return Expect(); };
  all.c.parts = shape(0, 0).tokens();
  all.c.alone = all.c.parts <= kCudaTokens;
  if (s.norm_dim != 0) {
    Add(all, &FusedArgs::norm, rms_norm::PreparePart(memory, random, shape(s.norm_dim, 0)));
    Add(all, &FusedArgs::window, window_insert::PreparePart(memory, random, shape(s.dim, 0)));
  }
  const auto compressor = [&](EntryFormat format, int64_t dim) {
    return compress::PreparePart(memory, random, s.ratio, format, shape(dim, 0));
  };
  if (s.ratio != 0) Add(all, &FusedArgs::keys, compressor(EntryFormat::kKvFp8, s.dim));
  if (s.ratio == 4) Add(all, &FusedArgs::index_keys, compressor(EntryFormat::kIndexFp4, 128));
  if (s.heads != 0) {
    Add(all, &FusedArgs::query, query_rope::PreparePart(memory, random, shape(s.dim, s.heads)));
  }
  if (s.index_heads != 0) {
    Add(all, &FusedArgs::index_query,
        index_query::PreparePart(memory, random, shape(128, s.index_heads)));
  }
  return all;
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : Shapes()) c.Run(s, s.name, Prepare);
  for (const Shape& s : RealShapes(c.RealTokens())) c.Run(s, s.name, Prepare);
}

}  // namespace seacliff::fused
