// How the loading of a model reports what it does.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace seacliff {

// Bytes done of bytes in all of one phase ("loading", "packing", ...), rising from 0 to `total`; a
// phase ends before the next begins. Calls come from several threads but never two at once.
using LoadProgress = std::function<void(std::string_view phase, int64_t done, int64_t total)>;

}  // namespace seacliff
