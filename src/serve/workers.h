// A few threads for work that would hold up the server's thread: rendering and tokenising long
// prompts. Not for data-parallel loops (base/threads.h).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace seacliff::serve {

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // tasks that have not started are dropped
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void Run(std::function<void()> task);

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace seacliff::serve
