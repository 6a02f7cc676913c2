// The packed copy of a model's weights that the cpu rows read (kernels/common/packing.h).
#pragma once

#include <string>
#include <vector>

#include "base/file_map.h"
#include "base/pages.h"
#include "base/status.h"
#include "base/threads.h"
#include "checkpoint/checkpoint.h"
#include "model/weights.h"
#include "seacliff/progress.h"

namespace seacliff {

// Every matrix that has a packed form and is read by products (not the embedding, whose rows are
// looked up, nor the f32 matrices of mHC), in the order in which a step reads them.
std::vector<Matrix*> PackableOf(ModelWeights& weights);

class PackedWeights {
 public:
  // Packs `matrices`, which lie in `checkpoint`, and points them at the copies. The originals are
  // read as they are packed, and their memory is given back matrix by matrix, so that never much
  // more than one copy is held. kExhausted if there is no memory for the copy.
  //
  // With a `cache_file` (repack_cache.h) the copies are that file, mapped, if it fits, and the
  // originals are not read; else they are packed and the file is written. What is wrong with a file
  // that does not fit is logged. A file that is no cache, or cannot be written, is an error.
  static Result<PackedWeights> Load(const std::vector<Matrix*>& matrices,
                                    const Checkpoint& checkpoint, const std::string& cache_file,
                                    ThreadPool& pool, const LoadProgress& progress);

 private:
  Status Pack(const std::vector<Matrix*>& matrices, const Checkpoint& checkpoint, ThreadPool& pool,
              const Progress& progress);

  PageMemory memory_;  // one of the two
  FileMap file_;
};

}  // namespace seacliff
