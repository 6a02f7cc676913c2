// Block by block, the cpu rows against the reference rows on the golden checkpoint.
#include <gtest/gtest.h>

#include "tests/golden/side.h"

namespace seacliff {
namespace {

void Compare(bool quantise_o, const char* what) {
  const std::string dir = SEACLIFF_SOURCE_DIR "/tests/data/golden/tiny-a";
  const ModelConfig config = LoadModelConfig(dir).value();
  Side ref(dir, config, Side::Runs::kReference, 300, nullptr, quantise_o);
  Side cpu(dir, config, Side::Runs::kCpu, 300, nullptr, quantise_o);
  CompareBlocks(config, ref, cpu, {300}, 0, what);
}

TEST(Blocks, CpuRowsFollowTheReference) { Compare(false, "prefill"); }
TEST(Blocks, CpuRowsFollowTheReferenceWithAnFp8OutputProjection) { Compare(true, "prefill, fp8"); }

}  // namespace
}  // namespace seacliff
