// SC_CHECK: a promise between our own functions, always on. Not for anything a user, file or device
// can cause (that is a Status).
#pragma once

#include <cstdio>
#include <cstdlib>

#define SC_CHECK(condition)                                                                 \
  do {                                                                                      \
    if (!(condition)) [[unlikely]] {                                                        \
      std::fprintf(stderr, "%s:%d: SC_CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                         \
    }                                                                                       \
  } while (false)
