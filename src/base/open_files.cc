// RLIMIT_NOFILE.
#include "base/open_files.h"

#include <sys/resource.h>

#include <algorithm>

namespace seacliff {

size_t RaiseOpenFiles(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = std::max(before, std::min<rlim_t>(wanted, limit.rlim_max));
  if (limit.rlim_cur != before && setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  return limit.rlim_cur;
}

}  // namespace seacliff
