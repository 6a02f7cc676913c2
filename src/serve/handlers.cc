// The handlers of the route table.
#include <fmt/format.h>

#include <algorithm>

#include "serve/json_writer.h"
#include "serve/service.h"

namespace seacliff::serve {

void Service::ChatCompletions(Call call) { Generate(std::move(call), PrepareChat, MakeChatForm()); }

void Service::Completions(Call call) {
  Generate(std::move(call), PrepareCompletion, MakeCompletionForm());
}

void Service::AnswerComputed(Call call, Compute compute) {
  struct Work {
    std::string body, answer;
    ApiError error;
  };
  auto work = std::make_shared<Work>(Work{std::move(call.request.body), "", {}});
  const uint64_t key = next_key_++;
  auto kept = std::make_shared<Call>(std::move(call));
  kept->reply.OnGone([this, key] { computed_.erase(key); });
  computed_.emplace(key, kept);
  Offload(
      kept, work->body.size(),
      [this, work, compute] { work->error = compute(context_, work->body, &work->answer); },
      [this, key, work] {
        const auto found = computed_.extract(key);
        if (found.empty()) return;
        if (work->error.any()) return Refuse(found.mapped().get(), work->error);
        Answer(found.mapped().get(), 200, work->answer);
      });
}

void Service::Tokenize(Call call) { AnswerComputed(std::move(call), AnswerTokenize); }

void Service::Detokenize(Call call) { AnswerComputed(std::move(call), AnswerDetokenize); }

void Service::WriteModel(const std::string& name, JsonWriter* json) const {
  json->BeginObject()
      .Field("id", name)
      .Field("object", "model")
      .Field("created", started_)
      .Field("owned_by", "seacliff")
      .Field("root", options_.model_root)
      .Field("parent", nullptr)
      .Field("max_model_len", context_.max_model_len)
      .Field("vocab_size", context_.vocab_size);
  json->Key("permission").BeginArray().EndArray().EndObject();
}

void Service::ListModels(Call call) {
  JsonWriter json;
  json.BeginObject().Field("object", "list").Key("data").BeginArray();
  for (const std::string& name : options_.model_names) WriteModel(name, &json);
  json.EndArray().EndObject();
  Answer(&call, 200, json.text());
}

void Service::GetModel(Call call) {
  const auto& names = options_.model_names;
  if (std::find(names.begin(), names.end(), call.rest) == names.end()) {
    return Refuse(&call, {404, fmt::format("The model `{}` does not exist.", call.rest), "model",
                          "model_not_found", 0});
  }
  JsonWriter json;
  WriteModel(call.rest, &json);
  Answer(&call, 200, json.text());
}

void Service::MetricsPage(Call call) {
  MetricsText text;
  text.model_name = options_.model_names[0];
  text.stats = Stats();
  text.vllm_names = options_.vllm_metric_names;
  call.reply.Send(200, {{"x-request-id", call.id}}, "text/plain; version=0.0.4; charset=utf-8",
                  RenderMetrics(metrics_, text));
}

void Service::Version(Call call) {
  JsonWriter json;
  json.BeginObject()
      .Field("version", options_.version)
      .Field("machine", options_.machine)
      .EndObject();
  Answer(&call, 200, json.text());
}

// As vLLM's: what autoscalers ask for where they read no metrics.
void Service::Load(Call call) {
  const EngineStats stats = Stats();
  JsonWriter json;
  json.BeginObject().Field("server_load", stats.running + stats.waiting).EndObject();
  Answer(&call, 200, json.text());
}

}  // namespace seacliff::serve
