// Prefixes that are computed in idle time; see idle_prefill.h.
#include "serve/idle_prefill.h"

#include <algorithm>
#include <utility>

namespace seacliff::serve {
namespace {

constexpr size_t kMostWaiting = 16;

}  // namespace

void IdlePrefill::Add(Prefix prefix) {
  if (waiting_.size() == kMostWaiting) waiting_.pop_front();
  waiting_.push_back(std::move(prefix));
}

void IdlePrefill::Forget(uint64_t turn) {
  if (turn == 0) return;
  std::erase_if(waiting_, [turn](const Prefix& prefix) { return prefix.turn == turn; });
  if (running_ && running_->turn == turn) running_->ids.clear();
}

void IdlePrefill::Start(Engine* engine, const std::shared_ptr<Mailbox>& mailbox) {
  if (running_ || waiting_.empty()) return;
  running_ = std::move(waiting_.front());
  waiting_.pop_front();
  Request request;
  request.id = id_ = engine->NextId();
  request.prompt = running_->ids;
  request.max_tokens = 1;
  request.sampling.temperature = 0;
  request.cache_salt = running_->cache_salt;
  request.background = true;
  const Status status =
      engine->Submit(std::move(request), [mailbox](const Event& event) { mailbox->Put(event); });
  if (!status.ok()) running_.reset();  // it is not worth a second try
}

void IdlePrefill::Yield(Engine* engine) {
  if (running_) engine->Cancel(id_);
}

bool IdlePrefill::Take(const Event& event) {
  if (!running_ || event.id != id_) return false;
  if (event.finish == Finish::kNone) return true;
  if (event.finish == Finish::kCancelled && !running_->ids.empty()) {
    waiting_.push_front(std::move(*running_));
  }
  running_.reset();
  return true;
}

}  // namespace seacliff::serve
