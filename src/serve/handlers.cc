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
    Call call;
    std::string answer;
  };
  const size_t size = call.request.body.size();
  auto work = std::make_shared<Work>(Work{std::move(call), ""});
  Offload(size, [this, work, compute]() -> std::function<void()> {
    const ApiError error = compute(context_, work->call.request.body, &work->answer);
    return [this, work, error] {
      if (error.any()) return Refuse(&work->call, error);
      Answer(&work->call, 200, work->answer);
    };
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
  if (host_.engine != nullptr) text.stats = host_.engine->stats();
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

}  // namespace seacliff::serve
