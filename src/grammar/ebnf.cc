// Looking through grammars in xgrammar's notation.
#include "grammar/ebnf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <vector>

#include "text/utf8.h"

namespace seacliff::grammar {
namespace {

constexpr size_t kMostText = 256 << 10;        // bytes
constexpr int64_t kMostRepetitions = 200'000;  // within each other, multiplied
constexpr int kDeepest = 100;                  // brackets within each other
constexpr size_t kMostRules = 2000;            // compiling takes the square of it

// The names in one choice of a rule.
struct Choice {
  std::vector<std::string_view> needs;  // rules that it cannot be without
  std::string_view repeats;             // the rule that its last element repeats; "": none
  int elements = 0;
};
using Rules = std::map<std::string_view, std::vector<Choice>>;

bool IsNameChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
}

// Behind the literal or class that begins at `i`.
size_t SkipQuoted(std::string_view text, size_t i) {
  const char end = text[i] == '[' ? ']' : '"';
  for (++i; i < text.size() && text[i] != end; ++i) {
    if (text[i] == '\\') ++i;
  }
  return std::min(i + 1, text.size());
}

// Behind the bracket that closes the one at `i`.
size_t SkipGroup(std::string_view text, size_t i) {
  int depth = 0;
  while (i < text.size()) {
    if (text[i] == '"' || text[i] == '[') {
      i = SkipQuoted(text, i);
      continue;
    }
    if (text[i] == '(') ++depth;
    if (text[i++] == ')' && --depth == 0) break;
  }
  return i;
}

// The choices of a rule's body as it is printed: ((a "b") | (c{2, 3})), then maybe (=(d)).
std::vector<Choice> ReadBody(std::string_view body) {
  std::vector<Choice> choices(1);
  for (size_t i = 0; i < body.size();) {
    Choice& choice = choices.back();
    const char c = body[i];
    if (c == '"' || c == '[') {
      ++choice.elements;
      i = SkipQuoted(body, i);
    } else if (c == '(' && i + 1 < body.size() && body[i + 1] == '=') {
      i = SkipGroup(body, i);
    } else if (c == '|') {
      choices.emplace_back();
      ++i;
    } else if (IsNameChar(c)) {
      const size_t begin = i;
      while (i < body.size() && IsNameChar(body[i])) ++i;
      const std::string_view name = body.substr(begin, i - begin);
      const char next = i < body.size() ? body[i] : ' ';
      ++choice.elements;
      if (next == '(') {  // a macro
        i = SkipGroup(body, i);
      } else if (next == '{') {
        choice.repeats = name;
        if (i + 1 < body.size() && body[i + 1] != '0') choice.needs.push_back(name);
        i = std::min(body.find('}', i), body.size());
      } else {
        choice.needs.push_back(name);
      }
    } else {
      ++i;
    }
  }
  return choices;
}

// "name ::= body" lines.
Rules ReadRules(std::string_view printed) {
  Rules rules;
  while (!printed.empty()) {
    const size_t end = std::min(printed.find('\n'), printed.size());
    const std::string_view line = printed.substr(0, end);
    printed.remove_prefix(std::min(end + 1, printed.size()));
    const size_t name_end = line.find(' ');
    const size_t sign = line.find("::=");
    if (name_end == std::string_view::npos || sign == std::string_view::npos) continue;
    rules.emplace(line.substr(0, name_end), ReadBody(line.substr(sign + 3)));
  }
  return rules;
}

// A rule that never ends, or "".
std::string_view Endless(const Rules& rules) {
  std::map<std::string_view, bool> ends;
  const auto can_end = [&](const Choice& choice) {
    return std::all_of(choice.needs.begin(), choice.needs.end(), [&](std::string_view name) {
      return ends.contains(name) || !rules.contains(name);
    });
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& [name, choices] : rules) {
      if (ends.contains(name) || std::none_of(choices.begin(), choices.end(), can_end)) continue;
      changed = ends[name] = true;
    }
  }
  for (const auto& [name, choices] : rules) {
    if (!ends.contains(name)) return name;
  }
  return {};
}

// A rule that is nothing but a repetition, of one that is nothing but a repetition, ... of it; "".
std::string_view RepeatsItself(const Rules& rules) {
  const auto next = [&](std::string_view name) -> std::string_view {
    const auto found = rules.find(name);
    if (found == rules.end() || found->second.size() != 1) return {};
    const Choice& only = found->second[0];
    return only.elements == 1 ? only.repeats : std::string_view();
  };
  for (const auto& [name, choices] : rules) {
    std::string_view at = next(name);
    for (size_t steps = 0; !at.empty() && at != name && steps < rules.size(); ++steps)
      at = next(at);
    if (!at.empty()) return name;
  }
  return {};
}

}  // namespace

Status CheckEbnf(std::string_view text) {
  if (text.size() > kMostText) return InvalidArgument("grammar: longer than 256 KiB");
  if (!utf8::IsValid(text)) return InvalidArgument("grammar: not valid UTF-8");
  int depth = 0;
  char quote = 0;  // '"' within a literal, ']' within a class
  int64_t product = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == '\\') ++i;
      if (c == quote || c == '\n') quote = 0;
    } else if (c == '"') {
      quote = '"';
    } else if (c == '[') {
      quote = ']';
    } else if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '(') {
      if (++depth > kDeepest) return InvalidArgument("grammar: groups nested too deep");
    } else if (c == ')') {
      --depth;
    } else if (c == '{') {
      int64_t count = 0;
      for (++i; i < text.size() && text[i] != '}'; ++i) {
        if (text[i] == ',') count = 0;
        if (std::isdigit(static_cast<uint8_t>(text[i]))) {
          count = std::min<int64_t>(count * 10 + (text[i] - '0'), kMostRepetitions);
        }
      }
      product = std::min(kMostRepetitions + 1, product * std::max<int64_t>(1, count));
      if (product > kMostRepetitions) return InvalidArgument("grammar: too many repetitions");
    }
  }
  return OkStatus();
}

Status CheckRules(std::string_view printed) {
  const Rules rules = ReadRules(printed);
  if (rules.size() > kMostRules) {
    return InvalidArgument(
        fmt::format("grammar: more than {} rules, groups and repetitions among "
                    "them",
                    kMostRules));
  }
  std::string_view bad = Endless(rules);
  if (bad.empty()) bad = RepeatsItself(rules);
  if (bad.empty()) return OkStatus();
  return InvalidArgument(fmt::format("grammar: the rule {} can never end", bad));
}

}  // namespace seacliff::grammar
