// cuda row of sample: what the rows bring from the host goes up with one copy, a few kernels take
// all rows, the results come back with one copy, and the host waits once. Greedy rows take one
// kernel.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"
#include "base/random.h"
#include "kernels/sample/rows.cuh"
#include "kernels/sample/select.cuh"
#include "kernels/sample/steps.h"

namespace seacliff::sample {
namespace {

// A row, with the two jobs that it may have.
static_assert(sizeof(DeviceRow) + 2 * sizeof(Job) <= kCudaRowBytes);
static_assert(kBins == kCudaBins && kSlice == kCudaSlice && sizeof(Share) == 16);
static_assert(sizeof(Listed) == 8 && sizeof(Bias) == 8 && sizeof(TokenCount) == 8);

// How many of the best logits are listed.
int32_t TopSize(const SampleRow& row) {
  return std::min(std::max(row.top_logprobs, 0), static_cast<int32_t>(row.logits.size()));
}

// Memory that the host and the device have alike, at different addresses, and what is the device's
// alone. Copied: the best logits (to the host), rows and jobs (both ways), lists (to the device).
struct Memory {
  int64_t vocab = 0;  // of the longest row
  int32_t slices = 0;
  std::byte *here = nullptr, *there = nullptr;
  // On the host.
  Listed* tops = nullptr;
  DeviceRow* rows = nullptr;
  Job* jobs = nullptr;
  std::byte *results_end = nullptr, *lists_end = nullptr;
  // On the device.
  Sum* histograms = nullptr;
  Share* shares = nullptr;
  float* adjusted = nullptr;  // [rows, vocab]

  Memory(Device& device, std::span<const SampleRow> given) {
    int64_t listed = 0, lists = 0;
    for (const SampleRow& row : given) {
      listed += TopSize(row);
      lists += static_cast<int64_t>(row.counts.size() + row.bias.size() + row.banned.size());
      vocab = std::max(vocab, static_cast<int64_t>(row.logits.size()));
    }
    const auto count = static_cast<int64_t>(given.size());
    slices = static_cast<int32_t>(cuda::CeilDiv(vocab, kSlice));
    const int64_t copied = 8 * CudaEntries(listed + lists) + count * kCudaRowBytes;
    here = static_cast<std::byte*>(device.Pinned(copied));
    there = static_cast<std::byte*>(device.Workspace(CudaWorkspace(count, vocab, listed + lists)));
    tops = reinterpret_cast<Listed*>(here);
    rows = reinterpret_cast<DeviceRow*>(tops + listed);
    jobs = reinterpret_cast<Job*>(rows + count);
    results_end = lists_end = reinterpret_cast<std::byte*>(jobs + 2 * count);
    histograms = reinterpret_cast<Sum*>(there + copied);
    shares = reinterpret_cast<Share*>(histograms + 2 * count * kBins);
    adjusted = reinterpret_cast<float*>(shares + 2 * count * slices);
  }

  // The same place on the device.
  template <typename T>
  T* There(T* place) const {
    return reinterpret_cast<T*>(there + (reinterpret_cast<const std::byte*>(place) - here));
  }
  // Room for a list, which must be filled; what the device is told of it.
  template <typename T>
  T* AddList(size_t size, List<T>& list) {
    auto* place = reinterpret_cast<T*>(lists_end);
    lists_end += (size * sizeof(T) + 7) / 8 * 8;
    list = {There(place), static_cast<int32_t>(size)};
    return place;
  }

