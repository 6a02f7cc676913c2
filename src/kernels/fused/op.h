// fused: small ops that do not need one another's results, asked for together: a decode step spends
// more time between launches than in them. Each part is what its own op says.
#pragma once

#include <optional>

#include "kernels/compress/op.h"
#include "kernels/index_query/op.h"
#include "kernels/query_rope/op.h"
#include "kernels/rms_norm/op.h"
#include "kernels/window_insert/op.h"

namespace seacliff {

struct FusedArgs {
  std::optional<RmsNormArgs> norm;
  std::optional<WindowInsertArgs> window;
  std::optional<CompressArgs> keys, index_keys;  // the latter's entries are index keys
  std::optional<QueryRopeArgs> query;
  std::optional<IndexQueryArgs> index_query;
};

void Fused(Context& k, const FusedArgs& a);

namespace fused {
constexpr int64_t kCudaTokens = compress::kFewTokens;
constexpr int kCudaThreads = 512;
// One launch: so many tokens, norms of dim % 8 == 0, entries and heads of up to 512, index queries
// of 128, and what each op's own row takes.
bool CudaTakes(const FusedArgs& a);
void Cuda(Context& k, const FusedArgs& a);
// One op after the other, on a device (what their rows take there) or the host.
bool CudaPartsTakes(const FusedArgs& a);
void Parts(Context& k, const FusedArgs& a);
void Ref(Context& k, const FusedArgs& a);
}  // namespace fused

}  // namespace seacliff
