// A reply is free (reasoning, or text before a call that the model need not make), then the grammar
// holds. Between reasoning and the grammar up to two line ends may stand.
#include "grammar/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "base/check.h"

namespace seacliff::grammar {
namespace {

constexpr int kMostNewlines = 2;
// A grammar that reads the same text in many ways is slower with every token, and one thread does
// this for all requests: each token may take so long, and all together so much longer.
constexpr double kSecondsPerToken = 0.1, kMoreSeconds = 0.5;

// That this thread has computed, whatever else runs on its core.
double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void Put(std::span<uint32_t> mask, int32_t id, bool allowed) {
  if (id < 0 || static_cast<size_t>(id) / 32 >= mask.size()) return;
  const uint32_t bit = uint32_t{1} << (id % 32);
  uint32_t& word = mask[static_cast<size_t>(id) / 32];
  word = allowed ? word | bit : word & ~bit;
}

class Rules : public TokenRules {
 public:
  Rules(std::shared_ptr<const Vocabulary> vocabulary, std::shared_ptr<const Grammar::Impl> grammar,
        const RulesOptions& options)
      : vocabulary_(std::move(vocabulary)), grammar_(std::move(grammar)), options_(options) {
    if (options.when_called && grammar_->tool_block) {
      phase_ = Phase::kFree;
    } else {
      phase_ = options.starts_in_reasoning ? Phase::kReasoning : Phase::kGrammar;
      newlines_left_ = grammar_->tool_block || options.starts_in_reasoning ? kMostNewlines : 0;
    }
    const auto made = Guarded(Code::kInternal, [&] {
      matcher_ = xgrammar::GrammarMatcher(grammar_->compiled);
      return true;
    });
    if (!made.ok()) error_ = made.status();
  }

  bool Mask(std::span<uint32_t> mask) override {
    if (!error_.ok() || done_) {
      std::fill(mask.begin(), mask.end(), 0);
      return true;
    }
    if (phase_ == Phase::kFree) return false;
    if (phase_ == Phase::kReasoning) {
      const std::vector<uint32_t>& free = vocabulary_->reasoning;
      const size_t words = std::min(free.size(), mask.size());
      std::copy_n(free.begin(), words, mask.begin());
      std::fill(mask.begin() + static_cast<std::ptrdiff_t>(words), mask.end(), 0);
      // A call would end the reasoning.
      if (!grammar_->tool_block) Put(mask, vocabulary_->dsml, false);
      return true;
    }
    Timed([&] { Fill(mask); });
    if (!error_.ok()) std::fill(mask.begin(), mask.end(), 0);
    return true;
  }

  void Accept(int32_t id) override {
    if (!error_.ok() || done_) return;
    seconds_ = std::max(0.0, seconds_ - kSecondsPerToken);
    if (phase_ == Phase::kGrammar) {
      Timed([&] { AcceptInGrammar(id); });
      return;
    }
    if (phase_ == Phase::kReasoning && id == vocabulary_->think_end) {
      phase_ = Phase::kGrammar;
      return;
    }
    // A block of calls begins with "<" and the DSML token, wherever that is.
    if (id == vocabulary_->dsml && after_angle_ && grammar_->tool_block) {
      phase_ = Phase::kGrammar;
      const auto begun = Guarded(
          Code::kInternal, [&] { return matcher_.AcceptString("<") && matcher_.AcceptToken(id); });
      if (!begun.ok() || !*begun)
        error_ = Internal("grammar: a block of calls that does not begin");
      newlines_left_ = 0;
      return;
    }
    const std::string_view bytes = Bytes(id);
    if (!bytes.empty()) after_angle_ = bytes.back() == '<';
    if (id == vocabulary_->think_end || id == vocabulary_->dsml) after_angle_ = false;
  }

  bool done() const override { return done_; }
  Status error() const override { return error_; }

 private:
  enum class Phase { kFree, kReasoning, kGrammar };

