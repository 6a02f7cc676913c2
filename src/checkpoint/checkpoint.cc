// Opening a published checkpoint: the listing of its files, the check of every tensor against the
// catalogue, and the first read of pages. Dummy weights are in dummy.cc.
#include "checkpoint/checkpoint.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "base/threads.h"
#include "checkpoint/catalogue.h"
#include "checkpoint/tally.h"

namespace seacliff {
namespace {

using simdjson::dom::object;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kMtpPrefix = "mtp.";

// Which file of a directory holds which tensor. Files are opened when a tensor of theirs is first
// asked for, so that shards with nothing needed may be absent.
class Listing {
 public:
  static Result<Listing> Open(const std::string& dir);

  bool Has(const std::string& name) const { return file_of_.contains(name); }
  const std::unordered_map<std::string, size_t>& names() const { return file_of_; }

  struct Found {
    const StoredTensor* tensor;
    const std::string& path;
  };
  Result<Found> Find(const std::string& name);

  // Hands over the files that were opened.
  std::vector<SafetensorsFile> TakeFiles();

 private:
  Status ReadIndex(const std::string& path);
  Status ListSingle(const std::string& path);

  std::string dir_, source_;
  std::unordered_map<std::string, size_t> file_of_;
  std::vector<std::string> paths_;
  std::vector<std::optional<SafetensorsFile>> files_;
};

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

Result<Listing> Listing::Open(const std::string& dir) {
  Listing listing;
  listing.dir_ = dir;
  const std::string index = fmt::format("{}/{}", dir, kIndexName);
  const std::string single = fmt::format("{}/{}", dir, kSingleName);
  if (Exists(index)) {
    SC_RETURN_IF_ERROR(listing.ReadIndex(index));
  } else if (Exists(single)) {
    SC_RETURN_IF_ERROR(listing.ListSingle(single));
  } else {
    return NotFound(fmt::format("{}: has neither {} nor {}", dir, kIndexName, kSingleName));
  }
  return listing;
}

Status Listing::ReadIndex(const std::string& path) {
  source_ = path;
  SC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(text, path));
  object root, map;
  if (document.root().get<object>().get(root) != simdjson::SUCCESS ||
      root.at_key("weight_map").get<object>().get(map) != simdjson::SUCCESS) {
    return InvalidArgument(path + ": weight_map: must be an object of file names");
  }
  std::unordered_map<std::string_view, size_t> files;
  for (const auto field : map) {
    std::string_view file;
    if (field.value.get<std::string_view>().get(file) != simdjson::SUCCESS || file.empty() ||
        file.find('/') != std::string_view::npos || file.find('\0') != std::string_view::npos) {
      return InvalidArgument(
          fmt::format("{}: weight_map: {}: must be the name of a file beside it", path, field.key));
    }
    const auto [known, is_new] = files.try_emplace(file, paths_.size());
    if (is_new) paths_.push_back(fmt::format("{}/{}", dir_, file));
    if (!file_of_.try_emplace(std::string(field.key), known->second).second) {
      return InvalidArgument(fmt::format("{}: weight_map: {}: is there twice", path, field.key));
    }
  }
  files_.resize(paths_.size());
  return OkStatus();
}

Status Listing::ListSingle(const std::string& path) {
  source_ = path;
  SC_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  for (const NamedTensor& t : file.tensors()) file_of_[t.name] = 0;
  paths_.push_back(path);
  files_.emplace_back(std::move(file));
  return OkStatus();
}

Result<Listing::Found> Listing::Find(const std::string& name) {
  const auto place = file_of_.find(name);
  if (place == file_of_.end()) return NotFound(fmt::format("{}: {}: missing", source_, name));
  const std::string& path = paths_[place->second];
  std::optional<SafetensorsFile>& file = files_[place->second];
  if (!file) {
    Result<SafetensorsFile> opened = SafetensorsFile::Open(path);
    if (opened.status().code() == Code::kNotFound) {
      return NotFound(fmt::format("{} (the shard of {})", opened.status().message(), name));
    }
    SC_ASSIGN_OR_RETURN(file, std::move(opened));
  }
  const StoredTensor* tensor = file->Find(name);
  if (tensor == nullptr) {
    return NotFound(
        fmt::format("{}: {}: missing, though {} places it here", path, name, kIndexName));
  }
  return Found{tensor, path};
}

std::vector<SafetensorsFile> Listing::TakeFiles() {
  std::vector<SafetensorsFile> files;
  for (std::optional<SafetensorsFile>& file : files_) {
    if (file) files.push_back(std::move(*file));
  }
  return files;
}

// The block drafter that replaces the MTP layer in later releases has no e_proj
// (spec/model.md 7.1).
bool HasBlockDrafter(const Listing& listing) {
  return listing.Has("mtp.0.main_proj.weight") && !listing.Has("mtp.0.e_proj.weight");
}

Status CheckSpec(const TensorSpec& spec, const Listing::Found& found) {
  const StoredTensor& stored = *found.tensor;
  if (stored.dtype != spec.dtype) {
    std::string hint;
    if (spec.row->storage == StoredAs::kExpert && !spec.is_scale) {
      hint = fmt::format("; expert_dtype in config.json says {} (fp4 if absent)",
                         spec.dtype == DType::kI8 ? "fp4" : "fp8");
    }
    return InvalidArgument(fmt::format("{}: {}: dtype must be {}, not {}{}", found.path, spec.name,
                                       Name(spec.dtype), Name(stored.dtype), hint));
  }
  if (stored.shape != spec.shape) {
    return InvalidArgument(fmt::format("{}: {}: shape must be {} by config.json, not {}",
                                       found.path, spec.name, ShapeString(spec.shape),
                                       ShapeString(stored.shape)));
  }
  return OkStatus();
}

// An id out of range would be an index out of range in every kernel that reads the table.
Status CheckExpertIds(const TensorSpec& spec, const Listing::Found& found, int64_t experts) {
  const int64_t count = ElementCount(spec.shape);
  for (int64_t i = 0; i < count; ++i) {
    int64_t id = 0;  // by copy: the file may have put it at any address
    std::memcpy(&id, found.tensor->data + i * SizeOf(DType::kI64), sizeof(id));
    if (id < 0 || id >= experts) {
      return InvalidArgument(fmt::format("{}: {}: row {} has expert {}, but n_routed_experts is {}",
                                         found.path, spec.name, i / spec.shape[1], id, experts));
    }
  }
  return OkStatus();
}

// One line for what lies in the files and is not used, if it is not MTP left out on purpose.
void LogUnused(const std::string& dir, const Listing& listing, const ModelConfig& config,
               const std::function<bool(const std::string&)>& used) {
  const bool drafter = HasBlockDrafter(listing);
  const bool knows_mtp = drafter || config.mtp_layers > 0;
  int64_t drafter_tensors = 0;
  std::vector<std::string_view> others;
  for (const auto& [name, file] : listing.names()) {
    if (used(name)) continue;
    if (!name.starts_with(kMtpPrefix) || !knows_mtp)
      others.push_back(name);
    else if (drafter)
      ++drafter_tensors;
  }
  if (drafter_tensors == 0 && others.empty()) return;
  std::string text;
  if (drafter_tensors > 0) {
    text = fmt::format("tensors of a block drafter (mtp.*), not used: {}", drafter_tensors);
  }
  if (!others.empty()) {
    // The first of them in order, whatever the order of the listing.
    const auto example = *std::min_element(others.begin(), others.end());
    text += fmt::format("{}unknown tensors, not used: {}, such as {}", text.empty() ? "" : "; ",
                        others.size(), example);
  }
  SC_LOG_INFO("{}: {}", dir, text);
}

struct Piece {
  const std::byte* data;
  int64_t bytes;
  const std::byte* tensor;  // the beginning of the tensor it is part of
};

bool IsAligned(const StoredTensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(SizeOf(tensor.dtype)) ==
         0;
}

}  // namespace

