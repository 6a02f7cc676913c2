// The server without its completions: routes, errors, keys, health, metrics, draining, clients that
// go away.
#include "serve/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <future>
#include <thread>

#include "serve/routes.h"
#include "serve/testing/server_fixture.h"
#include "serve/workers.h"

namespace seacliff::serve {
namespace {

using namespace std::chrono_literals;  // NOLINT(build/namespaces)
using testing::ChatBody;
using testing::Client;
using testing::ClientReply;
using testing::json;
using testing::kEndToken;
using testing::ServerTest;

TEST(Routes, TableIsPrintable) {
  const std::string table = DescribeRoutes();
  for (const char* path :
       {"/chat/completions", "/completions", "/models", "/models/{id}", "/health", "/ping",
        "/metrics", "/load", "/version", "/tokenize", "/detokenize"}) {
    EXPECT_NE(table.find(std::string("[/v1]") + path + " "), std::string::npos) << path;
  }
}

TEST(Routes, AreFoundWithAndWithoutMount) {
  for (const Route& route : Routes()) {
    std::string path = route.path;
    if (path.ends_with("{id}")) path.replace(path.size() - 4, 4, "a/b");
    EXPECT_EQ(FindRoute(route.method, path).route, &route);
    EXPECT_EQ(FindRoute(route.method, "/v1" + path).route, &route);
    EXPECT_EQ(FindRoute(route.method, "/beta" + path).route, &route);
    EXPECT_EQ(FindRoute("DELETE", path).route, nullptr);
    EXPECT_FALSE(FindRoute("DELETE", path).allowed.empty());
  }
  EXPECT_EQ(FindRoute("GET", "/v1/models/a/b").rest, "a/b");
  EXPECT_EQ(FindRoute("GET", "/v1/v1/models").route, nullptr);
  EXPECT_EQ(FindRoute("GET", "/beta/v1/models").route, nullptr);
  EXPECT_TRUE(FindRoute("GET", "/v1").allowed.empty());
  EXPECT_TRUE(FindRoute("GET", "/").allowed.empty());
}

TEST(Workers, LeaveOutWorkForCallersThatHaveGone) {
  std::promise<void> open;
  std::promise<int> done;
  int count = 0;
  {
    Workers workers("test", 1, [](Workers::Task then) { then(); });
    auto here = std::make_shared<int>(), gone = std::make_shared<int>();
    workers.Run(
        here, [gate = open.get_future().share()] { gate.wait(); }, [] {});
    workers.Run(
        gone, [&] { count += 100; }, [&] { count += 100; });
    workers.Run(
        here, [&] { ++count; }, [&] { done.set_value(++count); });
    gone.reset();
    open.set_value();
    EXPECT_EQ(done.get_future().get(), 2);
  }
}

TEST(Workers, AreLeftInTheirWork) {
  auto begun = std::make_shared<std::promise<void>>(), open = begun, ended = begun;
  open = std::make_shared<std::promise<void>>();
  ended = std::make_shared<std::promise<void>>();
  std::atomic<bool> posted = false;
  {
    Workers workers("test", 1, [&posted](Workers::Task) { posted = true; });
    workers.Run(
        begun,
        [begun, open, ended] {
          begun->set_value();
          open->get_future().wait();
          ended->set_value();
        },
        [] {});
    begun->get_future().wait();
    workers.Leave();
  }
  open->set_value();
  ended->get_future().wait();
  EXPECT_FALSE(posted);
}

TEST_F(ServerTest, WrongPathsAndMethodsGetTheErrorForm) {
  Start();
  const ClientReply unknown = Get("/v1/nothing");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.ErrorField("type"), "invalid_request_error");
  EXPECT_EQ(unknown.ErrorField("code"), "unknown_url");
  EXPECT_TRUE(unknown.Json()["error"].contains("param"));
  const ClientReply method = Get("/v1/chat/completions");
  EXPECT_EQ(method.status, 405);
  EXPECT_EQ(method.Header("allow"), "POST");
  EXPECT_EQ(method.ErrorField("code"), "method_not_allowed");
  const ClientReply broken = Client(server->port()).Post("/v1/completions", "{");
  EXPECT_EQ(broken.status, 400);
  EXPECT_EQ(broken.ErrorField("code"), "invalid_json");
}

TEST_F(ServerTest, TooLargeBodiesGetTheErrorForm) {
  options.http.body_bytes = 1000;
  Start();
  const ClientReply reply = Post("/v1/completions", {{"prompt", std::string(2000, 'x')}});
  EXPECT_EQ(reply.status, 413);
  EXPECT_EQ(reply.ErrorField("type"), "invalid_request_error");
}

TEST_F(ServerTest, ListensBeforeTheModelIsLoaded) {
  Start(false);
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Get("/health").Json()["status"], "loading");
  EXPECT_EQ(Get("/version").Json()["version"], "0.0-test");
  EXPECT_EQ(Get("/metrics").status, 200);
  const ClientReply early = Post("/v1/chat/completions", ChatBody());
  EXPECT_EQ(early.status, 503);
  EXPECT_EQ(early.ErrorField("code"), "loading");
  EXPECT_EQ(early.Header("retry-after"), "1");
  server->AttachEngine(&engine, &testing::TestTokenizer(), ChatProfile::kPreview);
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(Get("/ping").status, 200);
}

