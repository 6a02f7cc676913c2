// The stored tensors of one model, by name, as the file has them: from a published checkpoint or,
// for any shape, made up from a seed. No repacking here: that is the model's, for each memory
// space.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/pages.h"
#include "base/status.h"
#include "checkpoint/safetensors.h"
#include "config/model_config.h"
#include "seacliff/progress.h"
#include "tensor/fill_rule.h"

namespace seacliff {

// Called with bytes done and bytes in all, `done` rising from 0 to `total`; calls come from several
// threads but never two at once. An empty function is allowed.
using Progress = std::function<void(int64_t done, int64_t total)>;

// Reports as one phase of `progress`, which outlives it.
Progress PhaseOf(const LoadProgress& progress, std::string_view phase);

class Checkpoint {
 public:
  // Opens `dir` as published: model.safetensors.index.json with its shards, or one
  // model.safetensors. Every tensor of the catalogue must be there with its dtype and shape, and
  // the ids of the hash layers' tables must be experts; anything else in the files is left alone,
  // with one log line. Of the data only those tables are read. Without `with_mtp` the MTP tensors
  // are neither required nor touched. Files that change while they are open are undefined
  // behaviour.
  static Result<Checkpoint> Open(const std::string& dir, const ModelConfig& config, bool with_mtp);

  // Weights from a seed, in the stored formats and sizes: a function of (seed, tensor name) alone.
  // docs/checkpoints.md says how they are drawn. kExhausted if they exceed the machine's memory.
  static Result<Checkpoint> Dummy(const ModelConfig& config, bool with_mtp, uint64_t seed,
                                  const Progress& progress);

  // The same weights, which are nowhere: their addresses may not be read, but stand for what
  // FindMadeUp tells. Takes no memory, so the model may be larger than the host.
  static Result<Checkpoint> DummyOnDemand(const ModelConfig& config, bool with_mtp, uint64_t seed);

  // How the bytes from `data` on are made: as those from `begin` on of a tensor that `rule` makes;
  // a null rule: they lie in memory.
  struct MadeUpBytes {
    const FillRule* rule = nullptr;
    int64_t begin = 0;
  };
  MadeUpBytes FindMadeUp(const void* data) const;

  Checkpoint(Checkpoint&&) noexcept = default;
  Checkpoint& operator=(Checkpoint&&) noexcept = default;

  // Tensors of the catalogue only. Data is aligned to its element size and lives as long as the
  // checkpoint (moving it included). Get aborts if the name is not there.
  const StoredTensor& Get(const std::string& name) const;
  const StoredTensor* Find(const std::string& name) const;

  // Reads every page once, so that no later read waits for the disk, but for tensors that begin at
  // one of `except`. Dummy weights are there already: nothing is done or reported.
  Status Read(const std::unordered_set<const void*>& except, const Progress& progress) const;
  // The error of ReadPages on the tensor that begins at `data`.
  Status ReadError(const void* data) const;

  // Says where the weights are from: the name, size and time of each file, or the seed. It changes
  // when they do.
  const std::string& origin() const { return origin_; }

  // Whether the MTP tensors are here: false for a config without MTP layers and for checkpoints
  // whose drafter is another one (docs/checkpoints.md), even if they were asked for.
  bool has_mtp() const { return has_mtp_; }
  int64_t tensors() const { return static_cast<int64_t>(tensors_.size()); }
  int64_t bytes() const { return bytes_; }

 private:
  struct MadeUp {
    FillRule rule;
    int64_t bytes;
  };

  Checkpoint() = default;
  static Result<Checkpoint> MakeDummy(const ModelConfig& config, bool with_mtp, uint64_t seed,
                                      const std::function<Result<PageMemory>(int64_t)>& allocate);
  void Add(const std::string& name, StoredTensor tensor);
  // Copies tensors whose data the file left at an odd address into memory of our own.
  Status AlignData();

  std::unordered_map<std::string, StoredTensor> tensors_;
  std::vector<SafetensorsFile> files_;
  PageMemory memory_;
  std::map<const std::byte*, MadeUp> made_up_;  // by where they would begin
  std::string dir_, origin_;
  int64_t bytes_ = 0;
  bool has_mtp_ = false;
};

}  // namespace seacliff
