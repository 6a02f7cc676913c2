// seacliff check: every row of every op against its reference on this machine, and its speed.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "kernels/check_table.h"
#include "kernels/device.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;

// The command line that runs the same check again; it stands in result lines.
std::string CommandOf(const Settings& settings) {
  std::string command = "seacliff check";
  if (!settings.op.empty()) command += " " + settings.op;
  if (!settings.row.empty()) command += " --row " + settings.row;
  if (!settings.case_name.empty()) command += fmt::format(" --case '{}'", settings.case_name);
  if (!settings.isa.empty()) command += " --isa " + settings.isa;
  if (settings.device != "cpu") command += " --device " + settings.device;
  if (settings.smem_limit.value != 0) {
    command += fmt::format(" --smem-limit {}", settings.smem_limit.value);
  }
  if (settings.max_sms != 0) command += fmt::format(" --max-sms {}", settings.max_sms);
  if (settings.full) command += " --full";
  if (settings.bench) command += " --bench";
  if (settings.seed != 1) command += fmt::format(" --seed {}", *settings.seed);
  if (settings.threads != 0) command += fmt::format(" --threads {}", settings.threads);
  return command;
}

Status Check(const Settings& settings) {
  CheckOptions options;
  options.op = settings.op;
  options.row = settings.row;
  options.name = settings.case_name;
  options.isa = settings.isa;
  options.full = settings.full;
  options.bench = settings.bench;
  options.seed = static_cast<uint64_t>(*settings.seed);
  options.threads = static_cast<int>(settings.threads);
  options.machine = settings.machine;
  options.command = CommandOf(settings);
  options.results = settings.results;
  if (settings.full || settings.bench) {
    options.progress = [begin = Clock::now()](const std::string& text) {
      const std::chrono::duration<double> seconds = Clock::now() - begin;
      fmt::print(stderr, "{:6.1f} s  {}\n", seconds.count(), text);
    };
  }
  std::unique_ptr<Device> device;
  if (settings.device == "cuda") {
    const DeviceLimits limits{settings.smem_limit.value, static_cast<int32_t>(settings.max_sms)};
    SC_ASSIGN_OR_RETURN(device, OpenDevice(0, limits));
    options.device = device.get();
  }
  SC_ASSIGN_OR_RETURN(const CheckReport report, RunChecks(options));
  std::fputs(report.Describe().c_str(), stdout);
  if (report.failures() == 0) return OkStatus();
  return Internal(fmt::format("{} checks failed", report.failures()));
}

}  // namespace

void AddCheck(CLI::App& app, Status& status) {
  AddCommand(app, kCheck, "check", "Check (and time) the kernels on this machine", status, Check);
}

}  // namespace seacliff
