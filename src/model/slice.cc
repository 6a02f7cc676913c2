// Cutting of a config, and of matrices by columns; see slice.h.
#include "model/slice.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "model/weight_arrays.h"

namespace seacliff {
namespace {

constexpr int64_t kBlock = 128;  // rows and columns of an FP8 matrix that share a scale

// Copies rows of `bytes` that lie `pitch` apart; null if they cannot be read.
const void* CloseUp(const void* from, int64_t rows, int64_t bytes, int64_t pitch,
                    std::byte*& next) {
  if (rows == 0 || !ReadPages(from, (rows - 1) * pitch + bytes)) return nullptr;
  std::byte* const to = next;
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * bytes, static_cast<const std::byte*>(from) + r * pitch,
                static_cast<size_t>(bytes));
  }
  next += rows * bytes;
  return to;
}

}  // namespace

Result<ModelConfig> RankConfig(const ModelConfig& config, int64_t ranks) {
  ModelConfig c = config;
  const auto refuse = [&](const std::string& what, const std::string& parts) {
    return InvalidArgument(fmt::format("tensor_parallel_size {}: {} cannot be cut into {} parts{}",
                                       ranks, what, ranks, parts));
  };
  const auto cut = [&](const char* field, int64_t unit, int64_t& value) -> Status {
    if (ranks >= 1 && value % (ranks * unit) == 0) {
      value /= ranks;
      return OkStatus();
    }
    return refuse(fmt::format("{} ({})", field, value),
                  unit == 1 ? "" : fmt::format(" of whole {}s", unit));
  };
  const auto blocks = [&](const char* what, int64_t part) {
    if (part % kBlock == 0) return OkStatus();
    return refuse(fmt::format("{} ({})", what, part * ranks), " of whole 128s");
  };
  if (ranks == 1) return c;
  SC_RETURN_IF_ERROR(cut("num_attention_heads", 1, c.heads));
  SC_RETURN_IF_ERROR(cut("o_groups", 1, c.o_groups));
  SC_RETURN_IF_ERROR(cut("moe_intermediate_size", kBlock, c.inter_dim));
  SC_RETURN_IF_ERROR(cut("vocab_size", 1, c.vocab_size));
  SC_RETURN_IF_ERROR(blocks("num_attention_heads * head_dim", c.heads * c.head_dim));
  SC_RETURN_IF_ERROR(blocks("o_groups * o_lora_rank", c.o_groups * c.o_rank));
  return c;
}

Result<PageMemory> CloseGaps(ModelWeights& weights) {
  std::vector<Matrix*> matrices = MatricesOf(weights);
  std::erase_if(matrices, [](const Matrix* m) { return m->pitch == 0; });
  int64_t total = 0;
  for (const Matrix* m : matrices) {
    total = AlignedOffset(total, 1) + m->rows * m->row_bytes() + m->scale_rows() * m->scale_cols();
  }
  PageMemory memory;
  if (matrices.empty()) return memory;
  SC_ASSIGN_OR_RETURN(memory, PageMemory::Allocate(total, "the weights"));
  std::byte* next = memory.data();
  for (Matrix* m : matrices) {
    m->data = CloseUp(m->data, m->rows, m->row_bytes(), m->pitch, next);
    if (m->scales != nullptr) {
      m->scales = static_cast<const E8m0*>(
          CloseUp(m->scales, m->scale_rows(), m->scale_cols(), m->scale_pitch, next));
    }
    if (m->data == nullptr) return InvalidArgument("a weight cannot be read from its file");
    m->pitch = m->scale_pitch = 0;
    next = memory.data() + AlignedOffset(next - memory.data(), 1);
  }
  return memory;
}

}  // namespace seacliff
