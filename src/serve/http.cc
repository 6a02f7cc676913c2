// The HTTP server: Asio for sockets and timers, Beast's parser for requests, callbacks throughout.
// A connection always waits for its socket to become readable, also while its request is being
// handled: that is how a client that goes away is noticed.
#include "serve/http.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio.hpp>
#include <boost/beast/http.hpp>
#include <deque>
#include <optional>
#include <unordered_set>

#include "base/check.h"
#include "base/log.h"
#include "base/open_files.h"
#include "serve/http_body.h"
#include "serve/http_text.h"

namespace seacliff::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr size_t kScratchBytes = 64 << 10;
// What a client may send ahead while its request is handled. Beyond it the socket would not be
// read, and the client's end not be noticed, so the connection is closed.
constexpr size_t kAheadBytes = 64 << 10;
constexpr size_t kGatheredWrites = 16;
constexpr std::chrono::milliseconds kSweepInterval{200};
// How long a refused client may go on sending before its connection is closed under it.
constexpr std::chrono::milliseconds kLinger{2'000};
// Files of the process beside its connections: checkpoints, GPUs, other ranks.
constexpr size_t kOtherFiles = 256;

std::string Chunk(std::string_view data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

// How many of so many connections can be open at once, in a process that may have that many files.
size_t ConnectionsThatFit(size_t wanted) {
  const size_t files = RaiseOpenFiles(wanted + kOtherFiles);
  if (files >= wanted + kOtherFiles) return wanted;
  const size_t fit = files > 2 * kOtherFiles ? files - kOtherFiles : files / 2;
  if (fit >= wanted) return wanted;
  SC_LOG_WARN("http: the process may have {} files open: at most {} connections, not {}", files,
              fit, wanted);
  return fit;
}

}  // namespace

struct HttpServer::State {
  State(HttpLimits limits_in, Handler handler_in, ErrorBody error_body_in)
      : limits(limits_in),
        handler(std::move(handler_in)),
        error_body(std::move(error_body_in)),
        scratch(kScratchBytes) {}

  void Accept();
  void Sweep();
  void ArmSweep();
  void ArmTimer(asio::steady_timer* timer, std::chrono::milliseconds interval,
                std::shared_ptr<std::function<void()>> task);
  void ArmSignals(std::shared_ptr<std::function<void(int)>> task);
  void Remove(const std::shared_ptr<HttpConnection>& connection);
  void CloseAll();

  HttpLimits limits;
  Handler handler;
  ErrorBody error_body;
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  tcp::acceptor acceptor{io};
  asio::steady_timer sweep_timer{io};
  asio::steady_timer accept_pause{io};
  std::deque<asio::steady_timer> timers;
  asio::signal_set signals{io};
  bool accepting = false;
  bool stopped = false;
  std::unordered_set<std::shared_ptr<HttpConnection>> connections;
  std::vector<char> scratch;  // one for all connections: reads never overlap on one thread
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(tcp::socket socket, HttpServer::State* server)
      : socket_(std::move(socket)), server_(server) {}

  void Start() {
    NextRequest();
    WaitReadable();
  }

  bool open() const { return !closed_ && phase_ == Phase::kHandling && !reply_done_; }
  bool streaming() const { return streaming_; }
  bool busy() const { return phase_ == Phase::kHandling || !out_.empty(); }
  void OnGone(std::function<void()> callback) { on_gone_ = std::move(callback); }

  void Send(int status, const HttpHeaders& headers, std::string_view type, std::string_view body) {
    if (!open()) return;
    SC_CHECK(!streaming_);
    std::string head = Head(status, headers, type);
    fmt::format_to(std::back_inserter(head), "Content-Length: {}\r\n\r\n", body.size());
    if (!head_only_) head += body;
    Queue(std::move(head));
    ReplyDone();
  }

  void BeginStream(const HttpHeaders& headers, std::string_view type) {
    if (!open()) return;
    SC_CHECK(!streaming_);
    streaming_ = true;
    if (!chunked_) keep_alive_ = false;
    std::string head = Head(200, headers, type);
    head += chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
    Queue(std::move(head));
  }

  void Write(std::string_view data) {
    if (!open() || data.empty()) return;
    SC_CHECK(streaming_);
    if (queued_bytes_ > server_->limits.queued_bytes) {
      SC_LOG_WARN("http: a client does not read its stream; {} bytes waiting, closing it",
                  queued_bytes_);
      return Close();
    }
    Queue(chunked_ ? Chunk(data) : std::string(data));
  }

  void End() {
    if (!open()) return;
    if (chunked_) Queue("0\r\n\r\n");
    ReplyDone();
  }

  // The reply was dropped: nothing said yet is a 500, half a stream is cut off.
  void Abandon() {
    if (!open()) return;
    on_gone_ = nullptr;
    if (streaming_) return Close();
    Send(500, {}, "application/json", server_->error_body(500, "the request was dropped"));
  }

  bool IsDue(Clock::time_point now) const {
    return now >= write_deadline_ || now >= read_deadline_;
  }

  // What a deadline that has passed asks for.
  void Sweep(Clock::time_point now) {
    if (closed_) return;
    if (now >= write_deadline_) return Close();
    if (phase_ == Phase::kReading && !in_.empty()) return Refuse(408, "the request took too long");
    if (phase_ == Phase::kReading && parser_->is_header_done()) {
      return Refuse(408, "the request took too long");
    }
    Close();
  }

  void Close() {
    if (closed_) return;
    closed_ = true;
    if (on_gone_) asio::post(server_->io, std::move(on_gone_));
    on_gone_ = nullptr;
    error_code ignored;
    socket_.close(ignored);
    server_->Remove(shared_from_this());
  }

 private:
  enum class Phase { kReading, kHandling, kLingering };
  static constexpr auto kNever = Clock::time_point::max();

  void NextRequest() {
    phase_ = Phase::kReading;
    streaming_ = reply_done_ = saw_header_ = false;
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(static_cast<uint32_t>(server_->limits.header_bytes));
    parser_->body_limit(server_->limits.body_bytes);
    read_deadline_ = Clock::now() + server_->limits.idle_timeout;
    started_ = false;
  }

  void WaitReadable() {
    if (waiting_ || closed_) return;
    if (reply_done_ && in_.size() >= kAheadBytes) return;  // until it is sent
    waiting_ = true;
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      self->waiting_ = false;
      if (self->closed_ || error == asio::error::operation_aborted) return;
      self->Read();
    });
  }

  void Read() {
    error_code error;
    const size_t count = socket_.read_some(asio::buffer(server_->scratch), error);
    if (error == asio::error::would_block || error == asio::error::try_again) {
      return WaitReadable();
    }
    if (error) return PeerClosed(error);
    const std::string_view data(server_->scratch.data(), count);
    if (phase_ == Phase::kReading && in_.empty()) {
      Parse(data);
    } else if (phase_ != Phase::kLingering) {
      in_ += data;
      if (phase_ == Phase::kReading) Parse(in_);
      if (open() && in_.size() > kAheadBytes) return Close();
    }
    WaitReadable();
  }

  // The client has closed its sending side. It may still wait for a reply already on its way, but
  // not for one that is not written yet: clients that give up look exactly like this.
  void PeerClosed(error_code error) {
    if (error == asio::error::eof && phase_ == Phase::kHandling && reply_done_) {
      keep_alive_ = false;
      return;
    }
    Close();
  }

  // `data` is in_, or new where that is empty; what is left of it for later goes to in_, which
  // takes no more memory than that: thousands of connections are idle.
  void Parse(std::string_view data) {
    // Some clients end a body with an empty line, which is part of nothing.
    while (!parser_->got_some() && data.starts_with("\r\n")) data.remove_prefix(2);
    if (data.empty()) return in_.clear();
    if (!started_) {
      started_ = true;
      read_deadline_ = Clock::now() + server_->limits.header_timeout;
    }
    error_code error;
    const size_t used = parser_->put(asio::buffer(data), error);
    if (used > 0 || in_.empty()) in_ = std::string(data.substr(used));
    if (error == http::error::body_limit) return Refuse(413, TooLarge());
    if (error == http::error::header_limit) {
      return Refuse(431, "the request's header is too large");
    }
    if (error && error != http::error::need_more) {
      return Refuse(400, fmt::format("not a valid HTTP request: {}", error.message()));
    }
    if (parser_->is_header_done() && RefuseHeader()) return;
    if (parser_->is_done()) return Dispatch();
    if (in_.size() > server_->limits.header_bytes) {
      // The parser looks at its limit only when it has found the end of the header, and knows none
      // for what stands between the chunks of a body and behind them.
      return Refuse(431, parser_->is_header_done() ? "a chunk's header or the trailer is too large"
                                                   : "the request's header is too large");
    }
    if (!parser_->is_header_done()) return;
    read_deadline_ = Clock::now() + server_->limits.body_timeout;
    if (saw_header_) return;
    saw_header_ = true;
    if (parser_->get().version() >= 11 &&
        SameName(ToView(parser_->get()[http::field::expect]), "100-continue")) {
      Queue("HTTP/1.1 100 Continue\r\n\r\n");
    }
  }

  // What the parser lets pass, and RFC 9112 does not; and what cannot be read.
  bool RefuseHeader() {
    const auto& header = parser_->get();
    const size_t encodings = header.count(http::field::transfer_encoding);
    if (header.version() >= 11 && header.count(http::field::host) != 1) {
      Refuse(400, "HTTP/1.1 needs one Host");
    } else if (encodings > 0 && !parser_->chunked()) {
      Refuse(400, "Transfer-Encoding: only \"chunked\" can be read");
    } else if (encodings > 1 ||
               (encodings == 1 &&
                !SameName(ToView(header[http::field::transfer_encoding]), "chunked"))) {
      Refuse(501, "Transfer-Encoding: only \"chunked\" can be read");
    } else {
      return false;
    }
    return true;
  }

  std::string TooLarge() const {
    return fmt::format("the request body is larger than the limit of {} bytes",
                       server_->limits.body_bytes);
  }

  template <typename View>
  static std::string_view ToView(const View& view) {
    return {view.data(), view.size()};
  }

  void Dispatch() {
    auto message = parser_->release();
    HttpRequest request;
    request.method = std::string(ToView(message.method_string()));
    const std::string_view target = ToView(message.target());
    const size_t mark = target.find('?');
    request.path = PercentDecoded(target.substr(0, mark));
    if (mark != std::string_view::npos) request.query = std::string(target.substr(mark + 1));
    for (const auto& field : message) {
      request.headers.emplace_back(ToView(field.name_string()), ToView(field.value()));
    }
    request.body = std::move(message.body());
    request.arrived = Clock::now();
    keep_alive_ = message.keep_alive();
    chunked_ = message.version() >= 11;
    head_only_ = message.method() == http::verb::head;
    BeginHandling();
    server_->handler(std::move(request), HttpReply(shared_from_this()));
  }

  void BeginHandling() {
    phase_ = Phase::kHandling;
    read_deadline_ = kNever;
  }

  void Refuse(int status, std::string_view message) {
    keep_alive_ = chunked_ = head_only_ = false;
    BeginHandling();
    in_.clear();
    Send(status, {}, "application/json", server_->error_body(status, message));
  }

  std::string Head(int status, const HttpHeaders& headers, std::string_view type) const {
    std::string head =
        fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n", status,
                    ToView(http::obsolete_reason(static_cast<http::status>(status))), type);
    for (const auto& [name, value] : headers) {
      fmt::format_to(std::back_inserter(head), "{}: {}\r\n", name, value);
    }
    // HTTP/1.0 clients that asked for it must be told.
    head += keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
    return head;
  }

  void Queue(std::string data) {
    queued_bytes_ += data.size();
    out_.push_back(std::move(data));
    Flush();
  }

  void ReplyDone() {
    reply_done_ = true;
    on_gone_ = nullptr;
    if (out_.empty()) AfterReply();
  }

  void Flush() {
    if (writing_ || out_.empty() || closed_) return;
    writing_ = true;
    write_deadline_ = Clock::now() + server_->limits.write_timeout;
    std::array<asio::const_buffer, kGatheredWrites> buffers;
    const size_t count = std::min(buffers.size(), out_.size());
    for (size_t i = 0; i < count; ++i) buffers[i] = asio::buffer(out_[i]);
    buffers[0] += sent_of_first_;
    socket_.async_write_some(buffers, [self = shared_from_this()](error_code error, size_t sent) {
      self->Written(error, sent);
    });
  }

  void Written(error_code error, size_t sent) {
    writing_ = false;
    write_deadline_ = kNever;
    if (closed_) return;
    if (error) return Close();
    queued_bytes_ -= sent;
    sent += sent_of_first_;
    while (!out_.empty() && sent >= out_.front().size()) {
      sent -= out_.front().size();
      out_.pop_front();
    }
    sent_of_first_ = sent;
    if (!out_.empty()) return Flush();
    if (phase_ == Phase::kHandling && reply_done_) AfterReply();
  }

  void AfterReply() {
    if (!keep_alive_ || server_->stopped) {
      // Closing with unread bytes in the socket would reset the connection under the reply.
      phase_ = Phase::kLingering;
      read_deadline_ = Clock::now() + kLinger;
      in_.clear();
      error_code error;
      socket_.shutdown(tcp::socket::shutdown_send, error);
      if (error) return Close();
      return WaitReadable();
    }
    NextRequest();
    Parse(in_);
    WaitReadable();
  }

  tcp::socket socket_;
  HttpServer::State* server_;
  Phase phase_ = Phase::kReading;
  std::optional<http::request_parser<HttpBody>> parser_;
  std::string in_;  // read, not parsed
  std::deque<std::string> out_;
  size_t sent_of_first_ = 0;
  size_t queued_bytes_ = 0;
  Clock::time_point read_deadline_ = kNever, write_deadline_ = kNever;
  std::function<void()> on_gone_;
  bool waiting_ = false, writing_ = false, closed_ = false;
  bool started_ = false, saw_header_ = false;
  bool keep_alive_ = true, chunked_ = true, head_only_ = false;
  bool streaming_ = false, reply_done_ = false;
};

