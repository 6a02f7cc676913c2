// What this machine has: its CPU and the GPUs that this build could use. Asked once, by those who
// choose or print; ops look at the Context instead.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seacliff {

struct Gpu {
  int32_t index = 0;  // the CUDA runtime's number
  std::string name;
  int32_t sm = 0;  // compute capability, 90 for 9.0
  int32_t multiprocessors = 0;
  int64_t memory = 0;         // bytes
  int64_t shared_memory = 0;  // bytes a block can have
  int64_t l2 = 0;             // bytes
};

struct Machine {
  std::string cpu;
  int32_t cores = 0;
  std::string isa;  // instruction set of the cpu rows
  std::vector<Gpu> gpus;
  std::string no_gpu;  // why `gpus` is empty
};

Machine InspectMachine();

// Two lines or more: the CPU and what the cpu rows use of it, then each GPU or why there is none.
std::string DescribeMachine(const Machine& machine);

}  // namespace seacliff
