// The prefix cache on a GPU: a prompt that starts behind a cached prefix gives the same logits, bit
// for bit, where the rest is chunked alike; chunked otherwise, the same up to rounding.
#include <cmath>

#include "tests/golden/prefix_driver.h"
#include "tests/gpu/models.h"

namespace seacliff {
namespace {

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

class GpuPrefix : public GpuTest, public testing::WithParamInterface<TestModel> {};
std::string NameOf(const testing::TestParamInfo<TestModel>& tested) {
  std::string name = tested.param.name;
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, GpuPrefix, testing::ValuesIn(kTestModels), NameOf);

TEST_P(GpuPrefix, AHitChangesNothing) {
  const TestModel& m = GetParam();
  ModelOptions options;
  options.dir = m.checkpoint != nullptr ? Repository() + m.checkpoint : TwoLayersOf(m.name);
  options.load_format = m.checkpoint != nullptr ? "auto" : "dummy";
  options.device = "cuda";
  PrefixDriver driver(options, 1024);
  std::mt19937 random(1);
  std::vector<int32_t> turn = ExpectAHit(driver, random);

  // Next turns start behind a block that decoding filled; computed from their first token on, a
  // prompt's chunk fills it, and each layer may add 3e-2 of the median token (company_test.cc).
  std::vector<std::vector<int32_t>> turns;
  std::vector<std::vector<float>> warm_logits;
  for (int i = 0; i < 9; ++i) {
    Append(turn, RandomIds(random, driver.vocab(), 3));
    turns.push_back(turn);
    const PrefixAnswer answer = driver.Ask(turn, 1);
    EXPECT_EQ(answer.cached, 384);
    warm_logits.push_back(answer.logits);
  }
  std::vector<double> distances;
  for (size_t i = 0; i < turns.size(); ++i) {
    driver.Forget();
    const PrefixAnswer answer = driver.Ask(turns[i], 1);
    EXPECT_EQ(answer.cached, 0);
    distances.push_back(Distance(warm_logits[i], answer.logits));
  }
  std::sort(distances.begin(), distances.end());
  const double bar = 3e-2 * static_cast<double>(driver.config().layers);
  std::printf("%s: turns from the cache and without: %.4f (median; bar %.2f), worst %.4f\n", m.name,
              distances[distances.size() / 2], bar, distances.back());
  EXPECT_LE(distances[distances.size() / 2], bar);
}

}  // namespace
}  // namespace seacliff