Progress PhaseOf(const LoadProgress& progress, std::string_view phase) {
  if (!progress) return {};
  return [&progress, phase](int64_t done, int64_t total) { progress(phase, done, total); };
}

Result<Checkpoint> Checkpoint::Open(const std::string& dir, const ModelConfig& config,
                                    bool with_mtp) {
  SC_ASSIGN_OR_RETURN(Listing listing, Listing::Open(dir));
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  checkpoint.has_mtp_ = with_mtp && config.mtp_layers > 0 && !HasBlockDrafter(listing);
  Status status;
  ForEachTensor(config, checkpoint.has_mtp_, [&](const TensorSpec& spec) {
    const Result<Listing::Found> found = listing.Find(spec.name);
    status = found.status();
    if (status.ok()) status = CheckSpec(spec, *found);
    if (status.ok() && spec.row->fill == Fill::kExpertIds) {
      status = CheckExpertIds(spec, *found, config.experts);
    }
    if (status.ok()) checkpoint.Add(spec.name, *found->tensor);
    return status.ok();
  });
  SC_RETURN_IF_ERROR(status);
  LogUnused(dir, listing, config,
            [&](const std::string& name) { return checkpoint.tensors_.contains(name); });
  checkpoint.files_ = listing.TakeFiles();
  for (const SafetensorsFile& file : checkpoint.files_) checkpoint.origin_ += file.Describe();
  SC_RETURN_IF_ERROR(checkpoint.AlignData());
  return checkpoint;
}

