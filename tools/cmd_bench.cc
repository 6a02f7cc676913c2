// seacliff bench: the speed of a whole model on this machine, beside what the machine can do.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/file_map.h"
#include "checkpoint/progress_bar.h"
#include "kernels/common/isa.h"
#include "kernels/common/machine_limits.h"
#include "kernels/machine.h"
#include "model/memory_report.h"
#include "serve/json_writer.h"
#include "tools/bench_all_reduce.h"
#include "tools/bench_engine.h"
#include "tools/bench_serve.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"
#include "tools/load_sweep.h"
#include "tools/steps.h"
#include "tools/throughput.h"

namespace seacliff {
namespace {

constexpr const char* kFooter =
    "Figures of a load (serve, or --max-concurrency), as vllm bench serve defines them:\n"
    "  TTFT  from sending a request to the first chunk of its reply\n"
    "  TPOT  (E2E - TTFT) / (output tokens - 1), of each request\n"
    "  ITL   from each chunk of a reply to the next, over all requests\n"
    "  E2E   from sending a request to the last chunk of its reply\n"
    "Requests that fail, or whose usage is not what was asked for, count in none of them.";

// The command line that runs the same again; it stands in result lines. Here as far as the model
// goes.
std::string CommandHead(const Settings& s) {
  std::string command = "seacliff bench " + s.benchmark;
  if (!s.model.empty()) command += " --model " + s.model;
  if (!s.config_file.empty()) command += " --config " + s.config_file;
  if (s.load_format != "auto") command += " --load-format " + s.load_format;
  if (!s.repack_cache.empty()) command += " --repack-cache " + s.repack_cache;
  if (s.numerics != "checkpoint") command += " --numerics " + s.numerics;
  if (s.output_projection != "bf16") command += " --output-projection " + s.output_projection;
  if (s.device != "auto") command += " --device " + s.device;
  if (!s.kernels.empty()) command += " --kernels " + s.kernels;
  if (s.smem_limit.value != 0) command += fmt::format(" --smem-limit {}", s.smem_limit.value);
  if (s.max_sms != 0) command += fmt::format(" --max-sms {}", s.max_sms);
  if (!s.isa.empty()) command += " --isa " + s.isa;
  if (s.threads != 0) command += fmt::format(" --threads {}", s.threads);
  if (s.tensor_parallel_size != 1) {
    command += fmt::format(" --tensor-parallel-size {}", s.tensor_parallel_size);
  }
  if (s.echo_ranks) command += " --echo-ranks";
  if (s.max_model_len != 0) command += fmt::format(" --max-model-len {}", s.max_model_len);
  return command + fmt::format(" --max-num-batched-tokens {}", s.max_num_batched_tokens);
}

std::string CommandOf(const Settings& s) {
  std::string command =
      CommandHead(s) + fmt::format(" --input-len {} --output-len {}", s.input_len, s.output_len);
  if (s.num_prompts != 0) command += fmt::format(" --num-prompts {}", s.num_prompts);
  if (!s.max_concurrency.empty()) command += " --max-concurrency " + s.max_concurrency;
  if (s.depth != 0) command += fmt::format(" --depth {}", s.depth);
  return command + fmt::format(" --warmup {} --repeat {} --seed {}", s.warmup, s.repeat, *s.seed);
}

Status CheckSettings(const Settings& s) {
  if (s.model.empty() == s.config_file.empty()) {
    return InvalidArgument("bench: give either --model or --config");
  }
  if (s.model.empty() && s.load_format != "dummy") {
    return InvalidArgument("--config: has no weights; add --load-format dummy");
  }
  if (s.input_len + s.output_len == 0) {
    return InvalidArgument("bench: --input-len and --output-len are both 0");
  }
  if (s.isa.empty()) return OkStatus();
  const Status limited = LimitIsa(s.isa);
  return limited.ok() ? limited : InvalidArgument("--isa: " + limited.message());
}

ThroughputOptions ThroughputOptionsOf(const Settings& s) {
  ThroughputOptions o;
  o.input_len = s.input_len;
  o.output_len = s.output_len;
  o.num_prompts = std::max<int64_t>(s.num_prompts, 1);
  o.depth = s.depth;
  o.max_num_batched_tokens = std::max(s.max_num_batched_tokens, o.num_prompts);
  o.warmup = s.warmup;
  o.repeat = s.repeat;
  o.seed = static_cast<uint64_t>(*s.seed);
  o.profile = s.profile;
  return o;
}

// A benchmark may use all that the device has.
MemoryRequest MemoryRequestOf(const ModelConfig& config, const ModelOptions& options,
                              const ThroughputOptions& o) {
  MemoryRequest request;
  request.config = config;
  request.ranks = options.tensor_parallel_size;
  request.echo = options.echo_ranks;
  request.exact = options.numerics == Numerics::kExact;
  request.utilization = 1000;
  request.limits.max_num_seqs = o.num_prompts;
  request.limits.max_num_batched_tokens = o.max_num_batched_tokens;
  request.limits.max_model_len = o.max_len();
  request.pages = {static_cast<int32_t>(options.window_pages),
                   static_cast<int32_t>(options.compressed_pages),
                   static_cast<int32_t>(options.slots)};
  return request;
}

// Null where this host follows another one, which has ended.
Result<std::unique_ptr<Model>> Load(const Settings& s, const ThroughputOptions& o) {
  ModelOptions options;
  options.dir = s.model;
  options.config_file = s.config_file;
  options.load_format = s.load_format;
  options.numerics = s.numerics == "exact" ? Numerics::kExact : Numerics::kCheckpoint;
  options.fp8_output_projection = s.output_projection == "fp8";
  options.repack_cache = s.repack_cache;
  options.device = s.device;
  options.device_limits = {s.smem_limit.value, static_cast<int32_t>(s.max_sms)};
  options.kernels = s.kernels;
  options.threads = static_cast<int32_t>(s.threads);
  SetRanks(s, options);
  options.seed = o.seed;
  options.max_tokens = o.max_num_batched_tokens;
  SC_ASSIGN_OR_RETURN(const ModelConfig config, s.config_file.empty()
                                                    ? LoadModelConfig(s.model)
                                                    : LoadModelConfigFile(s.config_file));
  if (o.max_len() > config.max_positions) {
    return InvalidArgument(fmt::format("bench: {} tokens are more than the model's {}", o.max_len(),
                                       config.max_positions));
  }
  DirectRunner::SizeCache(o.num_prompts, o.max_len(), options);
  SC_RETURN_IF_ERROR(PlanLoading(options.device, MemoryRequestOf(config, options, o)).status());
  if (options.node_rank == 0) return Model::Load(options, ShowProgress());
  SC_RETURN_IF_ERROR(Model::Follow(options, ShowProgress()));
  return std::unique_ptr<Model>();
}

// The machine may have been busy with something else at one of the two times.
MachineLimits Best(MachineLimits a, const MachineLimits& b) {
  a.read_gbps = std::max(a.read_gbps, b.read_gbps);
  a.f32_gflops = std::max(a.f32_gflops, b.f32_gflops);
  a.bf16_gflops = std::max(a.bf16_gflops, b.bf16_gflops);
  a.amx_gflops = std::max(a.amx_gflops, b.amx_gflops);
  a.loop_us = std::min(a.loop_us, b.loop_us);
  return a;
}

// Of the GPU that the model will run on, before it takes the memory; nothing if it is to be the
// CPU.
Result<MachineLimits> DeviceLimitsOf(const Settings& s) {
  if (s.device == "cpu" || (s.device == "auto" && s.numerics == "exact")) return MachineLimits();
  const auto device = OpenDevice(0, {});
  if (!device.ok()) return MachineLimits();  // loading says why, if that is an error
  const MachineLimits limits = MeasureDeviceLimits(*device.value());
  SC_RETURN_IF_ERROR(device.value()->Synchronize());
  return limits;
}

struct Rates {
  double gbps, gflops, of_read, of_peak;
};
Rates RatesOf(const PhaseResult& phase, const MachineLimits& limits) {
  const double seconds = phase.median_seconds();
  const double gbps = static_cast<double>(phase.work.bytes) / seconds / 1e9;
  const double gflops = static_cast<double>(phase.work.flops) / seconds / 1e9;
  return {gbps, gflops, gbps / limits.read_gbps, gflops / limits.best_gflops()};
}

std::string Describe(const std::vector<PhaseResult>& phases, const MachineLimits& limits,
                     int64_t batch) {
  std::string text =
      fmt::format("{:<16} {:>5} {:>9} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8}\n", "test", "batch",
                  "tok/s", "ms/step", "MB/step", "GB/s", "of read", "GFLOP/s", "of peak");
  for (const PhaseResult& phase : phases) {
    const Rates r = RatesOf(phase, limits);
    const auto steps = static_cast<double>(phase.steps);
    text += fmt::format(
        "{:<16} {:>5} {:>9.1f} {:>10.3f} {:>9.1f} {:>8.2f} {:>6.1f} % {:>8.1f} {:>6.1f} %\n",
        phase.name, batch, phase.tokens_per_second(), phase.median_seconds() * 1e3 / steps,
        static_cast<double>(phase.work.bytes) / steps / 1e6, r.gbps, 100 * r.of_read, r.gflops,
        100 * r.of_peak);
  }
  for (const PhaseResult& phase : phases) {
    if (!phase.profile.empty()) text += fmt::format("\n{}\n{}", phase.name, phase.profile);
  }
  return text;
}

std::string JsonLine(const Settings& s, const PhaseResult& phase, const MachineLimits& limits,
                     const Machine& machine, Context& context) {
  const Rates r = RatesOf(phase, limits);
  const auto [least, most] = std::minmax_element(phase.seconds.begin(), phase.seconds.end());
  serve::JsonWriter json;
  json.BeginObject()
      .Field("bench", s.benchmark)
      .Field("test", phase.name)
      .Field("depth", phase.depth)
      .Field("batch", std::max<int64_t>(s.num_prompts, 1))
      .Field("tokens", phase.tokens)
      .Field("steps", phase.steps)
      .Field("repeat", static_cast<int64_t>(phase.seconds.size()))
      .Field("tok_per_s", phase.tokens_per_second())
      .Field("median_s", phase.median_seconds())
      .Field("min_s", *least)
      .Field("max_s", *most)
      .Field("bytes_per_step", phase.work.bytes / phase.steps)
      .Field("gbps", r.gbps)
      .Field("read_gbps", limits.read_gbps)
      .Field("of_read", r.of_read)
      .Field("flops_per_step", phase.work.flops / phase.steps)
      .Field("gflops", r.gflops)
      .Field("peak_gflops", limits.best_gflops())
      .Field("of_peak", r.of_peak)
      .Field("isa", machine.isa)
      .Field("threads", static_cast<int64_t>(context.pool().threads()))
      .Field("rows", RowsRun(context))
      .Field("model", s.model.empty() ? s.config_file : s.model)
      .Field("machine", s.machine.empty() ? machine.cpu : s.machine)
      .Field("version", SEACLIFF_VERSION)
      .Field("command", CommandOf(s))
      .EndObject();
  return json.Take();
}

std::string StepsLine(const Settings& s, const StepBudget& budget, int64_t depth, Model& model,
                      double read_gbps) {
  serve::JsonWriter json;
  json.BeginObject()
      .Field("bench", s.benchmark)
      .Field("batch", budget.batch)
      .Field("depth", depth)
      .Field("layers", model.config().layers)
      .Field("ranks", s.tensor_parallel_size)
      .Field("step_us", budget.microseconds)
      .Field("limit_us", budget.limit_us(read_gbps))
      .Field("bytes", budget.work.bytes)
      .Field("read_gbps", read_gbps)
      .Field("of_read", budget.limit_us(read_gbps) / budget.microseconds)
      .Field("experts", budget.experts)
      .Field("uniform_experts", budget.uniform_experts)
      .Field("rows", RowsRun(model.context()))
      .Field("machine", MachineName(s))
      .Field("version", SEACLIFF_VERSION)
      .Field("command", CommandOf(s))
      .EndObject();
  return json.Take();
}

Status BenchSteps(const Settings& s, const StepsOptions& o, Model& model,
                  const MachineLimits& limits) {
  SC_ASSIGN_OR_RETURN(const std::vector<StepBudget> budgets, MeasureSteps(model, o));
  fmt::print("{}: {}\n", MachineName(s), limits.Describe());
  std::vector<std::string> lines;
  for (const StepBudget& budget : budgets) {
    fmt::print("\na decode step of {} sequences with {} tokens each, {} layers\n\n{}", budget.batch,
               o.depth, model.config().layers, budget.Describe(limits.read_gbps));
    lines.push_back(StepsLine(s, budget, o.depth, model, limits.read_gbps));
  }
  return s.output_json.empty() ? OkStatus() : AppendLines(s.output_json, lines);
}

Result<StepsOptions> StepsOptionsOf(const Settings& s) {
  StepsOptions o;
  o.batches = {std::max<int64_t>(s.num_prompts, 1)};
  if (!s.max_concurrency.empty()) {
    SC_ASSIGN_OR_RETURN(o.batches, ParseConcurrencies(s.max_concurrency));
    if (std::find(o.batches.begin(), o.batches.end(), 0) != o.batches.end()) {
      return InvalidArgument("--max-concurrency: a step has at least one sequence");
    }
  }
  o.depth = s.depth;
  o.max_num_batched_tokens = s.max_num_batched_tokens;
  o.ranks = s.tensor_parallel_size;
  o.seed = static_cast<uint64_t>(*s.seed);
  o.timeline = s.profile;
  return o;
}

Status Bench(const Settings& settings) {
  const bool own_model = settings.benchmark == "steps" ||
                         (settings.benchmark == "throughput" && settings.max_concurrency.empty());
  if (!own_model && (settings.smem_limit.value != 0 || settings.max_sms != 0)) {
    return InvalidArgument(
        "--smem-limit, --max-sms: of bench steps and of bench throughput without "
        "--max-concurrency");
  }
  if (settings.benchmark == "serve") return BenchServe(settings);
  if (settings.benchmark == "all-reduce") return BenchAllReduce(settings);
  SC_RETURN_IF_ERROR(CheckSettings(settings));
  if (settings.benchmark == "throughput" && !settings.max_concurrency.empty()) {
    return BenchEngine(settings, CommandHead(settings));
  }
  ThroughputOptions options = ThroughputOptionsOf(settings);
  SC_ASSIGN_OR_RETURN(const StepsOptions steps, StepsOptionsOf(settings));
  if (settings.benchmark == "steps") {
    options.num_prompts = *std::max_element(steps.batches.begin(), steps.batches.end());
    options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, options.num_prompts);
  }
  SC_ASSIGN_OR_RETURN(MachineLimits limits, DeviceLimitsOf(settings));
  SC_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, Load(settings, options));
  if (model == nullptr) return OkStatus();
  Context& context = model->context();
  const Device* device = context.device();
  if (settings.benchmark == "steps") {
    if (device == nullptr) return InvalidArgument("bench steps: needs a GPU");
    return BenchSteps(settings, steps, *model, limits);
  }
  if (device == nullptr) limits = MeasureLimits(context.pool());
  Throughput throughput(*model, options);
  SC_ASSIGN_OR_RETURN(const std::vector<PhaseResult> phases, throughput.Run());
  if (device == nullptr) limits = Best(limits, MeasureLimits(context.pool()));

  Machine machine = InspectMachine();
  if (device != nullptr) {
    machine.cpu = device->gpu().name;
    machine.isa = fmt::format("sm_{}", device->gpu().sm);
    fmt::print("{}: {}\n", machine.cpu, limits.Describe());
  } else {
    fmt::print("{}, {} threads, {}: {}\n", machine.cpu, context.pool().threads(), machine.isa,
               limits.Describe());
  }
  fmt::print("rows: {}\n\n{}", RowsRun(context), Describe(phases, limits, options.num_prompts));
  if (settings.output_json.empty()) return OkStatus();
  std::vector<std::string> lines;
  for (const PhaseResult& phase : phases) {
    lines.push_back(JsonLine(settings, phase, limits, machine, context));
  }
  return AppendLines(settings.output_json, lines);
}

}  // namespace

void AddBench(CLI::App& app, Status& status) {
  AddCommand(app, kBench, "bench", "Measure the speed of a model", status, Bench);
  app.get_subcommand("bench")->footer(kFooter);
}

}  // namespace seacliff
