// The scanner of encoding.md 1.3. Its stages A (digits) and B (CJK) are not passes of their own:
// they only decide where a stretch ends, and stage C never looks beyond the end of its stretch.
#include "text/pretokenizer.h"

#include "text/unicode.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

using namespace unicode;  // NOLINT(google-build-using-namespace): the class bits

constexpr uint8_t kWord = kLetter | kMark;
constexpr uint8_t kPunctuationOrSymbol = kPunctuation | kSymbol;
constexpr uint8_t kNeverBeforeWord = kLineEnd | kLetter | kPunctuationOrSymbol;

bool IsAsciiLetter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// One stretch that stages A and B leave in one piece: either CJK characters only, or characters
// that are neither CJK nor numbers. Positions are byte offsets into the whole text.
class Stretch {
 public:
  Stretch(std::string_view text, bool cjk) : text_(text), cjk_(cjk) {}

  // End of the piece that starts at `begin`, which must lie in the stretch.
  size_t PieceEnd(size_t begin) const {
    const Character first = At(begin);
    const size_t second = begin + first.length;
    const Character next = At(second);

    if ((first.bits & kPunctuationOrSymbol) != 0 && first.length == 1 && second < text_.size() &&
        IsAsciiLetter(text_[second])) {
      return SkipAsciiLetters(second);
    }
    if ((first.bits & kWord) != 0) return Skip(second, kWord);
    if ((first.bits & kNeverBeforeWord) == 0 && (next.bits & kWord) != 0)
      return Skip(second, kWord);
    if ((first.bits & kPunctuationOrSymbol) != 0) return SkipPunctuation(second);
    if (text_[begin] == ' ' && (next.bits & kPunctuationOrSymbol) != 0) {
      return SkipPunctuation(second);
    }
    if ((first.bits & kSpace) != 0) return SpaceEnd(begin);
    return GapEnd(second);
  }

 private:
  // `bits` is 0 and `length` is 0 where the stretch has ended.
  struct Character {
    uint8_t bits = 0;
    int length = 0;
  };

  Character At(size_t at) const {
    if (at >= text_.size()) return {};
    int length;
    const uint8_t bits = ClassOf(utf8::DecodeValid(text_.data() + at, &length));
    const bool outside = cjk_ ? (bits & kCjk) == 0 : (bits & (kCjk | kNumber)) != 0;
    if (outside) return {};
    return {bits, length};
  }

  size_t Skip(size_t at, uint8_t mask) const {
    for (Character c = At(at); (c.bits & mask) != 0; c = At(at)) at += c.length;
    return at;
  }

  size_t SkipAsciiLetters(size_t at) const {
    while (at < text_.size() && IsAsciiLetter(text_[at])) ++at;
    return at;
  }

  size_t SkipPunctuation(size_t at) const { return Skip(Skip(at, kPunctuationOrSymbol), kLineEnd); }

  // White space: up to the last line end if there is one; all of it at the end of the stretch or if
  // it is one character; else all but the last, which belongs to what follows.
  size_t SpaceEnd(size_t begin) const {
    size_t at = begin, last = begin, after_line_end = begin;
    for (Character c = At(at); (c.bits & kSpace) != 0; c = At(at)) {
      last = at;
      at += c.length;
      if ((c.bits & kLineEnd) != 0) after_line_end = at;
    }
    if (after_line_end != begin) return after_line_end;
    if (At(at).length == 0 || last == begin) return at;
    return last;
  }

  // Characters that no alternative begins with go together, up to where one can begin.
  size_t GapEnd(size_t at) const {
    for (Character c = At(at); c.length != 0; c = At(at)) {
      if ((c.bits & (kWord | kPunctuationOrSymbol | kSpace)) != 0) return at;
      if ((At(at + c.length).bits & kWord) != 0) return at;
      at += c.length;
    }
    return at;
  }

  std::string_view text_;
  bool cjk_;
};

// Up to three numbers.
size_t NumbersEnd(std::string_view text, size_t at) {
  for (int count = 0; count < 3 && at < text.size(); ++count) {
    int length;
    if ((ClassOf(utf8::DecodeValid(text.data() + at, &length)) & kNumber) == 0) break;
    at += length;
  }
  return at;
}

}  // namespace

std::string_view Pretokenizer::Next() {
  if (at_ >= text_.size()) return {};
  int length;
  const uint8_t bits = ClassOf(utf8::DecodeValid(text_.data() + at_, &length));
  const size_t begin = at_;
  if ((bits & kNumber) != 0) {
    at_ = NumbersEnd(text_, begin);
  } else {
    at_ = Stretch(text_, (bits & kCjk) != 0).PieceEnd(begin);
  }
  return text_.substr(begin, at_ - begin);
}

}  // namespace seacliff
