// The macros that pass a Status up, and the public Status itself.
#pragma once

#include "seacliff/status.h"

#define SC_CONCAT_INNER(a, b) a##b
#define SC_CONCAT(a, b) SC_CONCAT_INNER(a, b)

// Returns the Status of `expr` from the calling function if it is an error.
#define SC_RETURN_IF_ERROR(expr)             \
  do {                                       \
    ::seacliff::Status sc_status_ = (expr);  \
    if (!sc_status_.ok()) return sc_status_; \
  } while (false)

// SC_ASSIGN_OR_RETURN(auto x, F()): x gets the value of F(), or its error is returned.
#define SC_ASSIGN_OR_RETURN(lhs, expr) \
  SC_ASSIGN_OR_RETURN_INNER(SC_CONCAT(sc_result_, __LINE__), lhs, expr)
#define SC_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                              \
  if (!result.ok()) return result.status();          \
  lhs = std::move(result).value()
