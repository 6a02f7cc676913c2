// Words of HTTP's headers and targets.
#pragma once

#include <string>
#include <string_view>

namespace seacliff::serve {

// Equal but for the case of ASCII letters, as names of headers are.
bool SameName(std::string_view a, std::string_view b);

// "%41" becomes "A"; what is no such triple stays.
std::string PercentDecoded(std::string_view text);

}  // namespace seacliff::serve
