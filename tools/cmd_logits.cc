// seacliff logits: runs given token ids through the model and writes the logits, for comparison
// with a reference. No text, no sampling, no scheduler.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "base/file_map.h"
#include "checkpoint/progress_bar.h"
#include "checkpoint/safetensors.h"
#include "model/direct.h"
#include "tools/cmd_common.h"
#include "tools/commands.h"

namespace seacliff {
namespace {

struct LogitsOptions {
  const Settings* settings = nullptr;
  std::string dir, ids_file, out, numerics = "checkpoint", kernels, load_format = "auto", device,
                                  repack_cache;
  int64_t prefill = -1, chunk = 0, from = -1;
  int32_t threads = 0;
  uint64_t seed = 0;
  bool fp8_output_projection = false, layers = false, mtp = false, margins = false;
};

Result<std::vector<int32_t>> ReadIds(const std::string& path, int64_t vocab) {
  SC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<int32_t> ids;
  const char* p = text.data();
  const char* end = p + text.size();
  const auto space = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  while (true) {
    while (p < end && space(*p)) ++p;
    if (p == end) break;
    int32_t id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || (next < end && !space(*next)) || id < 0 || id >= vocab) {
      const char* stop = std::find_if(p, end, space);
      return InvalidArgument(
          fmt::format("{}: '{}' is not a token id in [0, {})", path, std::string(p, stop), vocab));
    }
    ids.push_back(id);
    p = next;
  }
  if (ids.empty()) return InvalidArgument(path + ": holds no token ids");
  return ids;
}

NamedTensor Floats(const std::string& name, std::vector<int64_t> shape,
                   const std::vector<float>& values) {
  return {name,
          {DType::kF32, std::move(shape), reinterpret_cast<const std::byte*>(values.data()),
           static_cast<int64_t>(values.size() * sizeof(float))}};
}

// What a run collects: logits from position `from` on, the layers of the last prefill token, and
// the MTP logits after it.
struct Collected {
  std::vector<float> logits, layers, mtp;
  std::vector<float> expert_margins, index_margins;  // [tokens, layers]
};

// Appends [layers, tokens] as [tokens, layers].
void AppendTransposed(const std::vector<float>& values, int64_t layers, std::vector<float>& out) {
  const int64_t tokens = static_cast<int64_t>(values.size()) / layers;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < layers; ++i) out.push_back(values[static_cast<size_t>(i * tokens + t)]);
  }
}

Status Run(Model& model, const LogitsOptions& o, const std::vector<int32_t>& ids, Collected& out) {
  const ModelConfig& c = model.config();
  const auto total = static_cast<int64_t>(ids.size());
  DirectRunner runner(model, 1, total);
  out.layers.assign(static_cast<size_t>(c.layers * c.streams * c.dim), 0);
  std::vector<float> logits;
  for (int64_t begin = 0; begin < total;) {
    const bool prefill = begin < o.prefill;
    const int64_t count = prefill ? std::min(o.chunk, o.prefill - begin) : 1;
    const bool last = prefill && begin + count == o.prefill;
    std::vector<int32_t> rows;
    for (int64_t i = 0; i < count; ++i) {
      if (begin + i >= o.from || (last && o.mtp && i == count - 1)) {
        rows.push_back(static_cast<int32_t>(i));
      }
    }
    const DirectRunner::Piece piece{0, {ids.data() + begin, static_cast<size_t>(count)}};
    ForwardTrace trace;
    std::vector<float> margins[2];
    if (last && o.layers) {
      trace.token = count - 1;
      trace.layers = {out.layers.data(), {c.layers, c.streams, c.dim}};
    }
    if (o.margins) {
      for (auto& m : margins) m.resize(static_cast<size_t>(c.layers * count));
      trace.expert_margin = {margins[0].data(), {c.layers, count}};
      trace.index_margin = {margins[1].data(), {c.layers, count}};
    }
    SC_RETURN_IF_ERROR(runner.Step({&piece, 1}, rows, logits, &trace));
    if (o.margins) {
      AppendTransposed(margins[0], c.layers, out.expert_margins);
      AppendTransposed(margins[1], c.layers, out.index_margins);
    }
    const int64_t wanted = std::min(count, begin + count - o.from);
    if (wanted > 0) {
      out.logits.insert(out.logits.end(), logits.begin(), logits.begin() + wanted * c.vocab_size);
    }
    if (prefill && o.mtp) {
      SC_RETURN_IF_ERROR(
          runner.StepMtp({ids.data() + begin + 1, static_cast<size_t>(count)}, logits));
      if (last) out.mtp.assign(logits.end() - c.vocab_size, logits.end());
    }
    begin += count;
  }
  return OkStatus();
}

