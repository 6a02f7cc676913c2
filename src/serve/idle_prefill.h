// Conversations whose next prompt will begin with other tokens than those that were sampled, as
// their old reasoning is dropped: that beginning is computed while the engine has nothing else to
// do, so that the next turn finds it cached. Belongs to the server's thread, which says when
// nothing else runs.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seacliff/engine.h"
#include "serve/mailbox.h"

namespace seacliff::serve {

class IdlePrefill {
 public:
  struct Prefix {
    std::vector<int32_t> ids;
    std::string cache_salt;
    uint64_t turn = 0;  // as Request's, of the turn that it continues
  };

  // Queues a prefix; when too many wait, the oldest is forgotten.
  void Add(Prefix prefix);
  // The conversation goes on from this turn, so its prefix is computed in any case.
  void Forget(uint64_t turn);
  // Starts the next prefix if none runs. Nothing else may run.
  void Start(Engine* engine, const std::shared_ptr<Mailbox>& mailbox);
  // Something else wants to run: what runs ends within a step, and goes on at some later Start.
  void Yield(Engine* engine);
  // Whether the event is of what runs; it is then dealt with.
  bool Take(const Event& event);

  size_t waiting() const { return waiting_.size(); }

 private:
  std::deque<Prefix> waiting_;
  std::optional<Prefix> running_;
  RequestId id_ = 0;  // of what runs
};

}  // namespace seacliff::serve
