// The pacer against machines whose steps take a known time.
#include "engine/step_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

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
  for (const Machine machine : {Machine{1, 0.001}, Machine{0.02, 0.0001, 0.004}, Machine{1, 0.05},
                                Machine{1.46, 0.02, 2.5}, Machine{1, 0.0005, 20}}) {
    StepPacer pacer(8192);
    const double least = machine.fixed + machine.more;
    const bool possible = machine.Seconds(StepPacer::kLeast) <= 2 * machine.fixed;
    const double allowed = 2 * (possible ? machine.fixed : least);
    int64_t largest = 0, probes = 0, moved = 0;
    for (int step = 0; step < 2000; ++step) {
      const int64_t tokens = pacer.prompt_limit(1, 4);
      if (tokens > StepPacer::kLeast && step > 100) {
        EXPECT_LE(machine.Seconds(tokens), allowed) << "step " << step;
      }
      pacer.Record(4, tokens, machine.Seconds(tokens));
      largest = std::max(largest, tokens);
      probes += tokens == 0 ? 1 : 0;
      moved += tokens;
    }
    EXPECT_LE(probes, 2000 / StepPacer::kProbeEvery + 1);
    // And most of what there is room for is used.
    EXPECT_GE(static_cast<double>(moved) / 2000,
              0.75 * std::min(8192.0, std::max((allowed - least) / machine.token,
                                               1.0 * StepPacer::kLeast)));
  }
}

TEST(StepPacerTest, ABaseThatIsOnlyPromptTokensGivesNoRoom) {
  StepPacer pacer(8192);
  const Machine machine{1, 0.3};  // a CPU
  for (int step = 0; step < 200; ++step) {
    const int64_t tokens = pacer.prompt_limit(1, 1);
    if (step > 10) {
      EXPECT_LE(tokens, StepPacer::kLeast) << "step " << step;
    }
    pacer.Record(1, tokens, machine.Seconds(tokens));
  }
}

TEST(StepPacerTest, FollowsAMachineThatSlowsDown) {
  StepPacer pacer(8192);
  Machine machine{1, 0.001};
  for (int step = 0; step < 100; ++step) {
    const int64_t tokens = pacer.prompt_limit(1, 1);
    pacer.Record(1, tokens, machine.Seconds(tokens));
  }
  EXPECT_GT(pacer.prompt_limit(1, 1), 500);
  machine.token = 0.004;  // a longer context
  for (int step = 0; step < 20; ++step) {
    const int64_t tokens = pacer.prompt_limit(1, 1);
    pacer.Record(1, tokens, machine.Seconds(tokens));
  }
  EXPECT_LT(pacer.prompt_limit(1, 1), 250);
}

TEST(StepPacerTest, ManyPromptsGetAShareEach) {
  StepPacer pacer(8192);
  const Machine machine{1, 0.001};
  const auto settle = [&](int64_t prompts, int64_t decodes) {
    int64_t tokens = 0;
    for (int step = 0; step < 50; ++step) {
      tokens = pacer.prompt_limit(prompts, decodes);
      pacer.Record(decodes, tokens, machine.Seconds(tokens));
    }
    return machine.Seconds(tokens) / machine.fixed;
  };
  EXPECT_NEAR(settle(6, 2), 4, 0.4);
  EXPECT_NEAR(settle(2, 2), 2, 0.2);
  EXPECT_NEAR(settle(1, 8), 2, 0.2);
}

// A device reads most weights for a hundred tokens, and no more of them for thousands.
TEST(StepPacerTest, WholeChunksStandFarApartWhereFewTokensCostAsMuch) {
  const auto seconds = [](int64_t prompt_tokens) {
    const auto tokens = static_cast<double>(prompt_tokens);
    return 0.016 + (prompt_tokens > 0 ? 0.01 : 0) + 0.0003 * std::min(tokens, 100.0) +
           0.0001 * tokens;
  };
  const auto run = [&](int64_t prompts, int64_t decodes, double* time) {
    StepPacer pacer(2048);
    pacer.Record(0, 2048, seconds(2048), /*paced=*/false);
    int64_t moved = 0, waits = 0, chunks = 0;
    *time = 0;
    for (int step = 0; step < 5000; ++step) {
      int64_t tokens = pacer.prompt_limit(prompts, decodes);
      if (tokens == 2048 && ++chunks % 5 == 0) tokens = 256;  // cut short by a snapshot
      const double took = seconds(tokens);
      pacer.Record(decodes, tokens, took);
      if (step < 300) continue;
      waits += took > 2 * seconds(0) ? 1 : 0;
      moved += tokens;
      *time += took;
    }
    return std::pair(static_cast<double>(moved) / *time, waits);
  };
  double time = 0;
  const auto [alone, waits] = run(1, 16, &time);
  EXPECT_LE(waits, 47);  // of 4,700
  EXPECT_LE(time, 4700 * 1.15 * seconds(0));
  EXPECT_GE(alone, 0.8 * 2048 / (seconds(2048) + StepPacer::kChunkEvery * seconds(0)));
  // So it is with a prompt whose first tokens were not paced.
  StepPacer pacer(2048);
  for (int prompt = 0; prompt < 3; ++prompt) {
    int64_t slow = 0, steps = 0;
    for (int64_t left = 32000; left > 0; ++steps) {
      const bool paced = left <= 32000 - 4096;
      const int64_t tokens = std::min(left, paced ? pacer.prompt_limit(1, 16) : 2048);
      pacer.Record(16, tokens, seconds(tokens), paced);
      left -= tokens;
      slow += seconds(tokens) > 2 * seconds(0) ? 1 : 0;
    }
    EXPECT_LE(100 * slow, steps) << "prompt " << prompt;
    EXPECT_LE(steps, 18 * (StepPacer::kChunkEvery + 1));
    for (int step = 0; step < 300; ++step) pacer.Record(16, 0, seconds(0));
  }
  // Each of as many prompts as decodes has the same share.
  EXPECT_GE(run(16, 16, &time).first, 0.4 * 2048 / seconds(2048));
  // A host, where a token costs the same in any company, has no such chunks.
  StepPacer host(2048);
  host.Record(0, 2048, 2048 * 0.01, /*paced=*/false);
  for (int step = 0; step < 1000; ++step) {
    const int64_t tokens = host.prompt_limit(1, 4);
    EXPECT_LT(tokens, 200);
    host.Record(4, tokens, 1 + 0.01 * static_cast<double>(tokens));
  }
}

TEST(StepPacerTest, FirstMeasuresAndNeverStandsStill) {
  StepPacer pacer(512);
  EXPECT_EQ(pacer.prompt_limit(1, 1), 0);
  pacer.Record(0, 512, 5);  // tells nothing
  EXPECT_EQ(pacer.prompt_limit(1, 1), 0);
  pacer.Record(1, 0, 1);
  EXPECT_EQ(pacer.prompt_limit(1, 1), StepPacer::kLeast);
  pacer.Record(1, StepPacer::kLeast, 5);
  EXPECT_EQ(pacer.prompt_limit(1, 1), 2 * StepPacer::kLeast);
  pacer.Record(1, 2 * StepPacer::kLeast, 1000);
  EXPECT_EQ(pacer.prompt_limit(1, 1), StepPacer::kLeast);
  StepPacer narrow(8);
  narrow.Record(1, 0, 1);
  EXPECT_EQ(narrow.prompt_limit(1, 1), 8);
  narrow.Record(1, 8, 1);
  EXPECT_EQ(narrow.prompt_limit(1, 1), 8);
}

}  // namespace
}  // namespace seacliff
