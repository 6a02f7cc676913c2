// Which instruction set the cpu rows use: the best one of this machine, unless a check or a
// benchmark asks for a smaller one. Highway's dispatch follows it; rows with code of their own for
// bf16 dot products or AMX tiles look at CurrentIsa().
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace seacliff {

// Each includes those before it that its machine has: `CurrentIsa() >= Isa::kAvx512Bf16` reads as
// "bf16 dot products may be used". kAvx512Bf16 and kAmx run Highway's code for kAvx512.
enum class Isa : uint8_t { kPlain, kNeon, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// "plain", "neon", "avx2", "avx512", "avx512_bf16", "amx".
std::string_view IsaName(Isa isa);

// What the machine and its kernel allow. The first call asks Linux for AMX's tile registers.
Isa BestIsa();

// Those of this machine, ascending; the last is BestIsa().
const std::vector<Isa>& UsableIsas();

// What rows use now: BestIsa(), or what LimitIsa chose. One atomic load.
Isa CurrentIsa();

// For the whole process, from the next call of an op on; not while one runs. For checks and
// benchmarks only. An error lists the names that this machine knows.
Status LimitIsa(std::string_view name);

}  // namespace seacliff