void HttpServer::State::Accept() {
  if (accepting || stopped || connections.size() >= limits.connections) return;
  accepting = true;
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    accepting = false;
    if (stopped || error == asio::error::operation_aborted) return;
    if (error) {
      // Out of file descriptors, most likely: the connection stays queued; look again shortly.
      SC_LOG_WARN("http: accept: {}", error.message());
      accept_pause.expires_after(std::chrono::milliseconds(100));
      accept_pause.async_wait([this](error_code cancelled) {
        if (!cancelled) Accept();
      });
      return;
    }
    socket.non_blocking(true, error);
    socket.set_option(tcp::no_delay(true), error);
    auto connection = std::make_shared<HttpConnection>(std::move(socket), this);
    connections.insert(connection);
    connection->Start();
    Accept();
  });
}

void HttpServer::State::Remove(const std::shared_ptr<HttpConnection>& connection) {
  connections.erase(connection);
  Accept();
}

void HttpServer::State::Sweep() {
  const auto now = Clock::now();
  std::vector<std::shared_ptr<HttpConnection>> due;  // closing one changes the set
  for (const auto& connection : connections) {
    if (connection->IsDue(now)) due.push_back(connection);
  }
  for (const auto& connection : due) connection->Sweep(now);
}

void HttpServer::State::ArmSweep() {
  sweep_timer.expires_after(kSweepInterval);
  sweep_timer.async_wait([this](error_code error) {
    if (error || stopped) return;
    Sweep();
    ArmSweep();
  });
}

