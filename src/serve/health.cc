// /health: what the watchdog says, and on request the proof of life: a token through the engine.
#include <fmt/format.h>

#include <limits>
#include <utility>

#include "serve/json_writer.h"
#include "serve/service.h"

namespace seacliff::serve {
namespace {

// How long clients may take to get their errors before a stalled server ends.
constexpr std::chrono::seconds kFarewell(1);

std::string HealthBody(std::string_view status, std::string_view reason) {
  JsonWriter json;
  json.BeginObject().Field("status", status);
  if (!reason.empty()) json.Field("reason", reason);
  json.EndObject();
  return json.Take();
}

}  // namespace

// On the watchdog's thread.
void Service::OnStall(const std::optional<std::string>& reason) {
  const bool ends = reason && options_.on_stall;
  http_->Post([this, ends, reason] {
    stalled_ = reason.value_or("");
    if (!reason) return;
    ++metrics_.stalls;
    if (ends) FailAll(Unavailable("stalled", *reason));
  });
  if (!ends) return;
  std::this_thread::sleep_for(kFarewell);
  options_.on_stall();
}

void Service::Health(Call call) {
  if (host_.engine == nullptr) return Answer(&call, 503, HealthBody("loading", ""));
  if (draining_) return Answer(&call, 503, HealthBody("draining", ""));
  if (!stalled_.empty()) return Answer(&call, 503, HealthBody("stalled", stalled_));
  if (call.request.query != "deep=1") return Answer(&call, 200, HealthBody("ok", ""));
  probe_calls_.push_back(std::move(call));
  if (!probe_) BeginProbe();
}

// One probe serves all who ask while it is under way. It goes before all other requests; where all
// places are taken, a token for any of them is as good.
void Service::BeginProbe() {
  Engine& engine = *host_.engine;
  Request request;
  request.id = engine.NextId();
  request.prompt = {0};
  request.max_tokens = 1;
  request.ignore_eos = true;
  request.sampling.temperature = 0;
  request.priority = std::numeric_limits<int32_t>::min();
  probe_ = request.id;
  probe_tokens_ = engine.stats().generated_tokens;
  probe_deadline_ = Clock::now() + options_.stall_timeout;
  const Status status = engine.Submit(
      std::move(request), [mailbox = host_.mailbox](const Event& event) { mailbox->Put(event); });
  if (!status.ok() && status.code() != Code::kExhausted) EndProbe(status.message());
}

void Service::CheckProbe(Clock::time_point now) {
  if (host_.engine->stats().generated_tokens > probe_tokens_) return EndProbe("");
  if (draining_) return EndProbe("the server is shutting down");
  if (!stalled_.empty()) return EndProbe(stalled_);
  if (now < probe_deadline_) return;
  EndProbe(fmt::format("no token was generated within {:.0f} s",
                       std::chrono::duration<double>(options_.stall_timeout).count()));
}

void Service::TakeProbe(const Event& event) {
  EndProbe(event.finish == Finish::kError       ? event.error.message()
           : event.finish == Finish::kCancelled ? "the request for a token was cancelled"
                                                : "");
}

void Service::EndProbe(const std::string& failure) {
  host_.engine->Cancel(*std::exchange(probe_, std::nullopt));
  for (Call& call : std::exchange(probe_calls_, {})) {
    Answer(&call, failure.empty() ? 200 : 503,
           HealthBody(failure.empty() ? "ok" : "failing", failure));
  }
}

}  // namespace seacliff::serve
