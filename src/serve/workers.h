// A few threads for work that would hold up the server's thread: making prompts, compiling
// grammars. Not for data-parallel loops (base/threads.h).
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace seacliff::serve {

class Workers {
 public:
  using Task = std::function<void()>;

  // `name` is the threads'; `post` runs a task on the server's thread.
  Workers(const char* name, int threads, std::function<void(Task)> post);
  ~Workers();  // waits for the work under way
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Does `work` on a thread and posts `then`; nothing if `caller` is gone by the time a thread is
  // free. Neither may own what belongs to the server's thread.
  void Run(std::weak_ptr<const void> caller, Task work, Task then);

  // Ends without waiting for the work under way, which may use nothing but what it owns. If it is
  // not done when the process exits, no destructor of a static runs under it.
  void Leave();

 private:
  struct State;
  static void Work(State* state);
  void Stop();

  std::shared_ptr<State> state_;
  std::vector<std::thread> threads_;
};

}  // namespace seacliff::serve
