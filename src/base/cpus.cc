// Affinity, topology and quota of the process, as Linux tells them.
#include "base/cpus.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

namespace seacliff {
namespace {

// Whether a lower number is the same core's: "0,64" or "0-1" lists the core's CPUs in order.
bool IsSecondThread(int cpu) {
  std::ifstream file(
      fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
  int first = cpu;
  return static_cast<bool>(file >> first) && first != cpu;
}

// CPUs' worth of time that the cgroup allows; infinite where it says nothing.
double QuotaInCpus() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "200000 100000", "max 100000"
  double quota = 0, period = 0;
  if (file >> quota >> period && quota > 0 && period > 0) return quota / period;
  return INFINITY;
}

}  // namespace

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  std::stable_partition(cpus.begin(), cpus.end(), [](int cpu) { return !IsSecondThread(cpu); });
  return cpus;
}

int CoresOfOurOwn() {
  const std::vector<int> cpus = AllowedCpus();
  auto cores = static_cast<double>(
      std::count_if(cpus.begin(), cpus.end(), [](int cpu) { return !IsSecondThread(cpu); }));
  if (cores == 0) cores = std::max(static_cast<double>(std::thread::hardware_concurrency()), 1.0);
  return std::max(1, static_cast<int>(std::min(cores, std::ceil(QuotaInCpus()))));
}

int CurrentCpu() { return sched_getcpu(); }

}  // namespace seacliff
