// Strings and numbers as JSON text.
#include "serve/json_writer.h"

#include <fmt/format.h>

#include <cmath>

namespace seacliff::serve {
namespace {

// The length of the valid UTF-8 character at the front of `text`, 0 if there is none.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  if (first < 0xF0) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;  // longer than it need be
    if (first == 0xED && byte(1) > 0x9F) return 0;  // a surrogate
    return 3;
  }
  if (first > 0xF4 || !continues(1) || !continues(2) || !continues(3)) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  if (first == 0xF4 && byte(1) > 0x8F) return 0;
  return 4;
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default: {
        const unsigned char code = static_cast<unsigned char>(c);
        if (code < 0x20 || code == 0x7F) {
          fmt::format_to(std::back_inserter(*out), "\\u{:04x}", static_cast<unsigned>(code));
          break;
        }
        const size_t length = CharacterLength(text.substr(i));
        if (length == 0) {
          *out += "\xEF\xBF\xBD";
          break;
        }
        out->append(text, i, length);
        i += length;
        continue;
      }
    }
    ++i;
  }
  out->push_back('"');
}

// As many digits as tell a float, or a double, from all others.
template <std::floating_point T>
void JsonWriter::AppendNumber(T value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out_), "{}", value);
  } else {
    out_ += "null";
  }
}
template void JsonWriter::AppendNumber(float);
template void JsonWriter::AppendNumber(double);

}  // namespace seacliff::serve
