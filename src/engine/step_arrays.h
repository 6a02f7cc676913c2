// A step plan as the arrays that the model reads. Allocated once for the largest step.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/batch.h"
#include "sched/step_plan.h"

namespace seacliff {

class StepArrays {
 public:
  StepArrays(int64_t max_tokens, int64_t max_seqs, int64_t max_model_len);

  // The arrays hold until the next call. Page tables are as wide as the step's longest sequence.
  Batch Fill(const StepPlan& plan);

 private:
  std::vector<int32_t> ids_, positions_, seq_of_, seq_begin_, slots_, logit_rows_;
  std::vector<int32_t> window_pages_, compressed_pages_;
};

}  // namespace seacliff
