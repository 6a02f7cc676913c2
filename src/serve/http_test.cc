// The HTTP layer over real sockets: keep-alive, limits, timeouts, clients that go away.
#include "serve/http.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "serve/testing/test_client.h"

namespace seacliff::serve {
namespace {

using testing::Client;
using testing::ClientReply;

// Echoes bodies; other paths do what their name says.
class HttpTest : public ::testing::Test {
 protected:
  void Start() {
    auto listening = HttpServer::Listen(
        "127.0.0.1", 0, limits_,
        [this](HttpRequest request, HttpReply reply) {
          Handle(std::move(request), std::move(reply));
        },
        [](int status, std::string_view message) {
          return fmt::format("{}: {}", status, message);
        });
    ASSERT_TRUE(listening.ok()) << listening.status().message();
    server_ = std::move(listening).value();
    thread_ = std::thread([this] { server_->Run(); });
  }
  ~HttpTest() override {
    if (!server_) return;
    server_->Post([this] { kept_ = HttpReply(); });
    server_->Stop();
    thread_.join();
  }

  void Handle(HttpRequest request, HttpReply reply) {
    if (request.path == "/keep") {
      reply.OnGone([this] { ++gone_; });
      kept_ = std::move(reply);
      ++kept_count_;
    } else if (request.path == "/flood") {
      reply.OnGone([this] { ++gone_; });
      reply.BeginStream({}, "text/plain");
      const std::string block(64 << 10, 'x');
      while (reply.open() && flooded_ < (64 << 20)) {
        reply.Write(block);
        flooded_ += block.size();
      }
      kept_ = std::move(reply);
    } else if (request.path == "/stream") {
      reply.BeginStream({{"X-A", "b"}}, "text/plain");
      reply.Write("one");
      reply.Write("");
      reply.Write("two");
      reply.End();
    } else if (request.path == "/drop") {
      HttpReply dropped = std::move(reply);
    } else {
      reply.Send(200, {}, "text/plain",
                 fmt::format("{} {} ?{} {} [{}]", request.method, request.path, request.query,
                             request.Header("x-MORE"), request.body));
    }
  }
  bool WaitGone(int count) {
    for (int i = 0; i < 1000 && gone_ < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return gone_ == count;
  }

  HttpLimits limits_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  HttpReply kept_;
  std::atomic<int> gone_{0}, kept_count_{0};
  size_t flooded_ = 0;
};

TEST_F(HttpTest, KeepsConnectionsAlive) {
  Start();
  Client client(server_->port());
  for (int i = 0; i < 3; ++i) {
    const ClientReply reply = client.Post("/a%20b?x=1", "body", "X-More: yes\r\n");
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, "POST /a b ?x=1 yes [body]");
    EXPECT_EQ(reply.Header("connection"), "keep-alive");
  }
  client.Send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.Read().Header("connection"), "close");
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpTest, AnswersPipelinedRequestsInOrder) {
  Start();
  Client client(server_->port());
  std::string all;
  for (int i = 0; i < 20; ++i) all += Client::Text("POST", fmt::format("/{}", i), "b");
  client.Send(all);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(client.Read().body, fmt::format("POST /{} ?  [b]", i));
  }
}

TEST_F(HttpTest, TakesRequestsByteByByte) {
  Start();
  Client client(server_->port());
  for (const char c : Client::Text("POST", "/x", "hello")) {
    client.Send(std::string_view(&c, 1));
  }
  EXPECT_EQ(client.Read().body, "POST /x ?  [hello]");
}

