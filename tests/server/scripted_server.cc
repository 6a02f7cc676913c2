// The real HTTP server over an engine without a model, which answers a request with the bytes that
// the request itself spells: scripted_server MODEL_DIR PORT PROFILE KEEP_ALIVE_MS. The tokenizer is
// the model's.
//
// A script is the last "@script{...}@end" in the prompt, a JSON object:
//   "say": a list of pieces: text whose added tokens count, {"plain": text} where they are spelt
//       in ordinary tokens, {"ids": [...]}
//   "cut": how text becomes tokens: "bpe" as the tokenizer does, "bytes" the smallest ones,
//       "random" any that spell it (with "seed")
//   "step": tokens a step (1); "end": false leaves the end of sentence out
//   "wait": milliseconds before the first token; "fail_after": the step after so many tokens fails
//   "obey": true: where the request's rules do not allow a token, the first one that they do comes;
//       false, the default: they do not count, so that a reply can be as bad as replies get
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "serve/server.h"
#include "serve/testing/fake_engine.h"

namespace seacliff {
namespace {

using nlohmann::json;

constexpr std::string_view kBegin = "@script", kEnd = "@end";

class Speller {
 public:
  explicit Speller(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const std::string_view bytes = tokenizer.TokenBytes(id);
      if (bytes.empty() || tokenizer.IsAdded(id)) continue;
      ids_.emplace(bytes, id);
      longest_ = std::max(longest_, bytes.size());
    }
  }

  std::vector<int32_t> Spell(const json& script) const {
    const std::string cut = script.value("cut", "bpe");
    std::mt19937 random(script.value("seed", 0u));
    std::vector<int32_t> out;
    for (const json& piece : script.value("say", json::array())) {
      if (piece.is_object() && piece.contains("ids")) {
        for (const json& id : piece["ids"]) out.push_back(id.get<int32_t>());
        continue;
      }
      const bool plain = piece.is_object();
      const std::string text = (plain ? piece.at("plain") : piece).get<std::string>();
      const std::vector<int32_t> usual = tokenizer_.Encode(text, !plain);
      if (cut == "bpe") {
        out.insert(out.end(), usual.begin(), usual.end());
        continue;
      }
      std::string run;  // of ordinary tokens
      for (const int32_t id : usual) {
        if (!tokenizer_.IsAdded(id)) {
          run += tokenizer_.TokenBytes(id);
          continue;
        }
        Cut(std::exchange(run, ""), cut == "random", &random, &out);
        out.push_back(id);
      }
      Cut(run, cut == "random", &random, &out);
    }
    if (script.value("end", true)) out.push_back(tokenizer_.Encode(kEndToken, true).front());
    return out;
  }

  json ScriptOf(const Request& request) const {
    const std::string prompt = tokenizer_.Decode(request.prompt);
    const size_t begin = prompt.rfind(kBegin);
    if (begin == std::string::npos) return {{"say", {"There is no script."}}};
    const size_t from = begin + kBegin.size();
    return json::parse(prompt.substr(from, prompt.find(kEnd, from) - from));
  }

 private:
  static constexpr const char* kEndToken = "<｜end▁of▁sentence｜>";

  void Cut(std::string_view text, bool any, std::mt19937* random, std::vector<int32_t>* out) const {
    while (!text.empty()) {
      std::vector<std::pair<size_t, int32_t>> fits;
      for (size_t size = 1; size <= std::min(longest_, text.size()); ++size) {
        const auto found = ids_.find(text.substr(0, size));
        if (found != ids_.end()) fits.emplace_back(size, found->second);
      }
      const auto& [size, id] = fits.at(any ? (*random)() % fits.size() : 0);
      out->push_back(id);
      text.remove_prefix(size);
    }
  }

  const Tokenizer& tokenizer_;
  std::map<std::string, int32_t, std::less<>> ids_;
  size_t longest_ = 0;
};

int Main(const std::string& dir, int port, const char* profile_name, int keep_alive) {
  const auto tokenizer = Tokenizer::Load(dir);
  const auto profile = ParseChatProfile(profile_name);
  if (!tokenizer.ok() || !profile.ok()) {
    std::fprintf(stderr, "%s\n",
                 (tokenizer.ok() ? profile.status() : tokenizer.status()).message().c_str());
    return 1;
  }
  const Speller speller(tokenizer.value());
  serve::testing::FakeEngine engine;
  engine.vocab = tokenizer->vocab_size();
  engine.max_len = 1 << 20;
  engine.step_time = std::chrono::microseconds(100);
  engine.script = [&](const Request& request) { return speller.Spell(speller.ScriptOf(request)); };
  engine.pace = [&](const Request& request) {
    const json script = speller.ScriptOf(request);
    return serve::testing::FakeEngine::Pace{script.value("step", 1),
                                            std::chrono::milliseconds(script.value("wait", 0)),
                                            script.value("obey", false)};
  };
  engine.fail = [&](const Request& request) {
    const int after = speller.ScriptOf(request).value("fail_after", -1);
    return std::pair(after, Internal("the script says that this step fails"));
  };
  serve::ServeOptions options;
  options.port = port;
  options.model_names = {"tiny"};
  options.idle_prefill = false;
  options.keep_alive = std::chrono::milliseconds(keep_alive);
  auto server = serve::Server::Start(std::move(options));
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().message().c_str());
    return 1;
  }
  (*server)->AttachEngine(&engine, &tokenizer.value(), profile.value());
  return (*server)->RunUntilSignal() ? 0 : 1;
}

}  // namespace
}  // namespace seacliff

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "scripted_server MODEL_DIR PORT PROFILE KEEP_ALIVE_MS\n");
    return 2;
  }
  return seacliff::Main(argv[1], std::atoi(argv[2]), argv[3], std::atoi(argv[4]));
}
