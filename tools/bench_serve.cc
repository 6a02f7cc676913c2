// Prompts as token ids to /v1/completions, replies as streams of server-sent events.
#include "tools/bench_serve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>

#include "base/json.h"
#include "tools/http_client.h"
#include "tools/load_sweep.h"

namespace seacliff {
namespace {

using Clock = LoadRun::Clock;

constexpr std::string_view kCompletions = "/completions";
// Ids that nearly every model has, for servers that do not tell.
constexpr int64_t kCommonVocab = 32000;

// The lines of a stream of events, of which only `data:` matters.
class EventLines {
 public:
  template <typename OnData>
  void Feed(std::string_view part, const OnData& on_data) {
    line_ += part;
    size_t from = 0;
    for (size_t end = 0; (end = line_.find('\n', from)) != std::string::npos; from = end + 1) {
      std::string_view line(line_.data() + from, end - from);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      on_data(line);
    }
    line_.erase(0, from);
  }

 private:
  std::string line_;
};

// 0 also where it is missing.
int64_t IntegerOr0(simdjson::dom::object object, std::string_view key) {
  const auto value = JsonGetOr<int64_t>(object, key, 0);
  return value.ok() ? *value : 0;
}

// {"error": {"message": "..."}}, {"message": "..."}, or the text itself; on one line.
std::string ErrorText(const std::string& body) {
  constexpr size_t kMost = 300;
  std::string text = body;
  const auto document = JsonDocument::Parse(body, "");
  simdjson::dom::object object;
  if (document.ok() && document->root().get(object) == simdjson::SUCCESS) {
    simdjson::dom::object inner;
    if (object["error"].get(inner) == simdjson::SUCCESS) object = inner;
    const auto message = JsonGet<std::string_view>(object, "message");
    if (message.ok()) text = *message;
  }
  text.resize(std::min(text.size(), kMost));
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// One request on its way.
class Flight {
 public:
  Flight(LoadRun& run, size_t request) : run_(run), request_(request) {}

  void OnBody(int status, std::string_view part) {
    constexpr size_t kMostOfError = 4096;
    if (status != 200) {
      other_body_ += part.substr(0, kMostOfError - std::min(other_body_.size(), kMostOfError));
      return;
    }
    events_.Feed(part, [this](std::string_view data) { OnData(data); });
  }

  void OnEnd(const Status& error, int status) {
    const Clock::time_point now = Clock::now();
    const auto fail = [&](const std::string& kind, std::string what) {
      run_.Fail(request_, kind, std::move(what), now);
    };
    if (status != 0 && status != 200) {
      const std::string kind = fmt::format("HTTP {}", status);
      return fail(kind, fmt::format("{}: {}", kind, ErrorText(other_body_)));
    }
    if (!error_.empty()) return fail(error_, error_);
    if (!error.ok()) return fail(error.message(), error.message());
    if (!done_) return fail("unfinished", "the stream ended without [DONE]");
    if (!usage_) return fail("usage", "the stream tells no usage (stream_options.include_usage)");
    run_.End(request_, *usage_, now);
  }

 private:
  void OnData(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    simdjson::dom::object event;
    if (parser_.parse(data.data(), data.size()).get(event) != simdjson::SUCCESS) {
      error_ = "an event of the stream is no JSON object";
      return;
    }
    simdjson::dom::element error;
    if (event["error"].get(error) == simdjson::SUCCESS && !error.is_null()) {
      error_ = "error within the stream: " + ErrorText(std::string(data));
      return;
    }
    simdjson::dom::array choices;
    if (event["choices"].get(choices) == simdjson::SUCCESS && choices.size() > 0) {
      run_.Chunk(request_, Clock::now());
    }
    simdjson::dom::object usage;
    if (event["usage"].get(usage) == simdjson::SUCCESS) TakeUsage(usage);
  }

  void TakeUsage(simdjson::dom::object usage) {
    usage_.emplace();
    usage_->prompt = IntegerOr0(usage, "prompt_tokens");
    usage_->completion = IntegerOr0(usage, "completion_tokens");
    simdjson::dom::object details;
    if (usage["prompt_tokens_details"].get(details) == simdjson::SUCCESS) {
      usage_->cached = IntegerOr0(details, "cached_tokens");
    }
  }

  LoadRun& run_;
  size_t request_;
  EventLines events_;
  simdjson::dom::parser parser_;
  std::string other_body_, error_;
  std::optional<TokenUsage> usage_;
  bool done_ = false;
};

// A histogram in the Prometheus text format. Its counts are sums from the first bucket on.
StepHistogram ReadHistogram(std::string_view metrics, const std::string& name) {
  StepHistogram histogram;
  const std::string bucket = name + "_bucket{", sum = name + "_sum{";
  uint64_t below = 0;
  while (!metrics.empty()) {
    const size_t end = std::min(metrics.find('\n'), metrics.size());
    const std::string line(metrics.substr(0, end));
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    const size_t value = line.rfind(' ');
    if (value == std::string::npos) continue;
    const double number = std::strtod(line.c_str() + value, nullptr);
    if (line.starts_with(sum)) histogram.seconds = number;
    const size_t bound = line.find("le=\"");
    if (!line.starts_with(bucket) || bound == std::string::npos) continue;
    const auto count = static_cast<uint64_t>(number);
    histogram.counts.push_back(count - below);
    below = count;
    if (line.compare(bound, 8, "le=\"+Inf") == 0) continue;
    histogram.bounds.push_back(std::strtod(line.c_str() + bound + 4, nullptr));
  }
  return histogram;
}

class HttpTarget : public LoadTarget {
 public:
  // Asks the server for what it tells of itself.
  static Result<std::unique_ptr<HttpTarget>> Open(const Settings& settings);

  int64_t vocab_size() const override { return vocab_size_; }

  Status Send(LoadRun& run, LiveLine& live) override {
    Pump(run);
    Watch(run, live);
    client_->Run();
    return OkStatus();
  }

  StepHistogram steps() override {
    const auto metrics = client_->Get("/metrics");
    if (!metrics.ok()) return {};
    return ReadHistogram(*metrics, "seacliff:decode_step_seconds");
  }

  void WriteFields(serve::JsonWriter& json) const override {
    json.Field("model", model_).Field("url", url_ + endpoint_);
    if (!machine_.empty()) json.Field("machine", machine_);
    if (!version_.empty()) json.Field("server_version", version_);
    json.Field("version", SEACLIFF_VERSION);
  }

 private:
  // Sends what may go out now, and comes back when the next may.
  void Pump(LoadRun& run) {
    while (const auto request = run.Next(Clock::now())) SendOne(run, *request);
    const Clock::time_point due = run.next_due();
    if (due == Clock::time_point::max() || due == timer_) return;
    timer_ = due;
    client_->At(due, [this, &run] { Pump(run); });
  }

  void SendOne(LoadRun& run, size_t request) {
    const auto flight = std::make_shared<Flight>(run, request);
    HttpCall call;
    call.method = "POST";
    call.path = endpoint_;
    call.body = Body(run, request);
    call.on_body = [flight](int status, std::string_view part) { flight->OnBody(status, part); };
    call.on_end = [this, &run, flight](const Status& error, int status) {
      flight->OnEnd(error, status);
      Pump(run);
    };
    client_->Start(std::move(call));
  }

  std::string Body(const LoadRun& run, size_t request) const {
    serve::JsonWriter json;
    json.BeginObject().Field("model", model_).Key("prompt").BeginArray();
    for (const int32_t id : run.Prompt(request)) json.Value(id);
    json.EndArray()
        .Field("max_tokens", run.options().output_len)
        .Field("temperature", 1.0)
        .Field("ignore_eos", true)
        .Field("stream", true);
    json.Key("stream_options").BeginObject().Field("include_usage", true).EndObject();
    return json.EndObject().Take();
  }

  void Watch(const LoadRun& run, LiveLine& live) {
    live.Show(run, Clock::now());
    if (run.done()) return;
    client_->At(Clock::now() + LiveLine::kEvery, [this, &run, &live] { Watch(run, live); });
  }

  Status AskModels(const Settings& settings);
  void AskVersion(const Settings& settings);

  std::unique_ptr<HttpClient> client_;
  std::string url_, endpoint_, model_, machine_, version_;
  int64_t vocab_size_ = 0;
  Clock::time_point timer_;
};

Result<std::unique_ptr<HttpTarget>> HttpTarget::Open(const Settings& s) {
  auto target = std::make_unique<HttpTarget>();
  target->endpoint_ = s.endpoint;
  if (!s.endpoint.starts_with('/') || !s.endpoint.ends_with(kCompletions) ||
      s.endpoint.ends_with("/chat/completions")) {
    return InvalidArgument(fmt::format(
        "--endpoint: must be a path of completions, which take token ids, not \"{}\"", s.endpoint));
  }
  target->url_ = s.base_url.empty()
                     ? "http://" + Url{s.host, std::to_string(s.port), ""}.authority()
                     : s.base_url;
  const auto url = ParseUrl(target->url_);
  if (!url.ok()) return InvalidArgument("--base-url: " + url.status().message());
  while (target->url_.ends_with('/')) target->url_.pop_back();
  std::vector<std::pair<std::string, std::string>> headers;
  if (!s.api_keys.empty()) headers.emplace_back("Authorization", "Bearer " + s.api_keys.back());
  SC_ASSIGN_OR_RETURN(target->client_, HttpClient::Open(*url, std::move(headers)));
  SC_RETURN_IF_ERROR(target->AskModels(s));
  target->AskVersion(s);
  return target;
}

Status HttpTarget::AskModels(const Settings& s) {
  const std::string path = endpoint_.substr(0, endpoint_.size() - kCompletions.size()) + "/models";
  SC_ASSIGN_OR_RETURN(const std::string body, client_->Get(path));
  SC_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(body, url_ + path));
  simdjson::dom::array models;
  if (document.root()["data"].get(models) != simdjson::SUCCESS || models.size() == 0) {
    return InvalidArgument(fmt::format("{}{}: lists no model", url_, path));
  }
  simdjson::dom::object model;
  for (const simdjson::dom::element listed : models) {
    std::string_view id;
    if (listed["id"].get(id) != simdjson::SUCCESS || (!s.model.empty() && id != s.model)) continue;
    model_ = id;
    model = listed.get_object().value();
    break;
  }
  if (model_.empty()) {
    return InvalidArgument(fmt::format("--model: {} has no model \"{}\"", url_, s.model));
  }
  const int64_t longest = IntegerOr0(model, "max_model_len");
  if (longest > 0 && s.input_len + s.output_len > longest) {
    return InvalidArgument(
        fmt::format("--input-len, --output-len: {} tokens are more than the server's context of {}",
                    s.input_len + s.output_len, longest));
  }
  vocab_size_ = s.vocab_size;
  if (vocab_size_ == 0) vocab_size_ = IntegerOr0(model, "vocab_size");
  if (vocab_size_ == 0) vocab_size_ = kCommonVocab;
  return OkStatus();
}

void HttpTarget::AskVersion(const Settings& s) {
  machine_ = s.machine;
  const auto body = client_->Get("/version");
  if (!body.ok()) return;
  const auto document = JsonDocument::Parse(*body, "");
  if (!document.ok()) return;
  std::string_view text;
  if (document->root()["version"].get(text) == simdjson::SUCCESS) version_ = text;
  if (!machine_.empty()) return;
  if (document->root()["machine"].get(text) == simdjson::SUCCESS) machine_ = text;
}

}  // namespace

Status BenchServe(const Settings& settings) {
  SC_ASSIGN_OR_RETURN(const std::unique_ptr<HttpTarget> target, HttpTarget::Open(settings));
  std::string command = "seacliff bench serve";
  command += settings.base_url.empty()
                 ? fmt::format(" --host {} --port {}", settings.host, settings.port)
                 : " --base-url " + settings.base_url;
  if (settings.endpoint != "/v1/completions") command += " --endpoint " + settings.endpoint;
  if (!settings.model.empty()) command += " --model " + settings.model;
  return SweepLoad(settings, command, *target);
}

}  // namespace seacliff
