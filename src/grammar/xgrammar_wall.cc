// What xgrammar calls where it would print or throw (XGRAMMAR_LOG_CUSTOMIZE).
#include "grammar/xgrammar_wall.h"

#include <algorithm>
#include <stdexcept>

#include "text/tokenizer.h"

namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line, const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level, const std::string& message);

void LogFatalImpl(const std::string&, int, const std::string& message) {
  throw std::runtime_error(message);
}

// Warnings are about what our grammars do not have.
void LogMessageImpl(const std::string&, int, int, const std::string&) {}

}  // namespace xgrammar

namespace seacliff::grammar {

Vocabulary::Vocabulary(const Tokenizer& tokenizer)
    : size(tokenizer.vocab_size()),
      end_ids(tokenizer.end_ids()),
      never_sampled_ids(tokenizer.never_sampled_ids()),
      think_end(tokenizer.impl().Id(SpecialRole::kThinkEnd).value_or(-1)),
      dsml(tokenizer.impl().Id(SpecialRole::kDsml).value_or(-1)) {
  for (int32_t id = 0; id < size; ++id) {
    if (id == dsml) {
      // Bytes that no text has, so that only its id is matched.
      bytes.emplace_back("\xFF\xFF");
      continue;
    }
    const bool text = !tokenizer.IsAdded(id) &&
                      !std::binary_search(never_sampled_ids.begin(), never_sampled_ids.end(), id);
    bytes.emplace_back(text ? tokenizer.TokenBytes(id) : std::string_view());
    if (bytes.back() == "\n" || bytes.back() == "\n\n") newline_ids.push_back(id);
  }
  reasoning.resize(static_cast<size_t>(size + 31) / 32);
  for (int32_t id = 0; id < size; ++id) {
    if (!std::binary_search(end_ids.begin(), end_ids.end(), id) &&
        !std::binary_search(never_sampled_ids.begin(), never_sampled_ids.end(), id)) {
      reasoning[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
    }
  }
}

}  // namespace seacliff::grammar
