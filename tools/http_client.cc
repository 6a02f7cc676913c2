// Asio for sockets and timers, Beast's parser for answers, callbacks throughout.
#include "tools/http_client.h"

#include <fmt/format.h>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>

namespace seacliff {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kConnectTimeout{10};
// A long prompt may keep a server silent for long.
constexpr std::chrono::minutes kSilence{10};
constexpr size_t kReadBytes = 64 << 10;

// A body that is handed on as it comes.
struct PassedOn {
  using value_type = std::function<void(std::string_view)>;

  class reader {  // NOLINT(readability-identifier-naming): Beast's name
   public:
    template <bool kIsRequest, typename Fields>
    reader(http::header<kIsRequest, Fields>&, value_type& take) : take_(take) {}

    void init(const boost::optional<uint64_t>&, error_code& error) { error = {}; }
    template <typename Buffers>
    size_t put(const Buffers& buffers, error_code& error) {
      error = {};
      size_t bytes = 0;
      for (const asio::const_buffer buffer : beast::buffers_range_ref(buffers)) {
        take_({static_cast<const char*>(buffer.data()), buffer.size()});
        bytes += buffer.size();
      }
      return bytes;
    }
    void finish(error_code& error) { error = {}; }

   private:
    value_type& take_;
  };
};

// One request and its answer.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(asio::io_context& io, std::string authority, std::string request, HttpCall call)
      : stream_(io),
        authority_(std::move(authority)),
        request_(std::move(request)),
        call_(std::move(call)),
        buffer_(kReadBytes) {
    parser_.body_limit(boost::none);
    parser_.eager(true);
    parser_.get().body() = [this](std::string_view part) {
      if (call_.on_body) call_.on_body(parser_.get().result_int(), part);
    };
  }

  void Start(const tcp::resolver::results_type& endpoints) {
    stream_.expires_after(kConnectTimeout);
    stream_.async_connect(endpoints, [self = shared_from_this()](error_code error, const auto&) {
      if (error) return self->End("cannot connect", error);
      self->Write();
    });
  }

 private:
  void Write() {
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    stream_.expires_after(kSilence);
    asio::async_write(stream_, asio::buffer(request_),
                      [self = shared_from_this()](error_code error, size_t) {
                        if (error) return self->End("cannot send the request", error);
                        self->Read();
                      });
  }

  void Read() {
    stream_.expires_after(kSilence);
    http::async_read_some(stream_, buffer_, parser_,
                          [self = shared_from_this()](error_code error, size_t) {
                            if (error) return self->End("the answer broke off", error);
                            if (self->parser_.is_done()) return self->End(nullptr, {});
                            self->Read();
                          });
  }

  // Without `what` all is well.
  void End(const char* what, error_code error) {
    error_code ignored;
    stream_.socket().close(ignored);
    const int status = parser_.is_header_done() ? parser_.get().result_int() : 0;
    if (what == nullptr) return call_.on_end(OkStatus(), status);
    const std::string why = error == beast::error::timeout ? "it takes too long" : error.message();
    call_.on_end(Internal(fmt::format("{}: {}: {}", authority_, what, why)), status);
  }

  beast::tcp_stream stream_;
  std::string authority_, request_;
  HttpCall call_;
  beast::flat_buffer buffer_;
  http::response_parser<PassedOn> parser_;
};

}  // namespace

struct HttpClient::State {
  Url url;
  std::string headers;
  asio::io_context io{1};
  tcp::resolver::results_type endpoints;
};

std::string Url::authority() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return is_v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<Url> ParseUrl(std::string_view text) {
  const auto wrong = [whole = std::string(text)](const char* why) {
    return InvalidArgument(fmt::format("\"{}\": {}", whole, why));
  };
  if (text.starts_with("https://")) return wrong("https is not supported; use http://");
  if (!text.starts_with("http://")) return wrong("must begin with http://");
  text.remove_prefix(std::string_view("http://").size());
  Url url;
  const size_t slash = std::min(text.find('/'), text.size());
  url.prefix = text.substr(slash);
  while (url.prefix.ends_with('/')) url.prefix.pop_back();
  std::string_view authority = text.substr(0, slash);
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return wrong("the bracket of its address is not closed");
    url.host = authority.substr(1, end - 1);
    authority.remove_prefix(end + 1);
  } else {
    url.host = authority.substr(0, authority.find(':'));
    authority.remove_prefix(url.host.size());
  }
  if (url.host.empty()) return wrong("has no host");
  if (!authority.empty()) {
    if (authority.front() != ':' ||
        authority.find_first_not_of("0123456789", 1) != std::string_view::npos) {
      return wrong("its port must be a number");
    }
    if (authority.size() > 1) url.port = authority.substr(1);
  }
  return url;
}

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::~HttpClient() = default;

Result<std::unique_ptr<HttpClient>> HttpClient::Open(
    const Url& url, std::vector<std::pair<std::string, std::string>> headers) {
  auto state = std::make_unique<State>();
  state->url = url;
  for (const auto& [name, value] : headers) {
    fmt::format_to(std::back_inserter(state->headers), "{}: {}\r\n", name, value);
  }
  error_code error;
  tcp::resolver resolver(state->io);
  state->endpoints = resolver.resolve(url.host, url.port, error);
  if (error) {
    return InvalidArgument(
        fmt::format("{}: cannot find the host: {}", url.authority(), error.message()));
  }
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(state)));
}

void HttpClient::Start(HttpCall call) {
  const std::string authority = state_->url.authority();
  std::string request = fmt::format(
      "{} {}{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n{}\r\n{}",
      call.method, state_->url.prefix, call.path, authority, call.body.size(), state_->headers,
      call.body);
  std::make_shared<Exchange>(state_->io, authority, std::move(request), std::move(call))
      ->Start(state_->endpoints);
}

void HttpClient::At(Clock::time_point when, std::function<void()> task) {
  auto timer = std::make_shared<asio::steady_timer>(state_->io, when);
  timer->async_wait([timer, task = std::move(task)](error_code error) {
    if (!error) task();
  });
}

void HttpClient::Run() {
  state_->io.restart();
  state_->io.run();
}

Result<std::string> HttpClient::Get(const std::string& path) {
  std::string body;
  Status outcome;
  int code = 0;
  HttpCall call;
  call.path = path;
  call.on_body = [&](int, std::string_view part) { body += part; };
  call.on_end = [&](const Status& error, int status) {
    outcome = error;
    code = status;
  };
  Start(std::move(call));
  Run();
  SC_RETURN_IF_ERROR(outcome);
  if (code == 200) return body;
  return Internal(fmt::format("{}: {}: HTTP {}", state_->url.authority(), path, code));
}

}  // namespace seacliff
