// The words and figures of a memory plan.
#include "model/memory_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/pages.h"
#include "cache/storages.h"
#include "kernels/device.h"

namespace seacliff {
namespace {

constexpr const char* kWeightNames[kWeightKinds] = {"experts", "attention", "shared experts",
                                                    "embedding and head", "other"};
constexpr int64_t kMebi = int64_t{1} << 20, kGibi = int64_t{1} << 30;

// "12.34 GiB".
std::string Size(int64_t bytes) {
  const bool large = bytes >= kGibi || bytes <= -kGibi;
  return fmt::format("{:.2f} {}",
                     static_cast<double>(bytes) / static_cast<double>(large ? kGibi : kMebi),
                     large ? "GiB" : "MiB");
}

// 1234567 -> "1,234,567".
std::string Grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

std::string Line(const std::string& what, int64_t bytes, const std::string& how = "") {
  std::string line = fmt::format("{:<22}{:>18}{:>14}  {}", what, Grouped(bytes), Size(bytes), how);
  line.resize(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

// "4,096 B a token" for what grows, with the part of a byte that ratios make.
std::string PerToken(int64_t page_bytes) {
  const int64_t hundredths = page_bytes * 100 / kPageTokens;
  if (hundredths % 100 == 0) return fmt::format("{} B a token", Grouped(hundredths / 100));
  return fmt::format("{}.{:02} B a token", Grouped(hundredths / 100), hundredths % 100);
}

// The cache, storage by storage; the lines add up to its bytes.
std::string CacheLines(const MemoryRequest& request, const MemoryPlan& plan) {
  std::string text;
  for (const Storage& storage : kStorages) {
    const int64_t layers = StorageLayers(storage, request.config);
    if (layers == 0) continue;
    const int64_t unit = layers * EntriesPerUnit(storage) *
                         StorageEntryBytes(storage, request.config, request.exact);
    const CacheSize& size = plan.cache.size;
    int64_t units = size.slots, snapshots = 0;
    std::string how;
    switch (storage.pool) {
      case CachePool::kWindow:
        units = size.window_pages;
        how = fmt::format("{} pages of {} B", Grouped(units), Grouped(unit));
        break;
      case CachePool::kCompressed:
        units = size.compressed_pages;
        how = PerToken(unit);
        break;
      case CachePool::kSlot:
        how = fmt::format("{} sequences of {} B", Grouped(units), Grouped(unit));
        if (const int64_t entries = EntriesPerSnapshot(storage); entries > 0) {
          const int64_t each = unit / EntriesPerUnit(storage) * entries;
          snapshots = size.snapshots * each;
          how += fmt::format(", {} snapshots of {} B", Grouped(size.snapshots), Grouped(each));
        }
        break;
    }
    const int64_t bytes = (units + plan.spare) * unit + snapshots;
    text += Line(fmt::format("  {}", storage.name), bytes, how);
  }
  return text;
}

// "8 K", "1 M".
std::string Tokens(int64_t tokens) {
  if (tokens % kMebi == 0) return fmt::format("{} M", tokens / kMebi);
  return tokens % 8192 == 0 ? fmt::format("{} K", tokens / 1024) : Grouped(tokens);
}

// "1,524 sequences of 8 K, 95 of 128 K, 11 of 1 M (the longest)".
std::string SequencesThatFit(const MemoryPlan& plan) {
  const int64_t longest = plan.cache.max_model_len;
  std::string text;
  const auto add = [&](int64_t length) {
    text += fmt::format("{}{}of {}", Grouped(plan.SequencesOf(length)),
                        text.empty() ? " sequences " : " ", Tokens(length));
  };
  for (const int64_t length : {int64_t{8} << 10, int64_t{128} << 10, kMebi}) {
    if (length >= longest) break;
    add(length);
    text += ", ";
  }
  add(longest);
  return text + " (the longest)";
}

double Utilization(const MemoryRequest& request) {
  return static_cast<double>(request.utilization) / 1000;
}

// What is said of a plan that does not fit: how much is missing, and what may be done.
std::string Advice(const MemoryRequest& request, const MemoryPlan& plan, const char* separator) {
  const std::string why =
      request.gpu && request.utilization != 1000
          ? fmt::format("--gpu-memory-utilization {} allows", Utilization(request))
          : "there are";
  std::string text = fmt::format("does not fit: {} are needed, and {} {}", Size(plan.bytes()), why,
                                 Size(plan.allowed));
  if (const std::vector<Remedy> remedies = RemediesFor(request); !remedies.empty()) {
    text += remedies.size() == 1 ? "; it fits with" : "; it fits with any one of";
    for (const Remedy& remedy : remedies) {
      text += fmt::format("{}{}",
                          &remedy == remedies.data() ? separator : fmt::format(",{}", separator),
                          remedy.flags);
    }
    return text;
  }
  if (plan.weight_bytes() > plan.allowed) {
    text += fmt::format("; the weights alone need {}", Size(plan.weight_bytes()));
  } else if (request.pages) {
    text += "; fewer or shorter sequences need less";
  } else {
    text += "; fewer and shorter sequences are not enough";
  }
  if (!request.gpu) return text;
  const int64_t ranks = RanksThatFit(request);
  if (ranks == 0) return text + "; GPUs of this size do not hold it, however many";
  return text + fmt::format(
                    "; {} GPUs of this size would hold the model "
                    "(--tensor-parallel-size {})",
                    ranks, ranks);
}

}  // namespace

std::string DescribeMemory(const std::string& device, const MemoryRequest& request,
                           const MemoryPlan& plan) {
  const CacheLimits& limits = request.limits;
  std::string text = fmt::format("{} with {}", device, Size(request.device_memory));
  if (request.ranks > 1) text += fmt::format(", one of {}", request.ranks);
  text += "\n\n";

  text += Line("weights", plan.weight_bytes(),
               request.gpu || request.exact ? "as they are stored" : "packed");
  for (size_t i = 0; i < kWeightKinds; ++i) {
    text += Line(fmt::format("  {}", kWeightNames[i]), plan.weights[i]);
  }
  text += Line("a step", plan.step_bytes(),
               fmt::format("of {} tokens (--max-num-batched-tokens)",
                           Grouped(limits.max_num_batched_tokens)));
  text += Line("  activations", plan.activations);
  text += Line("  logits", plan.logits,
               fmt::format("of {} sequences, with masks", Grouped(plan.logit_rows)));
  if (request.gpu) {
    text += Line("  page tables", plan.numbers, "and the step's other numbers");
    text += Line("  workspace", plan.workspace, fmt::format("of {}", plan.workspace_op));
  }
  text += Line("cache", plan.cache.bytes, PerToken(plan.unit.compressed_page));
  text += CacheLines(request, plan);
  text += Line("sum", plan.bytes());
  text += Line("may be used", plan.allowed,
               request.gpu ? fmt::format("--gpu-memory-utilization {}", Utilization(request)) : "");

  text += fmt::format("\n{}\n", SummarizeCache(plan));
  if (plan.fits()) {
    return text + fmt::format("fits: {} stay free\n", Size(request.device_memory - plan.bytes()));
  }
  return text + Advice(request, plan, "\n  ") + "\n";
}

std::string SummarizeMemory(const std::string& device, const MemoryPlan& plan) {
  return fmt::format("memory of {}: weights {}, a step {}, cache {}; {} of {} that may be used",
                     device, Size(plan.weight_bytes()), Size(plan.step_bytes()),
                     Size(plan.cache.bytes), Size(plan.bytes()), Size(plan.allowed));
}

std::string SummarizeCache(const MemoryPlan& plan) {
  return fmt::format(
      "cache: {}, {} tokens: {}; at most {} at once; {} prefixes to start from",
      Size(plan.cache.bytes), Grouped(int64_t{plan.cache.size.compressed_pages} * kPageTokens),
      SequencesThatFit(plan), Grouped(plan.cache.size.slots), Grouped(plan.cache.size.snapshots));
}

Status CheckFits(const std::string& device, const MemoryRequest& request, const MemoryPlan& plan) {
  if (plan.fits()) return OkStatus();
  return Exhausted(fmt::format("{}: weights {}, a step of {} tokens {}, cache {}: {}", device,
                               Size(plan.weight_bytes()), request.limits.max_num_batched_tokens,
                               Size(plan.step_bytes()), Size(plan.cache.bytes),
                               Advice(request, plan, " ")));
}

Result<MemoryPlan> PlanLoading(const std::string& device, MemoryRequest request) {
  std::vector<std::unique_ptr<Device>> gpus;
  const int64_t needed = request.echo ? 1 : request.ranks;
  for (int64_t i = 0; device != "cpu" && !request.exact && i < needed; ++i) {
    auto gpu = OpenDevice(static_cast<int32_t>(i), {});
    if (!gpu.ok()) break;
    gpus.push_back(std::move(gpu).value());
  }
  request.gpu = !gpus.empty();
  if (!request.gpu) {
    // Where a GPU is asked for, Model::Load tells why there is none. What ranks of the host hold
    // together is little more than one would.
    request.ranks = 1;
    request.device_memory = HostMemory();
    return PlanMemory(request);
  }
  if (static_cast<int64_t>(gpus.size()) < needed) {
    return InvalidArgument(
        fmt::format("tensor_parallel_size {}: there are {} GPUs", request.ranks, gpus.size()));
  }
  request.device_memory = gpus[0]->gpu().memory;
  for (const auto& gpu : gpus) {
    request.device_memory = std::min(request.device_memory, gpu->gpu().memory);
  }
  SC_ASSIGN_OR_RETURN(MemoryPlan plan, PlanMemory(request));
  const std::string& name = gpus[0]->gpu().name;
  SC_LOG_INFO("{}", SummarizeMemory(name, plan));
  SC_RETURN_IF_ERROR(CheckFits(name, request, plan));
  for (size_t i = 0; i < gpus.size(); ++i) {
    const int64_t free = gpus[i]->FreeBytes();
    if (plan.bytes() <= free) continue;
    return Exhausted(fmt::format(
        "{}{}: {} are needed and {} are free, of {}: the rest is held by the driver and other "
        "programs{}",
        name, gpus.size() == 1 ? "" : fmt::format(" {}", i), Size(plan.bytes()), Size(free),
        Size(request.device_memory), request.pages ? "" : "; lower --gpu-memory-utilization"));
  }
  return plan;
}

}  // namespace seacliff
