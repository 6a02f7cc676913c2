// Block by block, the GPU's rows against the reference rows on the golden checkpoint: one prefill,
// the same in chunks, and decode steps.
#include "tests/golden/side.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

class Blocks : public GpuTest {
 protected:
  void Compare(const std::vector<int64_t>& steps, int64_t from, const char* what) {
    const std::string dir = Repository() + kTinyA;
    const ModelConfig config = LoadModelConfig(dir).value();
    Side ref(dir, config, Side::Runs::kReference, kMost);
    Side gpu(dir, config, Side::Runs::kDevice, kMost, &device());
    CompareBlocks(config, ref, gpu, steps, from, what);
  }

  static constexpr int64_t kMost = 400;
};

TEST_F(Blocks, Prefill) { Compare({300}, 0, "prefill"); }

// Chunks that begin and end within and at the ends of pages and compressed blocks.
TEST_F(Blocks, Chunks) { Compare({1, 3, 60, 64, 129, 43}, 0, "chunks"); }

// As many tokens as the prefill has, so that one whose choice of blocks falls the other way weighs
// as little.
TEST_F(Blocks, Decode) {
  std::vector<int64_t> steps(301, 1);
  steps.front() = 100;
  Compare(steps, 100, "decode");
}

}  // namespace
}  // namespace seacliff
