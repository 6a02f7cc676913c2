// Looking through grammars in xgrammar's notation.
#include "grammar/ebnf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace seacliff::grammar {
namespace {

constexpr size_t kMostText = 256 << 10;        // bytes
constexpr int64_t kMostRepetitions = 200'000;  // those within each other multiplied
constexpr int64_t kWrittenOut = 128;           // of a repetition; xgrammar counts what is beyond
constexpr int64_t kMostWritten = 10'000;       // compiling takes the square of it
constexpr int kDeepest = 100;                  // brackets within each other
constexpr size_t kMostRules = 2000;            // compiling takes the square of it

// The names in one choice of a rule.
struct Choice {
  std::vector<std::string_view> needs;  // rules that it cannot be without
  std::string_view repeats;             // the rule that its last element repeats; "": none
  int elements = 0;
  std::vector<std::pair<std::string_view, int64_t>> names;  // all, and how often each comes
};
using Rules = std::map<std::string_view, std::vector<Choice>>;

// The highest number of the {} that begins at `i`, up to a little more than is allowed; at least 1.
int64_t ReadCount(std::string_view text, size_t i) {
  int64_t highest = 1, count = 0;
  for (; i < text.size() && text[i] != '}'; ++i) {
    const bool digit = std::isdigit(static_cast<uint8_t>(text[i])) != 0;
    count = digit ? std::min(count * 10 + (text[i] - '0'), kMostRepetitions + 1) : 0;
    highest = std::max(highest, count);
  }
  return highest;
}

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
      if (next != '(') choice.names.emplace_back(name, next == '{' ? ReadCount(body, i) : 1);
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

// How often parts are repeated: those within each other multiply, those one behind the other add
// up.
class Repetitions {
 public:
  explicit Repetitions(const Rules& rules) : rules_(rules) {
    for (const auto& [name, choices] : rules) most_ = std::max(most_, Of(name));
  }
  int64_t most() const { return most_; }  // of any rule, with those that it leads to
  int64_t written() const { return written_; }

 private:
  int64_t Of(std::string_view name) {
    const auto [known, is_new] = of_.emplace(name, 0);
    const auto rule = rules_.find(name);
    if (!is_new || rule == rules_.end()) return known->second;
    int64_t own = 0, beyond = 0;
    for (const Choice& choice : rule->second) {
      for (const auto& [part, count] : choice.names) {
        const int64_t within = Of(part);  // 0 on the way back to this rule
        if (count == 1) {
          beyond = std::max(beyond, within);
        } else {
          own = std::min(own + count * std::max<int64_t>(1, within), kMostRepetitions + 1);
          written_ += std::min(count, kWrittenOut);
        }
      }
    }
    return known->second = own + beyond;
  }

  const Rules& rules_;
  std::map<std::string_view, int64_t> of_;
  int64_t most_ = 0, written_ = 0;
};

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
    } else if (c == '{' && ReadCount(text, i) > kMostRepetitions) {
      return InvalidArgument("grammar: too many repetitions");
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
  const Repetitions repetitions(rules);
  if (repetitions.most() > kMostRepetitions || repetitions.written() > kMostWritten) {
    return InvalidArgument("grammar: too many repetitions");
  }
  std::string_view bad = Endless(rules);
  if (bad.empty()) bad = RepeatsItself(rules);
  if (bad.empty()) return OkStatus();
  return InvalidArgument(fmt::format("grammar: the rule {} can never end", bad));
}

}  // namespace seacliff::grammar
