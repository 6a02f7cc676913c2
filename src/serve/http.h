// HTTP/1.1 and 1.0 over TCP, for one server thread: whole requests in, whole or streamed replies
// out. It knows no routes and no JSON. Boost stays inside http.cc.
//
// Everything here belongs to the thread in HttpServer::Run, but for Post and Stop.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace seacliff::serve {

class HttpConnection;

struct HttpLimits {
  size_t header_bytes = 64 << 10;  // more: 431
  size_t body_bytes = 64 << 20;    // more: 413
  size_t queued_bytes = 4 << 20;   // of a stream whose client does not read: it is cut off
  size_t connections = 16384;      // further ones wait in the kernel's queue
  std::chrono::milliseconds header_timeout{30'000};  // from a request's first byte
  std::chrono::milliseconds body_timeout{60'000};    // without any byte of the body
  std::chrono::milliseconds idle_timeout{75'000};    // between requests
  std::chrono::milliseconds write_timeout{60'000};   // without the client taking any byte
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;
  std::string path;   // percent-decoded, without the query
  std::string query;  // as sent, without the "?"
  HttpHeaders headers;
  std::string body;
  std::chrono::steady_clock::time_point arrived;

  // The first header of that name, in any case of letters; "" if there is none.
  std::string_view Header(std::string_view name) const;
};

// The way back to the client of one request: Send once, or BeginStream, Write..., End. One that is
// dropped unanswered sends a bare 500 (or cuts its stream off).
class HttpReply {
 public:
  HttpReply() = default;
  explicit HttpReply(std::shared_ptr<HttpConnection> connection);
  HttpReply(HttpReply&&) noexcept = default;
  HttpReply& operator=(HttpReply&& other) noexcept;
  ~HttpReply();

  // The client is there and the reply has not ended. After it has gone, the rest do nothing.
  bool open() const;
  bool streaming() const;

  void Send(int status, const HttpHeaders& headers, std::string_view content_type,
            std::string_view body);
  // 200 with chunked transfer (HTTP/1.0: until the connection closes).
  void BeginStream(const HttpHeaders& headers, std::string_view content_type);
  void Write(std::string_view data);
  void End();

  // Called once, from the loop and never from inside a call here, if the client goes away (or is
  // cut off) before the reply has ended.
  void OnGone(std::function<void()> callback);

 private:
  void Drop();
  std::shared_ptr<HttpConnection> connection_;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest, HttpReply)>;
  // The body for what is refused before the handler sees it: 400, 408, 413, 431.
  using ErrorBody = std::function<std::string(int status, std::string_view message)>;

  // Listens at once; port 0 takes a free one. Connections are served from Run on. Raises the
  // process's soft limit of open files for them; where the hard limit allows fewer connections,
  // that is the limit, and the log says so.
  static Result<std::unique_ptr<HttpServer>> Listen(const std::string& host, int port,
                                                    HttpLimits limits, Handler handler,
                                                    ErrorBody error_body);
  ~HttpServer();

  int port() const;

  // Serves on the calling thread until Stop.
  void Run();
  // Any thread: `task` runs on the server's thread, in the order of posting.
  void Post(std::function<void()> task);
  // Any thread: closes everything; Run returns when what was posted before has run.
  void Stop();

  void Every(std::chrono::milliseconds interval, std::function<void()> task);
  // SIGINT and SIGTERM, from the call on.
  void OnSignal(std::function<void(int signal)> task);
  // Requests being handled, or whose reply is still being sent.
  size_t busy() const;

  struct State;

 private:
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace seacliff::serve