  std::string_view Bytes(int32_t id) const {
    const bool known = id >= 0 && static_cast<size_t>(id) < vocabulary_->bytes.size();
    return known ? std::string_view(vocabulary_->bytes[static_cast<size_t>(id)])
                 : std::string_view();
  }

  // The number of line ends that `id` is made of, if these may stand before the grammar.
  int NewlinesOf(int32_t id) const {
    const auto& ids = vocabulary_->newline_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) return 0;
    const int count = static_cast<int>(Bytes(id).size());
    return count <= newlines_left_ ? count : 0;
  }

  template <typename F>
  void Timed(const F& f) {
    const double start = ThreadSeconds();
    f();
    seconds_ += ThreadSeconds() - start;
    if (error_.ok() && seconds_ > kMoreSeconds) {
      error_ = InvalidArgument(
          "grammar: too ambiguous or too large: finding out which tokens may come takes too long");
    }
  }

  void Fill(std::span<uint32_t> mask) {
    const auto words = static_cast<size_t>(xgrammar::GetBitmaskSize(vocabulary_->size));
    SC_CHECK(mask.size() >= words);
    std::fill(mask.begin(), mask.end(), 0);
    std::array<int64_t, 1> shape = {static_cast<int64_t>(words)};
    DLTensor tensor{};
    tensor.data = mask.data();
    tensor.device = DLDevice{kDLCPU, 0};
    tensor.ndim = 1;
    tensor.dtype = xgrammar::GetBitmaskDLType();
    tensor.shape = shape.data();
    const auto filled = Guarded(Code::kInternal, [&] {
      if (!matcher_.FillNextTokenBitmask(&tensor)) {
        // All may come; it leaves the mask alone then.
        for (int32_t id = 0; id < vocabulary_->size; ++id) Put(mask, id, true);
      }
      return true;
    });
    if (!filled.ok()) {
      error_ = Internal("grammar: " + filled.status().message());
      return;
    }
    for (size_t id = vocabulary_->bytes.size(); id < words * 32; ++id) {
      Put(mask, static_cast<int32_t>(id), false);
    }
    for (const int32_t id : vocabulary_->never_sampled_ids) Put(mask, id, false);
    if (!grammar_->tool_block) Put(mask, vocabulary_->dsml, false);
    for (const int32_t id : vocabulary_->newline_ids) {
      if (NewlinesOf(id) > 0) Put(mask, id, true);
    }
    if (std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; })) {
      error_ = Internal("grammar: no token can go on from here");
    }
  }

  void AcceptInGrammar(int32_t id) {
    const auto taken = Guarded(Code::kInternal, [&] { return matcher_.AcceptToken(id); });
    if (taken.ok() && *taken) {
      newlines_left_ = 0;
      const auto over = Guarded(Code::kInternal, [&] { return matcher_.IsTerminated(); });
      done_ = over.ok() && *over;
      return;
    }
    const int newlines = NewlinesOf(id);
    if (taken.ok() && newlines > 0) {
      newlines_left_ -= newlines;
      return;
    }
    error_ = taken.ok() ? Internal(fmt::format("grammar: token {} was not allowed", id))
                        : Internal("grammar: " + taken.status().message());
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::shared_ptr<const Grammar::Impl> grammar_;
  RulesOptions options_;
  xgrammar::GrammarMatcher matcher_{xgrammar::NullObj{}};
  Phase phase_ = Phase::kFree;
  int newlines_left_ = 0;
  bool after_angle_ = false;
  bool done_ = false;
  double seconds_ = 0;  // in the grammar, beyond what its tokens may take
  Status error_;
};

}  // namespace

std::unique_ptr<TokenRules> MakeTokenRules(std::shared_ptr<const Vocabulary> vocabulary,
                                           std::shared_ptr<const Grammar::Impl> grammar,
                                           const RulesOptions& options) {
  return std::make_unique<Rules>(std::move(vocabulary), std::move(grammar), options);
}

}  // namespace seacliff::grammar
