// seacliff show: prints the tables that the program is made from.
#include <cmath>
#include <cstdio>

#include "base/pages.h"
#include "cache/storages.h"
#include "checkpoint/catalogue.h"
#include "config/model_config.h"
#include "kernels/machine.h"
#include "kernels/table.h"
#include "model/memory_report.h"
#include "model/rehearsal.h"
#include "parallel/device_group.h"
#include "serve/server.h"
#include "text/specials.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {

namespace {

Result<ModelConfig> ConfigOf(const Settings& settings) {
  return settings.config_file.empty() ? LoadModelConfig(settings.model)
                                      : LoadModelConfigFile(settings.config_file);
}

bool HasConfig(const Settings& settings) {
  return !settings.config_file.empty() || !settings.model.empty();
}

Result<std::string> Kernels(const Settings& settings) {
  SC_ASSIGN_OR_RETURN(const Rows rows, Rows::Parse(settings.kernels));
  const Machine machine = InspectMachine();
  if (settings.device == "cuda" && machine.gpus.empty()) {
    return NotFound("show kernels: no usable GPU: " + machine.no_gpu);
  }
  std::fputs(DescribeMachine(machine).c_str(), stderr);  // stdout is the table alone
  const bool gpu = settings.device != "cpu" && !machine.gpus.empty();
  std::string text = DescribeKernels(rows, gpu ? &machine.gpus[0] : nullptr);
  if (gpu && machine.gpus.size() > 1) {
    text += "\n" + DescribeCollectives(rows, machine.gpus, settings.nccl_library);
  }
  if (HasConfig(settings)) {
    SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(settings));
    SC_ASSIGN_OR_RETURN(const std::string taken,
                        DescribeRowsTaken(config, rows, gpu ? &machine.gpus[0] : nullptr));
    text += "\n" + taken;
  }
  return text;
}

Result<std::string> Tensors(const Settings& settings) {
  if (!HasConfig(settings)) return InvalidArgument("show tensors: needs --config or --model");
  SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(settings));
  return DescribeTensors(config);
}

Result<std::string> Cache(const Settings& settings) {
  if (!HasConfig(settings)) return DescribeStorages(nullptr);
  SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(settings));
  return DescribeStorages(&config);
}

// The plan is for a GPU (of this machine, or one with --device-memory) or for the host.
Result<std::string> Memory(const Settings& settings) {
  if (!HasConfig(settings)) return InvalidArgument("show memory: needs --config or --model");
  MemoryRequest request;
  SC_ASSIGN_OR_RETURN(request.config, ConfigOf(settings));
  request.ranks = settings.tensor_parallel_size;
  request.utilization = std::llround(settings.gpu_memory_utilization * 1000);
  request.device_memory = settings.device_memory.value;
  request.limits.max_num_seqs = settings.max_num_seqs;
  request.limits.max_num_batched_tokens = settings.max_num_batched_tokens;
  request.limits.max_model_len = settings.max_model_len;
  request.limits.prefix_caching = !settings.no_prefix_caching;
  request.limits.kv_cache_memory = settings.kv_cache_memory.value;

  std::string device = "a GPU";
  if (settings.device == "cpu") {
    request.gpu = false;
  } else if (request.device_memory == 0) {
    const Machine machine = InspectMachine();
    request.gpu = !machine.gpus.empty();
    if (request.gpu) {
      device = machine.gpus[0].name;
      request.device_memory = machine.gpus[0].memory;
    } else if (settings.device == "cuda") {
      return NotFound("show memory: no usable GPU: " + machine.no_gpu +
                      "; --device-memory plans for another machine");
    }
  }
  if (!request.gpu) {
    if (request.ranks > 1) {
      return InvalidArgument(
          "--tensor-parallel-size: is for GPUs; add --device-memory, or --device cuda");
    }
    device = "the host";
    if (request.device_memory == 0) request.device_memory = HostMemory();
  }
  SC_ASSIGN_OR_RETURN(const MemoryPlan plan, PlanMemory(request));
  return DescribeMemory(device, request, plan);
}

Result<std::string> SettingRows(const Settings&) { return DescribeSettings(); }

Result<std::string> Routes(const Settings&) { return serve::DescribeRoutes(); }

Result<std::string> Specials(const Settings& settings) {
  if (settings.model.empty()) return InvalidArgument("show specials: needs --model");
  SC_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(settings.model));
  return PrintSpecials(tokenizer);
}

struct Table {
  const char* name;
  Result<std::string> (*print)(const Settings&);
};
constexpr Table kTables[] = {
    {"kernels", Kernels},      {"tensors", Tensors}, {"cache", Cache},       {"memory", Memory},
    {"settings", SettingRows}, {"routes", Routes},   {"specials", Specials},
};

Status Show(const Settings& settings) {
  for (const Table& table : kTables) {
    if (settings.table != table.name) continue;
    SC_ASSIGN_OR_RETURN(const std::string text, table.print(settings));
    std::fputs(text.c_str(), stdout);
    return OkStatus();
  }
  return InvalidArgument("show: no such table");
}

}  // namespace

void AddShow(CLI::App& app, Status& status) {
  AddCommand(app, kShow, "show", "Print a table: kernels, tensors, cache, settings, ...", status,
             Show);
}

}  // namespace seacliff
