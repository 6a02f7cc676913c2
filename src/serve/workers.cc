// The worker threads' loop.
#include "serve/workers.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <utility>

#include "base/stacks.h"

namespace seacliff::serve {
namespace {

std::atomic<int> threads_alive{0};

void SkipStatics(int status, void*) {
  if (threads_alive == 0) return;
  std::fflush(nullptr);
  std::_Exit(status);
}

}  // namespace

struct Workers::State {
  struct Job {
    std::weak_ptr<const void> caller;
    Task work, then;
  };

  const char* name;
  std::function<void(Task)> post;
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<Job> jobs;
  bool stop = false;
};

Workers::Workers(const char* name, int threads, std::function<void(Task)> post)
    : state_(std::make_shared<State>()) {
  state_->name = name;
  state_->post = std::move(post);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([state = state_] { Work(state.get()); });
}

Workers::~Workers() {
  Stop();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::Run(std::weak_ptr<const void> caller, Task work, Task then) {
  {
    std::lock_guard lock(state_->mutex);
    state_->jobs.push_back({std::move(caller), std::move(work), std::move(then)});
  }
  state_->ready.notify_one();
}

void Workers::Leave() {
  Stop();
  on_exit(SkipStatics, nullptr);
  for (std::thread& thread : threads_) thread.detach();
  threads_.clear();
}

void Workers::Stop() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->jobs.clear();
  }
  state_->ready.notify_all();
}

void Workers::Work(State* state) {
  NameThread(state->name);
  ++threads_alive;
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->ready.wait(lock, [state] { return state->stop || !state->jobs.empty(); });
    if (state->stop) break;
    State::Job job = std::move(state->jobs.front());
    state->jobs.pop_front();
    if (job.caller.expired()) continue;
    lock.unlock();
    job.work();
    lock.lock();
    // Under the lock: whoever has stopped this is not posted to any more.
    if (!state->stop) state->post(std::move(job.then));
  }
  --threads_alive;
}

}  // namespace seacliff::serve