TEST_F(ServerTest, ListsModels) {
  Start();
  const json list = Get("/v1/models").Json();
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "tiny");
  EXPECT_EQ(list["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(list["data"][0]["vocab_size"], 300);
  EXPECT_EQ(list["data"][0]["root"], "models/tiny");
  EXPECT_EQ(Get("/models/org/tiny").Json()["id"], "org/tiny");
  EXPECT_EQ(Get("/v1/models/org%2Ftiny").Json()["id"], "org/tiny");
  const ClientReply unknown = Get("/v1/models/other");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.ErrorField("code"), "model_not_found");
}

TEST_F(ServerTest, UnknownModelsAreNotFound) {
  Start();
  json body = ChatBody();
  body["model"] = "other";
  const ClientReply reply = Post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.ErrorField("param"), "model");
  EXPECT_EQ(reply.ErrorField("code"), "model_not_found");
}

TEST_F(ServerTest, KeysProtectAllButHealthAndMetrics) {
  options.api_keys = {"first", "secret"};
  Start();
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(Get("/metrics").status, 200);
  for (const char* path : {"/v1/models", "/version"}) {
    const ClientReply refused = Get(path);
    EXPECT_EQ(refused.status, 401);
    EXPECT_EQ(refused.ErrorField("code"), "invalid_api_key");
    EXPECT_EQ(Get(path, "Authorization: Bearer wrong\r\n").status, 401);
    EXPECT_EQ(Get(path, "Authorization: Bearer secret\r\n").status, 200);
    EXPECT_EQ(Get(path, "Authorization: bearer secret\r\n").status, 200);
    EXPECT_EQ(Get(path, "x-api-key: first\r\n").status, 200);
    EXPECT_EQ(Get(path, "Authorization: Bearer wrong\r\nx-api-key: first\r\n").status, 200);
    EXPECT_EQ(Get(path, "Authorization: Basic secret\r\n").status, 401);
  }
  EXPECT_EQ(Post("/v1/chat/completions", ChatBody()).status, 401);
  EXPECT_EQ(Post("/tokenize", {{"prompt", "a"}}).status, 401);
}

TEST_F(ServerTest, RequestIdsComeBack) {
  Start();
  EXPECT_EQ(Get("/health", "X-Request-Id: abc-1\r\n").Header("x-request-id"), "abc-1");
  EXPECT_EQ(Get("/health").Header("x-request-id").size(), 32u);
  EXPECT_NE(Get("/health").Header("x-request-id"), Get("/health").Header("x-request-id"));
  // The body's own, also where it is all that is right.
  for (const char* fields : {R"("prompt": "a")", R"("prompt": 5, "n": 0)"}) {
    const std::string body = fmt::format(R"({{{}, "request_id": "r-1"}})", fields);
    EXPECT_EQ(Client(server->port()).Post("/v1/completions", body).Header("x-request-id"), "r-1");
  }
  const ClientReply bad = Post("/v1/completions", {{"prompt", "a"}, {"request_id", "a\r\nb: c"}});
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.Header("x-request-id").size(), 32u);
}

