// The choice of an instruction set: names, order, and that Highway's dispatch follows at once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/common/isa_test.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {
int64_t ThisTarget() { return HWY_TARGET; }
}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/common/isa.h"

namespace seacliff {
namespace {

HWY_EXPORT(ThisTarget);

int64_t DispatchedTarget() { return HWY_DYNAMIC_DISPATCH(ThisTarget)(); }

struct BestAgain {
  ~BestAgain() { (void)LimitIsa(IsaName(BestIsa())); }
};

TEST(Isa, UsableOnesAscendToTheBest) {
  const auto& isas = UsableIsas();
  ASSERT_FALSE(isas.empty());
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  EXPECT_EQ(isas.back(), BestIsa());
  EXPECT_EQ(CurrentIsa(), BestIsa());
}

TEST(Isa, HighwayFollowsEachLimitAtOnce) {
  const BestAgain again;
  // Downwards, upwards and down again: the dispatch must not remember its first choice.
  std::vector<Isa> order(UsableIsas().rbegin(), UsableIsas().rend());
  order.insert(order.end(), UsableIsas().begin(), UsableIsas().end());
  order.push_back(UsableIsas().front());
  for (const Isa isa : order) {
    ASSERT_TRUE(LimitIsa(IsaName(isa)).ok());
    EXPECT_EQ(CurrentIsa(), isa);
    const int64_t target = DispatchedTarget();
#if HWY_ARCH_X86
    if (isa >= Isa::kAvx512) {
      EXPECT_EQ(target, HWY_AVX3) << IsaName(isa);
    } else if (isa == Isa::kAvx2) {
      EXPECT_EQ(target, HWY_AVX2);
    } else {
      EXPECT_EQ(target, HWY_STATIC_TARGET);
    }
#else
    EXPECT_NE(target, 0);
#endif
  }
}

TEST(Isa, AnUnknownNameListsThoseOfThisMachine) {
  for (const char* name : {"", "avx", "AVX2", "sse4"}) {
    const Status status = LimitIsa(name);
    ASSERT_FALSE(status.ok()) << name;
    for (const Isa isa : UsableIsas()) {
      EXPECT_NE(status.message().find(IsaName(isa)), std::string::npos) << status.message();
    }
  }
  EXPECT_EQ(CurrentIsa(), BestIsa());
}

}  // namespace
}  // namespace seacliff
#endif  // HWY_ONCE
