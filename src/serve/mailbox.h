// The way from the engine's thread to the server's: events are put in by the one and taken out, all
// at once, by the other. Putting never waits for the reader; the reader is woken once per batch.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "seacliff/engine.h"

namespace seacliff::serve {

class Mailbox {
 public:
  // `wake` is called on the putting thread when the box stops being empty; it must not block.
  explicit Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Put(const Event& event) {
    Event copy = event;
    std::lock_guard lock(mutex_);
    if (closed_) return;
    events_.push_back(std::move(copy));
    // Under the lock, so that Close() also means that `wake` runs no more.
    if (events_.size() == 1) wake_();
  }

  // Swaps the contents into `events`, whose own are dropped (its memory is used again).
  void TakeAll(std::vector<Event>* events) {
    events->clear();
    std::lock_guard lock(mutex_);
    events_.swap(*events);
  }

  // The reader is going away: nothing is kept and nobody is woken any more.
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<Event> events_;
  bool closed_ = false;
  std::function<void()> wake_;
};

}  // namespace seacliff::serve
