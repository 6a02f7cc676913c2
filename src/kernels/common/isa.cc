// What the CPU and Linux allow, and the choice among it, which Highway is told of.
#include "kernels/common/isa.h"

#include <fmt/format.h>

#include <atomic>

#include "base/check.h"
#include "hwy/highway.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif
#if HWY_ARCH_X86_64 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace seacliff {
namespace {

constexpr std::string_view kNames[] = {"plain", "neon", "avx2", "avx512", "avx512_bf16", "amx"};

#if HWY_ARCH_X86
bool HasAvx512Bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1) != 0;
}

// The CPU has tiles with bf16 products, and Linux lets this process use them.
bool HasAmx() {
#if HWY_ARCH_X86_64 && defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;               // the number of the tiles' state
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  const bool tiles = (edx >> 24 & 1) != 0, bf16 = (edx >> 22 & 1) != 0;
  return tiles && bf16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

std::vector<Isa> FindIsas() {
  const int64_t targets = hwy::SupportedTargets();
  std::vector<Isa> isas = {Isa::kPlain};
  if ((targets & HWY_AVX2) == 0) return isas;
  isas.push_back(Isa::kAvx2);
  if ((targets & HWY_AVX3) == 0) return isas;
  isas.push_back(Isa::kAvx512);
  if (!HasAvx512Bf16()) return isas;
  isas.push_back(Isa::kAvx512Bf16);
  if (HasAmx()) isas.push_back(Isa::kAmx);
  return isas;
}
#elif HWY_ARCH_ARM
std::vector<Isa> FindIsas() { return {Isa::kNeon}; }  // every row is built for it alone
#else
std::vector<Isa> FindIsas() { return {Isa::kPlain}; }
#endif

// Highway's targets that stand for an instruction set.
int64_t TargetsOf(Isa isa) {
  switch (isa) {
    case Isa::kPlain:
      return HWY_EMU128;
#if HWY_ARCH_X86
    case Isa::kAvx2:
      return HWY_AVX2 | HWY_EMU128;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
    case Isa::kAmx:
      return HWY_AVX3 | HWY_AVX2 | HWY_EMU128;
#elif HWY_ARCH_ARM
    case Isa::kNeon:
      return HWY_NEON;
#endif
    default:
      return HWY_STATIC_TARGET;
  }
}

std::atomic<Isa>& Chosen() {
  static std::atomic<Isa> chosen{BestIsa()};
  return chosen;
}

}  // namespace

std::string_view IsaName(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

Isa BestIsa() { return UsableIsas().back(); }

const std::vector<Isa>& UsableIsas() {
  static const std::vector<Isa> isas = FindIsas();
  return isas;
}

Isa CurrentIsa() { return Chosen().load(std::memory_order_relaxed); }

Status LimitIsa(std::string_view name) {
  std::string valid;
  for (const Isa isa : UsableIsas()) {
    if (name == IsaName(isa)) {
      Chosen().store(isa, std::memory_order_relaxed);
      hwy::SetSupportedTargetsForTest(TargetsOf(isa));
      // Highway remembers its choice, so it is told at once.
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      return OkStatus();
    }
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", IsaName(isa));
  }
  return InvalidArgument(fmt::format("\"{}\" is not one of this machine's: {}", name, valid));
}

}  // namespace seacliff
