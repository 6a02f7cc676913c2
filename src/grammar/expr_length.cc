// How many characters an expression matches, and expressions that match fewer or more.
#include <algorithm>

#include "grammar/expr.h"

namespace seacliff::grammar {

Lengths LengthsOf(const Expr& e) {
  const auto add = [](int64_t a, int64_t b) { return a < 0 || b < 0 ? -1 : a + b; };
  switch (e->kind) {
    case Node::Kind::kText: {
      const int64_t n = std::count_if(e->text.begin(), e->text.end(), [](char c) {
        return (static_cast<uint8_t>(c) & 0xC0) != 0x80;
      });
      return {n, n};
    }
    case Node::Kind::kSet:
      return {1, 1};
    case Node::Kind::kSequence: {
      Lengths sum;
      for (const Expr& part : e->parts) {
        const Lengths n = LengthsOf(part);
        sum = {sum.min + n.min, add(sum.max, n.max)};
      }
      return sum;
    }
    case Node::Kind::kChoice: {
      Lengths all = LengthsOf(e->parts[0]);
      for (const Expr& part : e->parts) {
        const Lengths n = LengthsOf(part);
        all.min = std::min(all.min, n.min);
        all.max = all.max < 0 || n.max < 0 ? -1 : std::max(all.max, n.max);
      }
      return all;
    }
    case Node::Kind::kRepeat: {
      const Lengths n = LengthsOf(e->parts[0]);
      return {n.min * e->min, e->max < 0 ? (n.max == 0 ? 0 : -1) : n.max < 0 ? -1 : n.max * e->max};
    }
    default:
      return {0, -1};
  }
}

Expr WithLength(const Expr& e, int64_t min, int64_t max) {
  const Lengths have = LengthsOf(e);
  if (have.min >= min && (max < 0 || (have.max >= 0 && have.max <= max))) return e;
  if ((have.max >= 0 && have.max < min) || (max >= 0 && have.min > max)) return Nothing();
  if (e->kind == Node::Kind::kChoice) {
    std::vector<Expr> parts;
    for (const Expr& part : e->parts) {
      parts.push_back(WithLength(part, min, max));
      if (parts.back() == nullptr) return nullptr;
    }
    return Choice(std::move(parts));
  }
  if (e->kind == Node::Kind::kRepeat) {
    const Lengths one = LengthsOf(e->parts[0]);
    if (one.min != one.max || one.min == 0) return nullptr;
    const int64_t low = std::max(e->min, (min + one.min - 1) / one.min);
    const int64_t most = max < 0 ? -1 : max / one.min;
    return Repeat(e->parts[0], low, most < 0 ? e->max : e->max < 0 ? most : std::min(e->max, most));
  }
  if (e->kind != Node::Kind::kSequence) return nullptr;
  size_t varies = e->parts.size();
  int64_t fixed = 0;
  for (size_t i = 0; i < e->parts.size(); ++i) {
    const Lengths n = LengthsOf(e->parts[i]);
    if (n.min == n.max) {
      fixed += n.min;
    } else if (varies == e->parts.size()) {
      varies = i;
    } else {
      return nullptr;
    }
  }
  std::vector<Expr> parts = e->parts;
  parts[varies] =
      WithLength(parts[varies], std::max<int64_t>(0, min - fixed), max < 0 ? -1 : max - fixed);
  return parts[varies] == nullptr ? nullptr : Sequence(std::move(parts));
}

}  // namespace seacliff::grammar
