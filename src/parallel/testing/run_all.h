// What the tests of communicators share.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "parallel/communicator.h"

namespace seacliff {

using Ranks = std::vector<std::unique_ptr<Communicator>>;

// Runs one function as every rank, each in its thread; their contexts' errors.
inline std::vector<Status> RunAll(const Ranks& ranks,
                                  const std::function<void(Context&, Communicator&)>& body) {
  std::vector<Status> errors(ranks.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      Context k(1);
      body(k, *ranks[r]);
      errors[r] = k.TakeError();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace seacliff
