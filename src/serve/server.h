// The server as the main program sees it: it listens from Start on, serves once an engine is
// attached, and goes away after finishing what it has begun.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/status.h"
#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/options.h"

namespace seacliff::serve {

// The route table, for people.
std::string DescribeRoutes();

class Server {
 public:
  // Listens at once, on a thread of its own; until AttachEngine, /health says "loading" and what
  // needs the model is a 503. InvalidArgument names what is wrong with host, port or options.
  static Result<std::unique_ptr<Server>> Start(ServeOptions options);
  // Stops. The engine and the tokenizer must still be there.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Both must outlive the server. Once.
  void AttachEngine(Engine* engine, const Tokenizer* tokenizer, ChatProfile profile);

  int port() const;

  // New requests and /health get 503, running ones finish. True when all did within `timeout`; on
  // false they still run (Stop ends them).
  bool Drain(std::chrono::milliseconds timeout);
  // Cancels everything and closes all connections.
  void Stop();
  // Blocks until SIGINT or SIGTERM, then drains (options.drain_timeout; a second signal ends that
  // at once) and stops. True if every request finished.
  bool RunUntilSignal();
  // As the first signal does. From any thread.
  void Quit();

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace seacliff::serve
