// The number of files, sockets among them, that the process may have open.
#pragma once

#include <cstddef>

namespace seacliff {

// Raises the process's soft limit towards `wanted`, as far as the hard limit lets it; never lowers
// it. Returns the limit that holds now.
size_t RaiseOpenFiles(size_t wanted);

}  // namespace seacliff
