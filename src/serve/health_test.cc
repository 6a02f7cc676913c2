// Stalls, the proof of life and requests that take too long.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "serve/testing/server_fixture.h"
#include "serve/watchdog.h"

namespace seacliff::serve::testing {
namespace {

using namespace std::chrono_literals;

TEST(StallClockTest, TellsWorkWithoutSteps) {
  StallClock::Clock::time_point now{};
  StallClock clock(10s, now);
  EngineStats stats;
  const auto after = [&](std::chrono::seconds seconds) {
    return clock.Look(stats, now += seconds);
  };
  EXPECT_FALSE(after(100s));  // no work
  stats.waiting = 1;
  EXPECT_FALSE(after(10s));
  EXPECT_TRUE(after(1s));
  stats.steps = 1;
  EXPECT_FALSE(after(1s));
  EXPECT_FALSE(after(10s));
  stats.steps = 2;
  EXPECT_FALSE(after(10s));
  EXPECT_TRUE(after(11s));
  stats.waiting = 0;  // whoever waited has gone
  EXPECT_FALSE(after(1s));
  stats.running = 1;
  stats.first_of_size = true;
  EXPECT_FALSE(after(100s));
  EXPECT_TRUE(after(1s));
}

class HealthTest : public ServerTest {
 protected:
  // A chat that the engine has taken in and gives no token to.
  void Hang(Client& client) {
    ReplyWith("abc");
    engine.Pause(true);
    client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
    ASSERT_TRUE(engine.WaitLive(1));
  }
  // Waits, at most a few seconds.
  bool WaitHealth(int status) {
    for (int i = 0; i < 500; ++i) {
      if (Get("/health").status == status) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
};

TEST_F(HealthTest, AStalledEngineIsUnhealthyUntilItGoesOn) {
  options.stall_timeout = 200ms;
  Start();
  EXPECT_EQ(Get("/health").status, 200);
  Client client(server->port());
  Hang(client);
  ASSERT_TRUE(WaitHealth(503));
  const json health = Get("/health").Json();
  EXPECT_EQ(health["status"], "stalled");
  EXPECT_NE(std::string(health["reason"]).find("1 requests"), std::string::npos) << health;
  EXPECT_EQ(Get("/health?deep=1").Json()["status"], "stalled");
  EXPECT_EQ(Post("/v1/completions", {{"prompt", "a"}}).ErrorField("code"), "stalled");
  EXPECT_EQ(Metric("seacliff:engine_stalls_total"), 1);
  engine.Pause(false);
  EXPECT_TRUE(WaitHealth(200));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HealthTest, OnStallIsCalledOnceClientsAreTold) {
  options.stall_timeout = 200ms;
  std::atomic<int> calls = 0;
  options.on_stall = [&] { ++calls; };
  Start();
  Client client(server->port());
  Hang(client);
  const ClientReply reply = client.Read();
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.ErrorField("code"), "stalled");
  for (int i = 0; i < 500 && calls == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(calls, 1);
}

TEST_F(HealthTest, DeepHealthGeneratesAToken) {
  Start();
  EXPECT_EQ(Get("/health?deep=1").status, 200);
  const std::vector<const Request*> seen = engine.seen();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0]->max_tokens, 1);
  EXPECT_LT(seen[0]->priority, -1'000'000);
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(engine.seen().size(), 1u);  // it asks the engine for nothing
}

TEST_F(HealthTest, DeepHealthFailsWithItsReason) {
  engine.fail = [](const Request&) { return std::pair(0, Internal("a broken kernel")); };
  Start();
  const ClientReply reply = Get("/health?deep=1");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Json()["status"], "failing");
  EXPECT_EQ(reply.Json()["reason"], "a broken kernel");
}

TEST_F(HealthTest, DeepHealthIsBounded) {
  options.stall_timeout = 300ms;
  Start();
  engine.Pause(true);
  EXPECT_EQ(Get("/health?deep=1").status, 503);
  engine.Pause(false);
  EXPECT_TRUE(WaitHealth(200));
  EXPECT_EQ(Get("/health?deep=1").status, 200);
  EXPECT_TRUE(engine.WaitLive(0));
}

TEST_F(HealthTest, WithAFullQueueAnyTokenProvesLife) {
  engine.admit = [](const Request& request) {
    return request.max_tokens == 1 ? Exhausted("the queue is full") : OkStatus();
  };
  engine.step_time = 1ms;
  Start();
  Client client(server->port());
  ReplyWith("abc");
  client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
  ASSERT_TRUE(engine.WaitLive(1));
  EXPECT_EQ(Get("/health?deep=1").status, 200);
}

TEST_F(HealthTest, ARequestEndsAtItsTimeout) {
  Start();
  ReplyWith("abc");
  engine.Pause(true);
  json body = ChatBody();
  body["timeout"] = 0.2;
  const ClientReply reply = Post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 504);
  EXPECT_EQ(reply.ErrorField("code"), "timeout");
  EXPECT_NE(reply.ErrorField("message").find("0.2 s"), std::string::npos);
  EXPECT_TRUE(engine.WaitLive(0));
  EXPECT_EQ(Metric("seacliff:num_requests_running"), 0);
}

TEST_F(HealthTest, AStreamEndsAtTheServersTimeout) {
  options.request_timeout = 200ms;
  Start();
  ReplyWith("abc");
  engine.step_time = 5ms;
  json body = ChatBody();
  body["stream"] = true;
  const ClientReply reply = Post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 200);
  const std::vector<std::string> events = reply.Events();
  ASSERT_GT(events.size(), 3u);
  EXPECT_EQ(json::parse(events[events.size() - 2])["error"]["code"], "timeout");
  EXPECT_TRUE(engine.WaitLive(0));
  // A request may ask for more time, and one of no time is refused.
  body["timeout"] = 0;
  EXPECT_EQ(Post("/v1/chat/completions", body).ErrorField("param"), "timeout");
}

}  // namespace
}  // namespace seacliff::serve::testing
