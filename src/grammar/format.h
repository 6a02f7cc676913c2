// The formats of strings that can be enforced, as regular expressions.
#pragma once

#include <string>
#include <string_view>

namespace seacliff::grammar {

// Matches the strings as a whole; empty if the format is not known. Not all strings of a format are
// matched (years have four digits, hosts and addresses are plain ones), but all that are matched
// are of it.
std::string FormatPattern(std::string_view format);
std::string FormatNames();

}  // namespace seacliff::grammar
