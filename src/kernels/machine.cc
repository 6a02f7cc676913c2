// The CPU of this machine, and the machine as text. GPUs are asked for in cuda_devices.cu.
#include "kernels/machine.h"

#include <fmt/format.h>

#include <fstream>

#include "base/cpus.h"
#include "kernels/common/isa.h"
#include "kernels/cuda_devices.h"

namespace seacliff {
namespace {

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

}  // namespace

Machine InspectMachine() {
  Machine machine;
  machine.cpu = CpuName();
  machine.cores = CoresOfOurOwn();
  machine.isa = IsaName(CurrentIsa());
#ifdef SEACLIFF_CUDA
  machine.no_gpu = ListCudaDevices(machine.gpus);
#else
  machine.no_gpu = "built without CUDA";
#endif
  return machine;
}

std::string DescribeMachine(const Machine& machine) {
  std::string text =
      fmt::format("CPU: {}, {} cores, cpu rows use {}\n", machine.cpu, machine.cores, machine.isa);
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const Gpu& gpu = machine.gpus[i];
    text += fmt::format("GPU {}: {}, sm_{}, {} multiprocessors, {:.1f} GB, {} KB shared\n", i,
                        gpu.name, gpu.sm, gpu.multiprocessors,
                        static_cast<double>(gpu.memory) / 1e9, gpu.shared_memory / 1024);
  }
  if (machine.gpus.empty()) text += fmt::format("GPU: none ({})\n", machine.no_gpu);
  return text;
}

}  // namespace seacliff
