// A server over a FakeEngine on a free port of this machine.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "serve/server.h"
#include "serve/testing/fake_engine.h"
#include "serve/testing/test_client.h"
#include "serve/testing/test_tokenizer.h"

namespace seacliff::serve::testing {

using nlohmann::json;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options.port = 0;
    options.model_names = {"tiny", "org/tiny"};
    options.model_root = "models/tiny";
    options.version = "0.0-test";
    options.default_sampling.temperature = 0.7f;
    options.idle_prefill = false;  // the engine sees what clients ask for, and nothing else
  }

  // Starts with `options`; the engine is attached unless told otherwise.
  void Start(bool attach = true) {
    auto started = Server::Start(options);
    ASSERT_TRUE(started.ok()) << started.status().message();
    server = std::move(started).value();
    if (attach) server->AttachEngine(&engine, &TestTokenizer(), ChatProfile::kPreview);
  }
  // Every request is answered with `text`, in which added tokens count.
  void ReplyWith(std::string_view text) {
    engine.script = [ids = Ids(text)](const Request&) { return ids; };
  }

  ClientReply Get(std::string_view path, std::string_view headers = "") {
    return Client(server->port()).Get(path, headers);
  }
  ClientReply Post(std::string_view path, const json& body, std::string_view headers = "") {
    return Client(server->port()).Post(path, body.dump(), headers);
  }
  // The value of a metric's first sample; -1 if there is none.
  double Metric(const std::string& name) {
    const std::string text = Get("/metrics").body;
    const size_t at = text.find("\n" + name + "{");
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(text.find("} ", at) + 2));
  }

  ServeOptions options;
  FakeEngine engine;
  std::unique_ptr<Server> server;  // goes before the engine
};

inline const char* kEndToken = "<｜end▁of▁sentence｜>";

inline json ChatBody(std::string_view text = "hi") {
  return {{"model", "tiny"}, {"messages", {{{"role", "user"}, {"content", text}}}}};
}

}  // namespace seacliff::serve::testing
