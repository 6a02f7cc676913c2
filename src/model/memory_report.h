// A memory plan for a person: the table of `seacliff show memory`, the lines of the log before a
// model is loaded, and what is said instead of loading one that does not fit.
#pragma once

#include <string>

#include "model/memory_plan.h"

namespace seacliff {

// `device` names what the plan is for, as "NVIDIA H200".
std::string DescribeMemory(const std::string& device, const MemoryRequest& request,
                           const MemoryPlan& plan);

// One line, for the log.
std::string SummarizeMemory(const std::string& device, const MemoryPlan& plan);

// One line: what the cache holds.
std::string SummarizeCache(const MemoryPlan& plan);

// kExhausted if the plan does not fit, with what would make it fit. One line.
Status CheckFits(const std::string& device, const MemoryRequest& request, const MemoryPlan& plan);

// Plans for the machine that a model runs on with this --device, as Model::Load chooses it: sets
// `gpu` and `device_memory`, that of the smallest of the ranks' GPUs. On a GPU the plan is logged,
// and kExhausted if it does not fit or if others hold the memory. On the CPU a model may be larger
// than the memory: the system pages.
Result<MemoryPlan> PlanLoading(const std::string& device, MemoryRequest request);

}  // namespace seacliff
