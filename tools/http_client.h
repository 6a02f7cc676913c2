// Plain HTTP/1.1 requests to one server, many at a time, on one thread. A connection for each
// request, so that none depends on how long the server keeps idle ones. No redirects, no https.
// Boost stays inside http_client.cc.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace seacliff {

// "http://host:port/prefix"
struct Url {
  std::string host;  // without the brackets of an IPv6 address
  std::string port = "80";
  std::string prefix;  // "" or "/..." without a slash at its end

  std::string authority() const;  // "host:port"
};
Result<Url> ParseUrl(std::string_view text);

struct HttpCall {
  std::string method = "GET";
  std::string path;  // below the prefix: "/v1/models"
  std::string body;  // JSON
  // Each part of the body as it comes, with the status of the answer.
  std::function<void(int status, std::string_view part)> on_body;
  // Once, last: OK when the answer is complete, whatever its status; else why it is not. `status`
  // is 0 if no answer began.
  std::function<void(const Status& error, int status)> on_end;
};

class HttpClient {
 public:
  using Clock = std::chrono::steady_clock;

  // Looks the host up.
  static Result<std::unique_ptr<HttpClient>> Open(
      const Url& url, std::vector<std::pair<std::string, std::string>> headers);
  ~HttpClient();

  // The callbacks run within Run.
  void Start(HttpCall call);
  void At(Clock::time_point when, std::function<void()> task);
  // Until no call is under way and no task is waiting.
  void Run();

  // Start and Run for a whole answer: its body if its status is 200.
  Result<std::string> Get(const std::string& path);

  struct State;

 private:
  explicit HttpClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace seacliff
