// The server's thread and its life.
#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/stacks.h"
#include "serve/service.h"

namespace seacliff::serve {

namespace {

// How long clients may take to get their last errors.
constexpr std::chrono::seconds kFarewell(1);

}  // namespace

struct Server::State {
  explicit State(ServeOptions options_in) : options(options_in), service(std::move(options_in)) {}

  // Waits until `ready` holds, but no longer than `timeout`.
  template <typename Ready>
  bool WaitFor(std::chrono::milliseconds timeout, Ready ready) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, timeout, ready);
  }

  void BeginDrain() {
    http->Post([this] {
      service.Drain([this] {
        std::lock_guard lock(mutex);
        drained = true;
        changed.notify_all();
      });
    });
  }

  const ServeOptions options;
  // The service goes first: it cancels through the engine and answers through http.
  std::unique_ptr<HttpServer> http;
  Service service;
  std::thread thread;

  std::mutex mutex;
  std::condition_variable changed;
  bool drained = false;
  int signals = 0;
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { Stop(); }

Result<std::unique_ptr<Server>> Server::Start(ServeOptions options) {
  if (options.model_names.empty()) return InvalidArgument("model_names: at least one is needed");
  const auto has_empty = [](const std::vector<std::string>& list) {
    return std::find(list.begin(), list.end(), "") != list.end();
  };
  if (has_empty(options.model_names)) return InvalidArgument("--served-model-name: is empty");
  if (has_empty(options.api_keys)) {
    return InvalidArgument("--api-key: is empty, which would let everybody in");
  }
  if (options.port < 0 || options.port > 65535) return InvalidArgument("port: not a port");
  auto state = std::make_unique<State>(std::move(options));
  Service* service = &state->service;
  SC_ASSIGN_OR_RETURN(state->http,
                      HttpServer::Listen(
                          state->options.host, state->options.port, state->options.http,
                          [service](HttpRequest request, HttpReply reply) {
                            service->Handle(std::move(request), std::move(reply));
                          },
                          [](int status, std::string_view message) {
                            return ErrorBody({status, std::string(message), "", "", 0});
                          }));
  service->Start(state->http.get());
  state->thread = std::thread([http = state->http.get()] {
    NameThread("server");
    http->Run();
  });
  SC_LOG_INFO("listening on http://{}:{}", state->options.host, state->http->port());
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

void Server::AttachEngine(Engine* engine, const Tokenizer* tokenizer, ChatProfile profile) {
  state_->http->Post([service = &state_->service, engine, tokenizer, profile] {
    service->Attach(engine, tokenizer, profile);
  });
}

int Server::port() const { return state_->http->port(); }

bool Server::Drain(std::chrono::milliseconds timeout) {
  state_->BeginDrain();
  return state_->WaitFor(timeout, [this] { return state_->drained; });
}

void Server::Stop() {
  if (!state_->thread.joinable()) return;
  state_->http->Post([service = &state_->service] { service->CancelAll(); });
  state_->BeginDrain();
  state_->WaitFor(kFarewell, [this] { return state_->drained; });
  state_->http->Stop();
  state_->thread.join();
}

void Server::Quit() {
  const std::lock_guard lock(state_->mutex);
  ++state_->signals;
  state_->changed.notify_all();
}

bool Server::RunUntilSignal() {
  State& state = *state_;
  state.http->Post([this, &state] { state.http->OnSignal([this](int) { Quit(); }); });
  {
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return state.signals > 0; });
  }
  SC_LOG_INFO("draining: no new requests; running ones finish (a second signal ends them)");
  state.BeginDrain();
  state.WaitFor(state.options.drain_timeout, [&] { return state.drained || state.signals > 1; });
  const bool finished = state.WaitFor(std::chrono::seconds(0), [&] { return state.drained; });
  Stop();
  SC_LOG_INFO(finished ? "all requests finished" : "stopped with requests unfinished");
  return finished;
}

}  // namespace seacliff::serve
