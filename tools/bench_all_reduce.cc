// Each message's all-reduces run back to back in one graph on every rank, as in a step.
#include "tools/bench_all_reduce.h"

#include <fmt/format.h>

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "base/file_map.h"
#include "kernels/common/device_timer.h"
#include "kernels/context.h"
#include "kernels/machine.h"
#include "kernels/shared_device.h"
#include "parallel/device_group.h"
#include "serve/json_writer.h"
#include "tools/cmd_common.h"

namespace seacliff {
namespace {

constexpr int64_t kMessages[] = {8 << 10, 64 << 10, 256 << 10, 8 << 20, 64 << 20};
constexpr int64_t kCalls = 100;                    // of a graph
constexpr int64_t kGraphBytes = int64_t{1} << 30;  // but no more than these
constexpr size_t kReplays = 11;

struct Rank {
  Device* device = nullptr;
  std::unique_ptr<Context> context;
  std::unique_ptr<Communicator> communicator;
  Buffer memory;
};

// Any communicator may hold memory of all devices, which therefore go last.
struct Ranks {
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Rank> all;
};

struct Line {
  int64_t bytes;
  std::string row;
  double microseconds;  // median, of one call
};

Result<Ranks> OpenRanks(int64_t size, const std::string& nccl_library) {
  const Machine machine = InspectMachine();
  if (machine.gpus.empty()) return NotFound("bench all-reduce: no usable GPU: " + machine.no_gpu);
  Ranks ranks;
  std::vector<Device*> devices;
  const auto gpus = static_cast<int64_t>(machine.gpus.size());
  const auto sharers = static_cast<int32_t>((size + gpus - 1) / gpus);  // of one GPU
  for (int64_t r = 0; r < size; ++r) {
    const int32_t index = machine.gpus[static_cast<size_t>(r % gpus)].index;
    SC_ASSIGN_OR_RETURN(auto device,
                        sharers > 1 ? OpenSharedDevice(index, sharers) : OpenDevice(index, {}));
    devices.push_back(device.get());
    ranks.devices.push_back(std::move(device));
  }
  SC_ASSIGN_OR_RETURN(auto group, MakeDeviceGroup(devices, {.nccl_library = nccl_library}));
  for (size_t r = 0; r < devices.size(); ++r) {
    Rank& rank = ranks.all.emplace_back();
    rank.device = devices[r];
    rank.communicator = std::move(group[r]);
    rank.context = std::make_unique<Context>(1);
    rank.context->set_device(devices[r]);
    rank.memory = devices[r]->Allocate(*std::max_element(kMessages, std::end(kMessages)));
    SC_RETURN_IF_ERROR(devices[r]->Synchronize());
  }
  return ranks;
}

// Microseconds of one call; an error if the row cannot run here.
Result<double> Measure(std::vector<Rank>& ranks, int64_t bytes) {
  const int64_t calls = std::clamp<int64_t>(kGraphBytes / bytes, 8, kCalls);
  const auto all_reduce = [&](Rank& rank) {
    rank.communicator->AllReduce(*rank.context,
                                 Act<2>(rank.memory.data(), DType::kBf16, {1, bytes / 2}));
  };
  std::vector<std::unique_ptr<DeviceGraph>> graphs;
  for (Rank& rank : ranks) {
    graphs.push_back(rank.device->Record([&] {
      for (int64_t i = 0; i < calls; ++i) all_reduce(rank);
    }));
    SC_RETURN_IF_ERROR(rank.context->TakeError());
    SC_RETURN_IF_ERROR(rank.device->TakeError());
  }
  std::vector<double> slowest(kReplays);
  std::vector<double> times(ranks.size());
  std::barrier meet(static_cast<std::ptrdiff_t>(ranks.size()));
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      Device& device = *ranks[r].device;
      for (double& replay : slowest) {
        meet.arrive_and_wait();
        device.Run(*graphs[r]);  // after it the ranks start together
        times[r] = device.Time([&] { device.Run(*graphs[r]); });
        meet.arrive_and_wait();
        if (r == 0) replay = *std::max_element(times.begin(), times.end());
        meet.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Rank& rank : ranks) {
    SC_RETURN_IF_ERROR(rank.device->Synchronize());
    SC_RETURN_IF_ERROR(rank.communicator->error());
  }
  return Median(slowest) / static_cast<double>(calls);
}

}  // namespace

Status BenchAllReduce(const Settings& s) {
  if (s.tensor_parallel_size < 2) {
    return InvalidArgument("bench all-reduce: needs --tensor-parallel-size 2 or more");
  }
  SC_ASSIGN_OR_RETURN(Ranks opened, OpenRanks(s.tensor_parallel_size, s.nccl_library));
  std::vector<Rank>& ranks = opened.all;
  const auto size = static_cast<int64_t>(ranks.size());
  Device& first = *ranks[0].device;
  Device& second = *ranks[1].device;
  const bool shared = first.gpu().index == second.gpu().index;
  SC_ASSIGN_OR_RETURN(const double link, MeasureLink(first, second));
  fmt::print("{} ranks{}, {}: {:.1f} GB/s one way from rank 0 to rank 1\n\n", size,
             shared ? " that share a GPU" : "", first.gpu().name, link);
  fmt::print("{:>10} {:<9} {:>10} {:>9} {:>8}\n", "bytes", "row", "us", "GB/s", "of link");

  std::vector<Line> lines;
  for (const int64_t bytes : kMessages) {
    for (const RowInfo& row : AllReduceRows()) {
      SC_ASSIGN_OR_RETURN(const Rows rows, Rows::Parse(fmt::format("all_reduce={}", row.row)));
      for (Rank& rank : ranks) rank.context->rows() = rows;
      const auto microseconds = Measure(ranks, bytes);
      if (microseconds.status().code() == Code::kInvalidArgument) continue;  // a row less
      SC_RETURN_IF_ERROR(microseconds.status());
      lines.push_back({bytes, row.row, microseconds.value()});
      // What each rank at least sends and gets, as NCCL's tests count it.
      const double gbps = 2e-3 * static_cast<double>(bytes * (size - 1)) /
                          static_cast<double>(size) / microseconds.value();
      fmt::print("{:>10} {:<9} {:>10.2f} {:>9.1f} {:>6.1f} %\n", bytes, row.row,
                 microseconds.value(), gbps, 100 * gbps / link);
      std::fflush(stdout);
    }
  }
  if (s.output_json.empty()) return OkStatus();
  std::vector<std::string> json_lines;
  for (const Line& line : lines) {
    serve::JsonWriter json;
    json.BeginObject()
        .Field("bench", s.benchmark)
        .Field("ranks", size)
        .Field("shared_gpu", shared)
        .Field("bytes", line.bytes)
        .Field("row", line.row)
        .Field("us", line.microseconds)
        .Field("link_gbps", link)
        .Field("machine", MachineName(s))
        .Field("version", SEACLIFF_VERSION)
        .Field("command", fmt::format("seacliff bench all-reduce --tensor-parallel-size {}", size))
        .EndObject();
    json_lines.push_back(json.Take());
  }
  return AppendLines(s.output_json, json_lines);
}

}  // namespace seacliff