Status Logits(LogitsOptions o) {
  SC_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(o.dir));
  SC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ReadIds(o.ids_file, config.vocab_size));
  const auto total = static_cast<int64_t>(ids.size());
  if (o.prefill < 0) o.prefill = total;
  if (o.prefill < 1 || o.prefill > total) {
    return InvalidArgument(fmt::format("--prefill: must be in [1, {}], the ids given", total));
  }
  if (o.chunk == 0) o.chunk = o.prefill;
  if (o.chunk < 1) return InvalidArgument("--chunk: must be at least 1");
  if (o.from < 0) o.from = o.prefill - 1;
  if (o.from >= total) {
    return InvalidArgument(fmt::format("--from: must be below {}, the ids given", total));
  }
  // Margins are told by reference rows.
  if (o.device == "auto" && o.margins) o.device = "cpu";
  if (o.mtp && config.mtp_layers == 0) return InvalidArgument("--mtp: the model has no MTP layer");
  if (o.mtp && o.prefill == total) {
    return InvalidArgument("--mtp: needs one id after the prefill (--prefill below the ids given)");
  }

  ModelOptions options;
  options.dir = o.dir;
  options.load_format = o.load_format;
  options.numerics = o.numerics == "exact" ? Numerics::kExact : Numerics::kCheckpoint;
  options.fp8_output_projection = o.fp8_output_projection;
  options.repack_cache = o.repack_cache;
  options.device = o.device;
  options.kernels = o.kernels;
  options.threads = o.threads;
  SetRanks(*o.settings, options);
  options.seed = o.seed;
  options.mtp = o.mtp;
  options.max_tokens = std::min(o.chunk, o.prefill);
  DirectRunner::SizeCache(1, total, options);
  if (options.node_rank != 0) return Model::Follow(options, ShowProgress());
  SC_ASSIGN_OR_RETURN(auto model, Model::Load(options, ShowProgress()));

  Collected out;
  SC_RETURN_IF_ERROR(Run(*model, o, ids, out));
  std::vector<NamedTensor> tensors;
  tensors.push_back(Floats("logits", {total - o.from, config.vocab_size}, out.logits));
  if (o.layers) {
    tensors.push_back(
        Floats("layers_last_token", {config.layers, config.streams, config.dim}, out.layers));
  }
  if (o.mtp) tensors.push_back(Floats("mtp_logits", {config.vocab_size}, out.mtp));
  if (o.margins) {
    tensors.push_back(Floats("expert_margin", {total, config.layers}, out.expert_margins));
    tensors.push_back(Floats("index_margin", {total, config.layers}, out.index_margins));
  }
  return WriteSafetensors(o.out, tensors);
}

}  // namespace

void AddLogits(CLI::App& app, Status& status) {
  AddCommand(app, kLogits, "logits", "Write the logits of given token ids", status,
             [](const Settings& s) -> Status {
               if (s.ids_file.empty()) return InvalidArgument("--ids-file: must be given");
               if (s.out.empty()) return InvalidArgument("--out: must be given");
               LogitsOptions o;
               o.settings = &s;
               o.dir = s.dir;
               o.ids_file = s.ids_file;
               o.out = s.out;
               o.numerics = s.numerics;
               o.fp8_output_projection = s.output_projection == "fp8";
               o.repack_cache = s.repack_cache;
               o.device = s.device;
               o.kernels = s.kernels;
               o.load_format = s.load_format;
               o.prefill = s.prefill;
               o.chunk = s.chunk;
               o.from = s.from;
               o.threads = static_cast<int32_t>(s.threads);
               o.seed = static_cast<uint64_t>(s.seed.value_or(0));
               o.layers = s.layers;
               o.mtp = s.mtp;
               o.margins = s.margins;
               return Logits(o);
             });
}

}  // namespace seacliff
