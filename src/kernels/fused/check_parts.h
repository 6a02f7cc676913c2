// The cases of the ops that fused stands for: each op's check.cc makes its own.
#pragma once

#include <vector>

#include "kernels/common/checker.h"
#include "kernels/fused/op.h"

namespace seacliff {

struct PartShape {
  std::vector<CheckSequence> sequences;
  int64_t dim;
  int64_t heads = 0;
  bool real = false;

  int64_t tokens() const {
    int64_t n = 0;
    for (const CheckSequence& s : sequences) n += s.count;
    return n;
  }
};

namespace rms_norm {
Prepared<RmsNormArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s);
}
namespace window_insert {
Prepared<WindowInsertArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s);
}
namespace compress {
Prepared<CompressArgs> PreparePart(CheckMemory& memory, Random& random, int64_t ratio,
                                   EntryFormat format, const PartShape& s);
}
namespace query_rope {
Prepared<QueryRopeArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s);
}
namespace index_query {
Prepared<IndexQueryArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s);
}

}  // namespace seacliff