TEST_F(ServerTest, TokenizesAndBack) {
  Start();
  const json plain =
      Post("/tokenize", {{"prompt", "a<think>"}, {"return_token_strs", true}}).Json();
  EXPECT_EQ(plain["count"], 8);  // client text: no added token
  EXPECT_EQ(plain["token_strs"][0], "a");
  EXPECT_EQ(plain["max_model_len"], 4096);
  EXPECT_EQ(Post("/v1/detokenize", {{"tokens", plain["tokens"]}}).Json()["prompt"], "a<think>");
  const json chat = Post("/tokenize", ChatBody()).Json();
  const json text = Post("/detokenize", {{"tokens", chat["tokens"]}}).Json();
  EXPECT_EQ(text["prompt"], "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜><think>");
  json open = ChatBody();
  open["add_generation_prompt"] = false;
  const json tokens = Post("/tokenize", open).Json()["tokens"];
  EXPECT_EQ(Post("/detokenize", {{"tokens", tokens}}).Json()["prompt"],
            "<｜begin▁of▁sentence｜><｜User｜>hi");
  EXPECT_EQ(Post("/detokenize", {{"tokens", {99999}}}).ErrorField("param"), "tokens");
  EXPECT_EQ(Post("/tokenize", json::object()).ErrorField("param"), "prompt");
  // Long enough for a worker.
  const json large = Post("/tokenize", {{"prompt", std::string(200'000, 'z')}}).Json();
  EXPECT_EQ(large["count"], 200'000);
}

TEST_F(ServerTest, TrustedSpecialTokensInRawPrompts) {
  options.trust_special_tokens = true;
  Start();
  EXPECT_EQ(Post("/tokenize", {{"prompt", "a<think>"}}).Json()["count"], 2);
}

TEST_F(ServerTest, ContextOverflow) {
  engine.max_len = 64;
  Start();
  const ClientReply reply = Post("/v1/completions", {{"prompt", std::string(64, 'x')}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.ErrorField("code"), "context_length_exceeded");
  EXPECT_EQ(reply.ErrorField("param"), "prompt");
  EXPECT_NE(reply.ErrorField("message").find("This model's maximum context length is 64 tokens"),
            std::string::npos);
  // One token fits, and a large max_tokens is cut down to it.
  ReplyWith("abc");
  const ClientReply fits =
      Post("/v1/completions", {{"prompt", std::string(63, 'x')}, {"max_tokens", 1000}});
  EXPECT_EQ(fits.Json()["usage"]["completion_tokens"], 1);
  EXPECT_EQ(fits.Json()["choices"][0]["finish_reason"], "length");
}

TEST_F(ServerTest, UnknownTokenIds) {
  Start();
  EXPECT_EQ(Post("/v1/completions", {{"prompt", {5, 300}}}).ErrorField("param"), "prompt");
  EXPECT_EQ(
      Post("/v1/completions", {{"prompt", "a"}, {"logit_bias", {{"300", 1}}}}).ErrorField("param"),
      "logit_bias");
}

TEST_F(ServerTest, FullQueues) {
  options.max_waiting = 4;
  Start();
  engine.waiting = 4;
  const ClientReply full = Post("/v1/chat/completions", ChatBody());
  EXPECT_EQ(full.status, 503);
  EXPECT_EQ(full.ErrorField("code"), "queue_full");
  EXPECT_EQ(full.Header("retry-after"), "1");
  engine.waiting = 0;
  engine.admit = [](const Request&) { return Exhausted("the queue is full"); };
  EXPECT_EQ(Post("/v1/chat/completions", ChatBody()).status, 503);
  EXPECT_EQ(Metric("seacliff:admission_rejections_total"), 2);
  engine.waiting = 3;
  EXPECT_EQ(Get("/load").Json()["server_load"], 3);
}

// Another try would not help.
TEST_F(ServerTest, MoreAtOnceThanEverFits) {
  options.max_waiting = 4;
  engine.max_len = 1 << 20;
  Start();
  EXPECT_EQ(Post("/v1/completions", {{"prompt", "a"}, {"n", 5}}).ErrorField("param"), "n");
  const json prompts = {"a", "b", "c"};
  EXPECT_EQ(Post("/v1/completions", {{"prompt", prompts}, {"n", 2}}).ErrorField("param"), "prompt");
  server->Stop();
  options.max_waiting = 1024;
  Start();
  const ClientReply tokens =
      Post("/v1/completions", {{"prompt", std::string(200'000, 'x')}, {"n", 100}});
  EXPECT_EQ(tokens.status, 400);
  EXPECT_EQ(tokens.ErrorField("param"), "n");
}

TEST_F(ServerTest, WhatTheEngineRefusesIsTheClientsError) {
  Start();
  engine.admit = [](const Request&) { return InvalidArgument("prompt: not like this"); };
  json body = ChatBody();
  body["stream"] = true;
  const ClientReply reply = Post("/v1/chat/completions", body);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.ErrorField("param"), "prompt");
}

TEST_F(ServerTest, ErrorsOfTheEngine) {
  Start();
  ReplyWith("abc");
  engine.fail = [](const Request&) { return std::pair(0, Internal("the device is gone")); };
  json body = ChatBody();
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 500);
  body["stream"] = true;  // nothing is sent yet, so the status tells
  const ClientReply early = Post("/v1/chat/completions", body);
  EXPECT_EQ(early.status, 500);
  EXPECT_EQ(early.ErrorField("type"), "server_error");
  engine.fail = [](const Request&) { return std::pair(2, Internal("the device is gone")); };
  const ClientReply late = Post("/v1/chat/completions", body);
  EXPECT_EQ(late.status, 200);
  const auto events = late.Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(json::parse(events[events.size() - 2])["error"]["message"], "the device is gone");
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_FALSE(late.cut_off);
  EXPECT_EQ(Metric("seacliff:num_requests_running"), 0);
}

TEST_F(ServerTest, ClientsThatGoAwayAreCancelled) {
  Start();
  ReplyWith("abc");
  engine.step_time = 5ms;
  json body = ChatBody();
  for (const bool stream : {false, true}) {
    body["stream"] = stream;
    {
      Client client(server->port());
      client.Send(Client::Text("POST", "/v1/chat/completions", body.dump()));
      ASSERT_TRUE(engine.WaitLive(1));
      if (stream) {
        ASSERT_TRUE(client.WaitFor("data: "));
      }
    }
    EXPECT_TRUE(engine.WaitLive(0));
  }
  EXPECT_EQ(engine.cancels(), 2);
  EXPECT_EQ(Metric("seacliff:num_requests_running"), 0);
  EXPECT_NE(Get("/metrics").body.find("finished_reason=\"abort\"} 2\n"), std::string::npos);
}

TEST_F(ServerTest, GoneBeforeTheFirstToken) {
  Start();
  engine.Pause(true);
  {
    Client client(server->port());
    client.Send(Client::Text("POST", "/v1/completions", R"({"prompt":"a","n":3})"));
    ASSERT_TRUE(engine.WaitLive(3));
  }
  EXPECT_TRUE(engine.WaitLive(0));
}

TEST_F(ServerTest, StreamsThatNobodyReadsAreCancelled) {
  options.http.queued_bytes = 64 << 10;
  engine.max_len = 1 << 20;
  engine.tokens_a_step = 100;
  engine.step_time = 500us;
  Start();
  ReplyWith("abc");
  json body = ChatBody();
  body["stream"] = true;
  body["logprobs"] = true;
  body["top_logprobs"] = 20;
  Client client(server->port(), 4096);
  client.Send(Client::Text("POST", "/v1/chat/completions", body.dump()));
  for (int i = 0; i < 1000 && engine.cancels() == 0; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(engine.cancels(), 1);
  EXPECT_TRUE(engine.WaitLive(0));
}

TEST_F(ServerTest, SilentStreamsGetComments) {
  options.keep_alive = 100ms;
  Start();
  ReplyWith(std::string("abc") + kEndToken);
  engine.Pause(true);
  json body = ChatBody();
  body["stream"] = true;
  Client client(server->port());
  client.Send(Client::Text("POST", "/v1/chat/completions", body.dump()));
  EXPECT_TRUE(client.WaitFor(": keep-alive\n\n"));
  engine.Pause(false);
  const ClientReply reply = client.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.body.starts_with(": keep-alive\n\n"));
  EXPECT_EQ(reply.Events().back(), "[DONE]");
}

TEST_F(ServerTest, DrainingFinishesWhatRuns) {
  Start();
  ReplyWith(std::string("abc") + kEndToken);
  engine.Pause(true);
  Client client(server->port());
  client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
  ASSERT_TRUE(engine.WaitLive(1));
  EXPECT_FALSE(server->Drain(100ms));
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Get("/health").Json()["status"], "draining");
  const ClientReply refused = Post("/v1/completions", {{"prompt", "a"}});
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.ErrorField("code"), "draining");
  EXPECT_FALSE(refused.Header("retry-after").empty());
  engine.Pause(false);
  EXPECT_TRUE(server->Drain(10s));
  EXPECT_EQ(client.Read().status, 200);
  server->Stop();
  server->Stop();
}

TEST_F(ServerTest, StoppingTellsRunningClients) {
  Start();
  ReplyWith("abc");
  engine.Pause(true);
  Client client(server->port());
  client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
  ASSERT_TRUE(engine.WaitLive(1));
  server->Stop();
  EXPECT_EQ(client.Read().status, 503);
  EXPECT_TRUE(engine.WaitLive(0));
}

TEST_F(ServerTest, SignalsDrainThenStop) {
  Start();
  ReplyWith(std::string("abc") + kEndToken);
  engine.Pause(true);
  bool finished = false;
  Client client(server->port());
  client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
  ASSERT_TRUE(engine.WaitLive(1));
  std::thread main([&] { finished = server->RunUntilSignal(); });
  std::this_thread::sleep_for(100ms);  // until the handler stands
  std::raise(SIGTERM);
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(Get("/health").status, 503);
  engine.Pause(false);
  main.join();
  EXPECT_TRUE(finished);
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(ServerTest, ASecondSignalStopsAtOnce) {
  Start();
  engine.Pause(true);
  bool finished = true;
  Client client(server->port());
  client.Send(Client::Text("POST", "/v1/chat/completions", ChatBody().dump()));
  ASSERT_TRUE(engine.WaitLive(1));
  std::thread main([&] { finished = server->RunUntilSignal(); });
  std::this_thread::sleep_for(100ms);
  std::raise(SIGTERM);
  std::this_thread::sleep_for(100ms);
  std::raise(SIGTERM);
  main.join();
  EXPECT_FALSE(finished);
}

TEST_F(ServerTest, RefusesBadOptions) {
  options.model_names.clear();
  EXPECT_EQ(Server::Start(options).status().code(), Code::kInvalidArgument);
  options.model_names = {"x", ""};
  EXPECT_EQ(Server::Start(options).status().code(), Code::kInvalidArgument);
  options.model_names = {"x"};
  options.api_keys = {""};
  EXPECT_EQ(Server::Start(options).status().code(), Code::kInvalidArgument);
  options.api_keys.clear();
  options.port = 70000;
  EXPECT_EQ(Server::Start(options).status().code(), Code::kInvalidArgument);
}

TEST_F(ServerTest, MetricsCountRequestsOnce) {
  Start();
  ReplyWith(std::string("abcd") + kEndToken);
  EXPECT_EQ(Post("/v1/completions", {{"prompt", "hello"}, {"n", 2}}).status, 200);
  json body = ChatBody();
  body["stream"] = true;
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 200);
  EXPECT_EQ(Metric("seacliff:generation_tokens_total"), 15);
  EXPECT_EQ(Metric("vllm:generation_tokens_total"), 15);
  EXPECT_EQ(Metric("seacliff:prompt_tokens_total"), 5 + 5 + 6);
  EXPECT_EQ(Metric("seacliff:prompt_tokens_cached_total"), 6);
  EXPECT_EQ(Metric("seacliff:request_success_total"), 3);
  EXPECT_EQ(Metric("seacliff:time_to_first_token_seconds_count"), 3);
  EXPECT_EQ(Metric("seacliff:inter_token_latency_seconds_count"), 12);
  EXPECT_EQ(Metric("seacliff:e2e_request_latency_seconds_count"), 3);
  EXPECT_EQ(Metric("seacliff:kv_cache_usage_perc"), 0.25);
  EXPECT_EQ(Metric("seacliff:num_requests_running"), 0);
}

TEST_F(ServerTest, ManyClientsAtOnce) {
  Start();
  ReplyWith(std::string("abcdefgh") + kEndToken);
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      Client client(server->port());
      for (int k = 0; k < 20; ++k) {
        json body = ChatBody();
        body["stream"] = (i + k) % 2 == 0;
        const ClientReply reply = client.Post("/v1/chat/completions", body.dump());
        good += reply.status == 200 && !reply.cut_off ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 320);
}

}  // namespace
}  // namespace seacliff::serve