TEST_F(HttpTest, TakesChunkedAndLargeBodies) {
  Start();
  Client client(server_->port());
  client.Send(
      "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().body, "POST /c ?  [abcde]");
  const std::string large(5 << 20, 'y');
  EXPECT_EQ(client.Post("/l", large).body.size(), large.size() + 13);
}

TEST_F(HttpTest, Streams) {
  Start();
  Client client(server_->port());
  const ClientReply reply = client.Get("/stream");
  EXPECT_EQ(reply.body, "onetwo");
  EXPECT_EQ(reply.Header("x-a"), "b");
  EXPECT_EQ(reply.Header("transfer-encoding"), "chunked");
  EXPECT_EQ(client.Get("/after").status, 200);
}

TEST_F(HttpTest, Http10) {
  Start();
  Client old(server_->port());
  old.Send("GET /stream HTTP/1.0\r\n\r\n");
  const ClientReply reply = old.Read();
  EXPECT_EQ(reply.Header("transfer-encoding"), "");
  EXPECT_EQ(reply.body, "onetwo");
  Client plain(server_->port());
  plain.Send("GET /x HTTP/1.0\r\n\r\n");
  EXPECT_EQ(plain.Read().body, "GET /x ?  []");
  EXPECT_TRUE(plain.Closed());
  Client kept(server_->port());
  for (int i = 0; i < 2; ++i) {
    kept.Send("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(kept.Read().Header("connection"), "keep-alive");
  }
}

TEST_F(HttpTest, AnswersClientsThatCloseTheirSendingSide) {
  Start();
  Client client(server_->port());
  client.Send("GET /x HTTP/1.0\r\n\r\n");
  client.ShutdownSend();
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, ExpectContinue) {
  Start();
  Client client(server_->port());
  client.Send("POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("abc");
  EXPECT_EQ(client.Read().body, "POST /e ?  [abc]");
}

TEST_F(HttpTest, OldClientsGetNoContinue) {
  Start();
  Client client(server_->port());
  client.Send("POST /e HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  client.Send("abc");
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, EmptyLinesBeforeARequestAreSkipped) {
  Start();
  Client client(server_->port());
  for (int i = 0; i < 2; ++i) {
    client.Send("\r\n\r\n" + Client::Text("POST", "/x", "hello") + "\r\n");
    EXPECT_EQ(client.Read().body, "POST /x ?  [hello]");
  }
}

TEST_F(HttpTest, HeadHasNoBody) {
  Start();
  Client client(server_->port());
  client.Send(Client::Text("HEAD", "/x", ""));
  const ClientReply reply = client.Read(false);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("content-length"), "13");
  EXPECT_EQ(client.Get("/y").status, 200);
}

TEST_F(HttpTest, RefusesWhatIsTooLarge) {
  limits_.body_bytes = 1000;
  limits_.header_bytes = 2000;
  Start();
  Client declared(server_->port());
  declared.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_EQ(declared.Read().status, 413);
  // The reply must arrive although the client goes on sending.
  Client sent(server_->port());
  const ClientReply reply = sent.Post("/", std::string(300'000, 'x'));
  EXPECT_EQ(reply.status, 413);
  EXPECT_EQ(reply.Header("connection"), "close");
  Client chunked(server_->port());
  chunked.Send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
               std::string(2000, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.Read().status, 413);
  Client header(server_->port());
  EXPECT_EQ(header.Get("/", "X-Long: " + std::string(3000, 'x') + "\r\n").status, 431);
}

// What stands between chunks, and behind them, has no length of its own.
TEST_F(HttpTest, RefusesEndlessChunkHeaders) {
  limits_.header_bytes = 2000;
  Start();
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const char* begin : {"5;", "5\r\nhello\r\n3;x=", "0\r\nX-Trailer: "}) {
    Client client(server_->port());
    client.Send(head + begin + std::string(100'000, 'x'));
    EXPECT_EQ(client.Read().status, 431) << begin;
    EXPECT_TRUE(client.Closed());
  }
}

TEST_F(HttpTest, RefusesWhatIsNoHttp) {
  Start();
  for (const char* text : {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n",
                           "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
                           "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
                           "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
                           "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
                           "\x16\x03\x01\x02\r\n\r\n"}) {
    Client client(server_->port());
    client.Send(text);
    EXPECT_EQ(client.Read().status, 400) << text;
    EXPECT_TRUE(client.Closed());
  }
}

TEST_F(HttpTest, RefusesCodingsThatItCannotRead) {
  Start();
  for (const char* codings : {"gzip, chunked", "gzip\r\nTransfer-Encoding: chunked"}) {
    Client client(server_->port());
    client.Send(
        fmt::format("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {}\r\n\r\n", codings));
    client.Send("0\r\n\r\n");
    EXPECT_EQ(client.Read().status, 501) << codings;
  }
}

TEST_F(HttpTest, SlowAndIdleClientsAreClosed) {
  limits_.header_timeout = limits_.body_timeout = limits_.idle_timeout =
      std::chrono::milliseconds(300);
  Start();
  Client slow_header(server_->port()), slow_body(server_->port()), idle(server_->port());
  slow_header.Send("GET / HT");
  slow_body.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_EQ(slow_header.Read().status, 408);
  EXPECT_EQ(slow_body.Read().status, 408);
  EXPECT_TRUE(idle.Closed());
}

TEST_F(HttpTest, NoticesClientsThatGoAway) {
  Start();
  {
    Client client(server_->port());
    client.Send(Client::Text("GET", "/keep", ""));
    while (kept_count_ == 0) std::this_thread::yield();
    EXPECT_EQ(gone_, 0);
  }
  EXPECT_TRUE(WaitGone(1));
}

TEST_F(HttpTest, ClosesConnectionsThatSendTooMuchAhead) {
  Start();
  Client client(server_->port());
  client.Send(Client::Text("GET", "/keep", ""));
  client.Send(std::string(200'000, 'x'));
  EXPECT_TRUE(WaitGone(1));
}

TEST_F(HttpTest, CutsOffClientsThatDoNotRead) {
  limits_.queued_bytes = 1 << 20;
  Start();
  Client client(server_->port(), 4096);
  client.Send(Client::Text("GET", "/flood", ""));
  EXPECT_TRUE(WaitGone(1));
  std::promise<size_t> flooded;
  server_->Post([&] { flooded.set_value(flooded_); });
  EXPECT_LT(flooded.get_future().get(), size_t{32} << 20);
}

TEST_F(HttpTest, CutsOffClientsThatReadNothingForLong) {
  limits_.write_timeout = std::chrono::milliseconds(300);
  limits_.queued_bytes = 1 << 30;
  Start();
  Client client(server_->port(), 4096);
  client.Send(Client::Text("GET", "/flood", ""));
  EXPECT_TRUE(WaitGone(1));
}

TEST_F(HttpTest, DroppedRepliesAreErrors) {
  Start();
  EXPECT_EQ(Client(server_->port()).Get("/drop").status, 500);
}

TEST_F(HttpTest, FurtherConnectionsWait) {
  limits_.connections = 2;
  Start();
  auto first = std::make_unique<Client>(server_->port());
  Client second(server_->port()), third(server_->port());
  EXPECT_EQ(first->Get("/").status, 200);
  EXPECT_EQ(second.Get("/").status, 200);
  third.Send(Client::Text("GET", "/third", ""));
  first.reset();
  EXPECT_EQ(third.Read().status, 200);
}

TEST(HttpServer, SaysWhyItCannotListen) {
  const auto handler = [](HttpRequest, HttpReply) {};
  const auto body = [](int, std::string_view) { return std::string(); };
  auto first = HttpServer::Listen("127.0.0.1", 0, {}, handler, body);
  ASSERT_TRUE(first.ok());
  const auto second = HttpServer::Listen("127.0.0.1", first.value()->port(), {}, handler, body);
  EXPECT_EQ(second.status().code(), Code::kInvalidArgument);
  EXPECT_NE(second.status().message().find("bind"), std::string::npos);
  EXPECT_FALSE(HttpServer::Listen("999.1.1.1", 0, {}, handler, body).ok());
}

}  // namespace
}  // namespace seacliff::serve
