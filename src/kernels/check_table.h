// The table of op checks, and the one call that runs them: behind `seacliff check` and
// kernels_test.
#pragma once

#include <span>

#include "kernels/common/checker.h"

namespace seacliff {

struct OpCheck {
  const char* op;
  void (*run)(Checker&);
};

std::span<const OpCheck> OpChecks();

// Runs the checks that the options choose. An error is a bad option or a result file that cannot be
// written; rows that fail are in the report.
Result<CheckReport> RunChecks(const CheckOptions& options);

// Each op's own check.cc defines its function.
namespace embed {
void Check(Checker& c);
}
namespace mhc_boundary {
void Check(Checker& c);
}
namespace mhc_head {
void Check(Checker& c);
}
namespace rms_norm {
void Check(Checker& c);
}
namespace linear {
void Check(Checker& c);
}
namespace linears {
void Check(Checker& c);
}
namespace grouped_linear {
void Check(Checker& c);
}
namespace query_rope {
void Check(Checker& c);
}
namespace window_insert {
void Check(Checker& c);
}
namespace compress {
void Check(Checker& c);
}
namespace index_query {
void Check(Checker& c);
}
namespace fused {
void Check(Checker& c);
}
namespace index_topk {
void Check(Checker& c);
}
namespace sparse_attention {
void Check(Checker& c);
}
namespace router {
void Check(Checker& c);
}
namespace experts {
void Check(Checker& c);
}
namespace mtp_join {
void Check(Checker& c);
}
namespace sample {
void Check(Checker& c);
}

}  // namespace seacliff
