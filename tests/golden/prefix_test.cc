// A prompt that starts behind a cached prefix, through the real model: the same logits, bit for
// bit, as computed from its first token on.
#include "tests/golden/prefix_driver.h"

namespace seacliff {
namespace {

const std::string kTinyA = SEACLIFF_SOURCE_DIR "/tests/data/golden/tiny-a";
const std::string kDemoModel = SEACLIFF_SOURCE_DIR "/models/tiny";

class PrefixNumerics : public testing::TestWithParam<Numerics> {};
INSTANTIATE_TEST_SUITE_P(All, PrefixNumerics,
                         testing::Values(Numerics::kExact, Numerics::kCheckpoint));

TEST_P(PrefixNumerics, AHitChangesNoBit) {
  ModelOptions options;
  options.dir = kTinyA;
  options.numerics = GetParam();
  PrefixDriver driver(options, 1024);
  std::mt19937 random(1);
  std::vector<int32_t> turn = ExpectAHit(driver, random);

  // The next turn starts behind a block that decoding filled; a cousin where the two part.
  Append(turn, RandomIds(random, driver.vocab(), 33));
  const PrefixAnswer warm_turn = driver.Ask(turn, 5);
  EXPECT_EQ(warm_turn.cached, 384);
  std::vector<int32_t> cousin(turn.begin(), turn.begin() + 140);
  Append(cousin, RandomIds(random, driver.vocab(), 160));
  driver.Ask(cousin, 1);
  cousin[200] = 7;
  const PrefixAnswer warm_cousin = driver.Ask(cousin, 5);
  EXPECT_EQ(warm_cousin.cached, 128);

  driver.Forget();
  const PrefixAnswer cold_turn = driver.Ask(turn, 5);
  EXPECT_EQ(cold_turn.cached, 0);
  EXPECT_EQ(cold_turn.logits, warm_turn.logits);
  driver.Forget();
  EXPECT_EQ(driver.Ask(cousin, 5).logits, warm_cousin.logits);

  // A prompt that ends where a block does starts a block earlier the second time.
  const std::vector<int32_t> whole = RandomIds(random, driver.vocab(), 384);
  const PrefixAnswer cold_whole = driver.Ask(whole, 9);
  const PrefixAnswer warm_whole = driver.Ask(whole, 9);
  EXPECT_EQ(warm_whole.cached, 256);
  EXPECT_EQ(warm_whole.logits, cold_whole.logits);
}

// What issue B allows, at 4 K tokens of the demo model: two conversations that alternate, then an
// agent of many turns.
TEST(SlowPrefixTest, ConversationsOfTheDemoModelComputeTheirNewTokensAlone) {
  constexpr size_t kTurn = 60, kAnswer = 20;
  ModelOptions options;
  options.dir = kDemoModel;
  PrefixDriver driver(options, 4096);
  std::mt19937 random(2);
  std::vector<int32_t> histories[2];
  for (int turn = 0; turn < 5; ++turn) {
    for (std::vector<int32_t>& history : histories) {
      const size_t more = turn == 0 ? 3000 : kTurn;
      Append(history, RandomIds(random, driver.vocab(), more));
      const PrefixAnswer answer = driver.Ask(history, kAnswer);
      EXPECT_LE(answer.computed, static_cast<int64_t>(more) + (turn == 0 ? 0 : 128));
      Append(history, answer.ids);
    }
  }
  std::vector<int32_t> history = RandomIds(random, driver.vocab(), 1000);
  std::vector<int32_t> last_answer;
  for (int turn = 0; turn < 30; ++turn) {
    Append(history, RandomIds(random, driver.vocab(), kTurn));
    const PrefixAnswer answer = driver.Ask(history, kAnswer);
    if (turn > 0) {
      EXPECT_LE(answer.computed, static_cast<int64_t>(kTurn) + 128);
    }
    last_answer = answer.ids;
    if (turn < 29) Append(history, answer.ids);
  }
  driver.Forget();
  EXPECT_EQ(driver.Ask(history, kAnswer).ids, last_answer);
}

}  // namespace
}  // namespace seacliff