const StoredTensor& Checkpoint::Get(const std::string& name) const {
  const StoredTensor* tensor = Find(name);
  if (tensor == nullptr) std::fprintf(stderr, "seacliff: no tensor %s\n", name.c_str());
  SC_CHECK(tensor != nullptr);
  return *tensor;
}

const StoredTensor* Checkpoint::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Checkpoint::MadeUpBytes Checkpoint::FindMadeUp(const void* data) const {
  const auto* const byte = static_cast<const std::byte*>(data);
  auto tensor = made_up_.upper_bound(byte);
  if (tensor == made_up_.begin()) return {};
  --tensor;
  const int64_t begin = byte - tensor->first;
  return begin < tensor->second.bytes ? MadeUpBytes{&tensor->second.rule, begin} : MadeUpBytes{};
}

void Checkpoint::Add(const std::string& name, StoredTensor tensor) {
  bytes_ += tensor.bytes;
  SC_CHECK(tensors_.try_emplace(name, std::move(tensor)).second);
}

Status Checkpoint::Read(const std::unordered_set<const void*>& except,
                        const Progress& progress) const {
  if (files_.empty()) return OkStatus();
  constexpr int64_t kPieceBytes = int64_t{16} << 20;
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (except.contains(tensor.data)) continue;
    total += tensor.bytes;
    for (int64_t at = 0; at < tensor.bytes; at += kPieceBytes) {
      pieces.push_back({tensor.data + at, std::min(kPieceBytes, tensor.bytes - at), tensor.data});
    }
  }
  // Disks like their reads in order.
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.data < b.data; });
  Tally tally(progress, total);
  std::atomic<const std::byte*> failed{nullptr};
  ThreadPool pool(0);
  pool.For(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      if (!ReadPages(piece.data, piece.bytes)) failed = piece.tensor;
      tally.Add(piece.bytes);
    }
  });
  return failed == nullptr ? OkStatus() : ReadError(failed);
}

Status Checkpoint::ReadError(const void* data) const {
  const auto it = std::find_if(tensors_.begin(), tensors_.end(),
                               [&](const auto& t) { return t.second.data == data; });
  return InvalidArgument(fmt::format("{}: {}: cannot be read from its file", dir_,
                                     it == tensors_.end() ? "a tensor" : it->first));
}

Status Checkpoint::AlignData() {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (!IsAligned(tensor)) bytes = AlignedOffset(bytes, tensor.bytes) + tensor.bytes;
  }
  if (bytes == 0) return OkStatus();
  SC_ASSIGN_OR_RETURN(memory_, PageMemory::Allocate(bytes, "the weights"));
  int64_t next = 0;
  for (auto& [name, tensor] : tensors_) {
    if (IsAligned(tensor)) continue;
    if (!ReadPages(tensor.data, tensor.bytes)) return ReadError(tensor.data);
    const int64_t offset = AlignedOffset(next, tensor.bytes);
    std::byte* to = memory_.data() + offset;
    std::memcpy(to, tensor.data, static_cast<size_t>(tensor.bytes));
    ReleasePages(tensor.data, tensor.bytes);
    tensor.data = to;
    next = offset + tensor.bytes;
  }
  return OkStatus();
}

}  // namespace seacliff