void HttpServer::State::ArmTimer(asio::steady_timer* timer, std::chrono::milliseconds interval,
                                 std::shared_ptr<std::function<void()>> task) {
  timer->expires_after(interval);
  timer->async_wait([this, timer, interval, task](error_code error) {
    if (error || stopped) return;
    (*task)();
    ArmTimer(timer, interval, task);
  });
}

void HttpServer::State::ArmSignals(std::shared_ptr<std::function<void(int)>> task) {
  signals.async_wait([this, task](error_code error, int signal) {
    if (error) return;
    (*task)(signal);
    if (!stopped) ArmSignals(task);
  });
}

void HttpServer::State::CloseAll() {
  if (stopped) return;
  stopped = true;
  error_code ignored;
  acceptor.close(ignored);
  signals.cancel(ignored);
  sweep_timer.cancel();
  accept_pause.cancel();
  for (asio::steady_timer& timer : timers) timer.cancel();
  const std::vector<std::shared_ptr<HttpConnection>> all(connections.begin(), connections.end());
  for (const auto& connection : all) connection->Close();
  work.reset();
}

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (SameName(key, name)) return value;
  }
  return {};
}

HttpReply::HttpReply(std::shared_ptr<HttpConnection> connection)
    : connection_(std::move(connection)) {}