  void Upload(Device& device) const {
    const auto* from = reinterpret_cast<const std::byte*>(rows);
    device.UploadLater(There(reinterpret_cast<std::byte*>(rows)), from, lists_end - from);
  }
  void Download(Device& device) const { device.DownloadLater(here, there, results_end - here); }
};

void FillLists(const SampleRow& from, Memory& memory, DeviceRow& row) {
  if (HasPenalty(from)) {
    std::copy(from.counts.begin(), from.counts.end(),
              memory.AddList(from.counts.size(), row.counts));
  }
  Bias* bias = memory.AddList(from.bias.size(), row.bias);
  bool sorted = true;
  for (size_t i = 0; i < from.bias.size(); ++i) {
    bias[i] = {from.bias[i].first, from.bias[i].second};
    sorted = sorted && (i == 0 || bias[i - 1].id <= bias[i].id);
  }
  if (!sorted) {
    std::stable_sort(bias, bias + from.bias.size(),
                     [](const Bias& a, const Bias& b) { return a.id < b.id; });
  }
  std::copy(from.banned.begin(), from.banned.end(), memory.AddList(from.banned.size(), row.banned));
}

Job JobOf(const SampleRow& from, bool draws, int64_t row, const Memory& memory) {
  DeviceRow& here = memory.rows[row];
  const DeviceRow* there = memory.There(&here);
  const int32_t vocab = here.vocab;
  // A sum of as many weights has 62 bits at most.
  const int bits = 62 - std::bit_width(static_cast<uint32_t>(vocab));
  const int32_t most = draws ? from.top_k : TopSize(from);
  Job job = {};
  job.logits = draws && here.adjusts ? here.adjusted : here.logits;
  job.best = draws ? &there->best : &there->raw_best;
  job.vocab = vocab;
  job.draws = draws;
  const double scale = std::numbers::log2e / (draws ? static_cast<double>(from.temperature) : 1);
  // 0 must stay 0 for the smallest of temperatures.
  job.scale = static_cast<float>(std::min(scale, double{std::numeric_limits<float>::max()}));
  job.min_p = draws ? from.min_p : 0;
  job.unit = std::ldexp(1.0f, bits);
  job.keep = most > 0 && most < vocab ? most : 0;
  job.top_p = draws ? static_cast<double>(from.top_p) : 1;
  // The largest weight is 1, which the sum is not below.
  job.least = static_cast<Sum>(std::ldexp(0.5 * (1 - job.top_p), bits) / vocab);
  job.u = draws ? RandomUniform(from.seed, from.index, Draw::kToken) : 0;
  job.row = there;
  return job;
}

// What the kernels must do.
struct Work {
  int32_t jobs = 0, searches = 0;
  bool logprobs = false;
};

Work Fill(std::span<const SampleRow> rows, Memory& memory) {
  Work work;
  Listed* top = memory.tops;
  const auto add = [&](Job job) {
    const int32_t searches = (job.keep > 0 ? 1 : 0) + (job.top_p < 1 ? 1 : 0);
    work.searches = std::max(work.searches, searches);
    memory.jobs[work.jobs++] = job;
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& from = rows[i];
    const auto at = static_cast<int64_t>(i);
    CheckSizes(from);
    DeviceRow row = {};
    row.logits = from.logits.data();
    row.vocab = static_cast<int32_t>(from.logits.size());
    row.adjusts = Adjusts(from);
    row.allowed = from.allowed.empty() ? nullptr : from.allowed.data();
    if (row.adjusts && from.temperature > 0) row.adjusted = memory.adjusted + at * memory.vocab;
    row.repetition = from.repetition_penalty;
    row.presence = from.presence_penalty;
    row.frequency = from.frequency_penalty;
    FillLists(from, memory, row);
    memory.rows[i] = row;

    if (from.temperature > 0) add(JobOf(from, true, at, memory));
    if (from.top_logprobs < 0) continue;
    Job job = JobOf(from, false, at, memory);
    if (from.temperature > 0) job.draw = memory.There(&memory.jobs[work.jobs - 1]);
    job.top = memory.There(top);
    job.top_size = TopSize(from);
    top += job.top_size;
    add(job);
    work.logprobs = true;
  }
  return work;
}

void Run(Context& k, int64_t rows, const Work& work, const Memory& memory) {
  const dim3 block(kThreads);
  // Blocks for each row or job: what a block costs by itself is shared by several chunks where
  // there are many.
  const int64_t chunks = cuda::CeilDiv(memory.vocab, kChunk);
  const auto grid = [&](int64_t count) {
    const int64_t each = cuda::CeilDiv(3 * cuda::Multiprocessors(k), std::max<int64_t>(count, 1));
    return dim3(static_cast<uint32_t>(count), static_cast<uint32_t>(std::min(each, chunks)));
  };
  const int64_t bins = work.searches > 0 ? int64_t{work.jobs} * kBins : 0;
  cuda::Launch(k, "sample", Scan, grid(rows), block, 0, memory.There(memory.rows),
               memory.histograms, bins);
  Job* jobs = memory.There(memory.jobs);
  for (int search = 0; search < work.searches; ++search) {
    for (int level = 0; level < kLevels; ++level) {
      cuda::LaunchOverlapped(k, "sample", Search, grid(work.jobs), block, 0, jobs,
                             memory.histograms, search, level);
    }
  }
  cuda::LaunchOverlapped(k, "sample", Choose, grid(work.jobs), block, 0, jobs, memory.shares,
                         memory.slices);
  if (!work.logprobs) return;
  const dim3 all(static_cast<uint32_t>(work.jobs), static_cast<uint32_t>(chunks));
  cuda::LaunchOverlapped(k, "sample", Collect, all, block, 0, jobs, memory.shares, memory.slices);
}

// `jobs`: the next ones of this row and of those behind it. What is wrong with the row.
Status Finish(const SampleRow& to, const DeviceRow& row, const Job*& jobs, const Listed*& tops) {
  const Job* draw = to.temperature > 0 ? jobs++ : nullptr;
  const Job* logprobs = to.top_logprobs >= 0 ? jobs++ : nullptr;
  const std::span<const Listed> top(tops, static_cast<size_t>(TopSize(to)));
  tops += top.size();
  Token& token = *to.token;
  token.top.clear();
  token.logprob = 0;
  if (!Usable(row.raw_best)) return UnusableLogits();
  if (!Usable(row.best)) return NothingToChoose();
  token.id = draw != nullptr ? draw->id : IdOfBest(row.best);
  if (logprobs == nullptr) return OkStatus();

  std::vector<Candidate>& best = to.scratch->candidates;
  best.clear();
  for (const Listed& one : top) best.push_back({one.logit, one.id});
  std::sort(best.begin(), best.end(), Better);
  const double unit = static_cast<double>(logprobs->unit);
  FillLogprobs(std::bit_cast<float>(BitsOfKey(KeyOfBest(row.raw_best))),
               static_cast<double>(logprobs->sum) / unit, logprobs->logit, best, token);
  return OkStatus();
}

}  // namespace

void Cuda(Context& k, const SampleArgs& a) {
  if (a.rows.empty()) return;
  const auto rows = static_cast<int64_t>(a.rows.size());
  Device& device = *k.device();
  Memory memory(device, a.rows);
  const Status before = device.TakeError();  // no memory, or an op's that came before
  if (!before.ok()) return k.Fail(before);
  const Work work = Fill(a.rows, memory);
  memory.Upload(device);
  Run(k, rows, work, memory);
  memory.Download(device);
  const Status status = device.Synchronize();
  if (!status.ok()) k.Fail(status);
  if (!k.ok()) return;

  const Job* jobs = memory.jobs;
  const Listed* tops = memory.tops;
  for (int64_t i = 0; i < rows; ++i) {
    SampleRow& row = a.rows[static_cast<size_t>(i)];
    row.error = Finish(row, memory.rows[i], jobs, tops);
  }
}

}  // namespace seacliff::sample
