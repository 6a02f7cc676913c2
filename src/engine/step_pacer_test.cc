// The pacer against machines whose steps take a known time.
#include "engine/step_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace seacliff {
namespace {

// A machine whose step takes `fixed` and `token` for each prompt token, and `more` if there are
// any.
struct Machine {
  double fixed, token, more = 0;
  double Seconds(int64_t prompt_tokens) const {
    return fixed + token * static_cast<double>(prompt_tokens) + (prompt_tokens > 0 ? more : 0);
  }
};

TEST(StepPacerTest, StepsWithPromptsStayWithinTwice) {
  for (const Machine machine :
       {Machine{1, 0.001}, Machine{0.02, 0.0001, 0.004}, Machine{1, 0.05}}) {
    StepPacer pacer(8192);
    int64_t largest = 0, probes = 0, moved = 0;
    for (int step = 0; step < 2000; ++step) {
      const int64_t tokens = pacer.prompt_limit();
      if (tokens > StepPacer::kLeast && step > 100) {
        EXPECT_LE(machine.Seconds(tokens), 2 * machine.fixed) << "step " << step;
      }
      pacer.Record(4, tokens, machine.Seconds(tokens));
      largest = std::max(largest, tokens);
      probes += tokens == 0 ? 1 : 0;
      moved += tokens;
    }
    EXPECT_LE(probes, 2000 / StepPacer::kProbeEvery + 1);
    // And most of what there is room for is used.
    const double room = (machine.fixed - machine.more) / machine.token;
    EXPECT_GE(static_cast<double>(moved) / 2000,
              0.75 * std::min(8192.0, std::max(room, 1.0 * StepPacer::kLeast)));
  }
}

TEST(StepPacerTest, FollowsAMachineThatSlowsDown) {
  StepPacer pacer(8192);
  Machine machine{1, 0.001};
  for (int step = 0; step < 100; ++step) {
    const int64_t tokens = pacer.prompt_limit();
    pacer.Record(1, tokens, machine.Seconds(tokens));
  }
  EXPECT_GT(pacer.prompt_limit(), 500);
  machine.token = 0.004;  // a longer context
  for (int step = 0; step < 20; ++step) {
    const int64_t tokens = pacer.prompt_limit();
    pacer.Record(1, tokens, machine.Seconds(tokens));
  }
  EXPECT_LT(pacer.prompt_limit(), 250);
}

TEST(StepPacerTest, FirstMeasuresDecodesAloneAndNeverStandsStill) {
  StepPacer pacer(512);
  EXPECT_EQ(pacer.prompt_limit(), 0);
  pacer.Record(0, 512, 5);  // tells nothing
  EXPECT_EQ(pacer.prompt_limit(), 0);
  pacer.Record(1, 0, 1);
  EXPECT_EQ(pacer.prompt_limit(), StepPacer::kFirst);
  pacer.Record(1, 64, 1000);
  EXPECT_EQ(pacer.prompt_limit(), StepPacer::kLeast);
  StepPacer narrow(8);
  narrow.Record(1, 0, 1);
  EXPECT_EQ(narrow.prompt_limit(), 8);
}

}  // namespace
}  // namespace seacliff
