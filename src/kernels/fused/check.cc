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

// The case of all parts, and their arguments.
struct Parts {
  Case c;
  std::vector<std::function<void(FusedArgs&, const Place&, int64_t)>> args;

  template <typename Args>
  void Add(std::optional<Args> FusedArgs::*part, const Prepared<Args>& p) {
    args.push_back([=](FusedArgs& a, const Place& at, int64_t i) { a.*part = p.args(at, i); });
    c.read = [before = c.read, read = p.c.read](const Place& at) {
      std::vector<double> all = before(at);
      Append(all, read(at));
      return all;
    };
    c.expect = [before = c.expect, expect = p.c.expect](Allowance a) {
      Expect all = before(a);
      Append(all, expect(a));
      return all;
    };
    c.cost.bytes += p.c.cost.bytes;
    c.cost.flops += p.c.cost.flops;
  }
};

void CheckShape(Checker& c, const Shape& s) {
  if (!c.Wants(s.name, s.real)) return;
  Random random = c.NewRandom(s.name);
  CheckMemory memory(&c.pool());
  Parts parts;
  parts.c.name = s.name;
  parts.c.read = [](const Place&) { return std::vector<double>(); };
  parts.c.expect = [](Allowance) { return Expect(); };
  const auto shape = [&](int64_t dim, int64_t heads) {
    return PartShape{s.sequences, dim, heads, s.real};
  };
  parts.c.parts = shape(0, 0).tokens();
  parts.c.alone = parts.c.parts <= kCudaTokens;
  parts.c.real = s.real;
  if (s.norm_dim != 0) {
    parts.Add(&FusedArgs::norm, rms_norm::PreparePart(memory, random, shape(s.norm_dim, 0)));
    parts.Add(&FusedArgs::window, window_insert::PreparePart(memory, random, shape(s.dim, 0)));
  }
  if (s.ratio != 0) {
    parts.Add(&FusedArgs::keys,
              compress::PreparePart(memory, random, s.ratio, EntryFormat::kKvFp8, shape(s.dim, 0)));
  }
  if (s.ratio == 4) {
    parts.Add(&FusedArgs::index_keys, compress::PreparePart(memory, random, s.ratio,
                                                            EntryFormat::kIndexFp4, shape(128, 0)));
  }
  if (s.heads != 0) {
    parts.Add(&FusedArgs::query, query_rope::PreparePart(memory, random, shape(s.dim, s.heads)));
  }
  if (s.index_heads != 0) {
    parts.Add(&FusedArgs::index_query,
              index_query::PreparePart(memory, random, shape(128, s.index_heads)));
  }
  c.Run<FusedArgs>(memory, parts.c, [&](const Place& at, int64_t part) {
    FusedArgs a;
    for (const auto& add : parts.args) add(a, at, part);
    return a;
  });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : Shapes()) CheckShape(c, s);
  for (const Shape& s : RealShapes(c.RealTokens())) CheckShape(c, s);
}

}  // namespace seacliff::fused