HttpReply& HttpReply::operator=(HttpReply&& other) noexcept {
  if (this != &other) {
    Drop();
    connection_ = std::move(other.connection_);
  }
  return *this;
}

HttpReply::~HttpReply() { Drop(); }

void HttpReply::Drop() {
  if (connection_) connection_->Abandon();
  connection_.reset();
}

bool HttpReply::open() const { return connection_ && connection_->open(); }

bool HttpReply::streaming() const { return connection_ && connection_->streaming(); }

void HttpReply::Send(int status, const HttpHeaders& headers, std::string_view content_type,
                     std::string_view body) {
  if (connection_) connection_->Send(status, headers, content_type, body);
  connection_.reset();
}

void HttpReply::BeginStream(const HttpHeaders& headers, std::string_view content_type) {
  if (connection_) connection_->BeginStream(headers, content_type);
}

void HttpReply::Write(std::string_view data) {
  if (connection_) connection_->Write(data);
}

void HttpReply::End() {
  if (connection_) connection_->End();
  connection_.reset();
}

void HttpReply::OnGone(std::function<void()> callback) {
  if (connection_) connection_->OnGone(std::move(callback));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() { state_->CloseAll(); }

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(const std::string& host, int port,
                                                       HttpLimits limits, Handler handler,
                                                       ErrorBody error_body) {
  limits.connections = ConnectionsThatFit(limits.connections);
  auto state = std::make_unique<State>(limits, std::move(handler), std::move(error_body));
  const auto failed = [&](const char* what, const error_code& error) {
    return InvalidArgument(
        fmt::format("listen on {}:{}: {}: {}", host, port, what, error.message()));
  };
  error_code error;
  tcp::resolver resolver(state->io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) return failed("host", error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  if (state->acceptor.open(endpoint.protocol(), error)) return failed("socket", error);
  if (state->acceptor.set_option(tcp::acceptor::reuse_address(true), error)) {
    return failed("reuse address", error);
  }
  if (state->acceptor.bind(endpoint, error)) return failed("bind", error);
  if (state->acceptor.listen(asio::socket_base::max_listen_connections, error)) {
    return failed("listen", error);
  }
  state->Accept();
  state->ArmSweep();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

int HttpServer::port() const {
  error_code ignored;
  return state_->acceptor.local_endpoint(ignored).port();
}

void HttpServer::Run() { state_->io.run(); }

void HttpServer::Post(std::function<void()> task) { asio::post(state_->io, std::move(task)); }

void HttpServer::Stop() {
  asio::post(state_->io, [state = state_.get()] { state->CloseAll(); });
}

void HttpServer::Every(std::chrono::milliseconds interval, std::function<void()> task) {
  state_->timers.emplace_back(state_->io);
  state_->ArmTimer(&state_->timers.back(), interval,
                   std::make_shared<std::function<void()>>(std::move(task)));
}

void HttpServer::OnSignal(std::function<void(int)> task) {
  error_code error;
  state_->signals.add(SIGINT, error);
  state_->signals.add(SIGTERM, error);
  if (error) SC_LOG_WARN("http: signals: {}", error.message());
  state_->ArmSignals(std::make_shared<std::function<void(int)>>(std::move(task)));
}

size_t HttpServer::busy() const {
  size_t count = 0;
  for (const auto& connection : state_->connections) count += connection->busy() ? 1 : 0;
  return count;
}

}  // namespace seacliff::serve
