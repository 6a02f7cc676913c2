// From engine events to replies.
#include "serve/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/log.h"

namespace seacliff::serve {
namespace {

double Seconds(Generation::Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Generation::Generation(const GenerationHost* host, std::unique_ptr<ReplyForm> form, HttpReply reply,
                       const std::string& id, Clock::time_point arrived, float timeout)
    : host_(host),
      form_(std::move(form)),
      reply_(std::move(reply)),
      headers_{{"x-request-id", id}},
      arrived_(arrived),
      last_write_(arrived) {
  state_.spec.common.timeout = timeout;
}

void Generation::Expect(GenerationSpec spec) {
  state_.spec = std::move(spec);
  const std::string& id = state_.spec.common.request_id;
  if (IsPlainId(id)) headers_ = {{"x-request-id", id}};
}

void Generation::AddChoices() {
  const GenerationSpec& spec = state_.spec;
  for (size_t prompt = 0; prompt < spec.prompts.size(); ++prompt) {
    for (int32_t i = 0; i < spec.common.n; ++i) {
      Choice choice;
      choice.index = static_cast<int32_t>(state_.choices.size());
      choice.prompt = prompt;
      state_.choices.push_back(std::move(choice));
      Run run{MakeReader(spec.prompts[prompt]), {}, {}, {}, {}, {}};
      run.sampled.prompt = prompt;
      runs_.push_back(std::move(run));
    }
  }
}

Generation::~Generation() {
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (!state_.choices[i].finish_reason.empty()) continue;
    host_->engine->Cancel(ids_[i]);
    CountFinished(i, Outcome::kAbort);
  }
}

ReplyReader Generation::MakeReader(const Prompt& prompt) const {
  const CommonRequest& common = state_.spec.common;
  if (!state_.spec.is_chat) {
    return ReplyReader(PlainReply(*host_->tokenizer, common.stop, common.include_stop,
                                  common.skip_special_tokens));
  }
  ReplyOptions options = state_.spec.reply;
  options.starts_in_reasoning = prompt.starts_in_reasoning;
  options.continues_message = prompt.continues_message;
  options.ignore_end = common.ignore_eos;
  options.stop = common.stop;
  options.include_stop = common.include_stop;
  options.skip_special = common.skip_special_tokens;
  return ReplyReader(ReplyParser(*host_->tokenizer, std::move(options)));
}

Request Generation::MakeRequest(const Choice& choice) const {
  const CommonRequest& common = state_.spec.common;
  const Prompt& prompt = state_.spec.prompts[choice.prompt];
  Request request;
  request.id = host_->engine->NextId();
  request.prompt = prompt.ids;
  const int32_t free = host_->engine->max_model_len() - static_cast<int32_t>(request.prompt.size());
  // The engine generates one token at least.
  request.max_tokens = common.max_tokens < 0 ? free : std::clamp(common.max_tokens, 1, free);
  request.stop_token_ids = common.stop_token_ids;
  request.ignore_eos = common.ignore_eos && common.stop_token_ids.empty();
  if (!common.ignore_eos) {
    const std::vector<int32_t>& ends = host_->tokenizer->end_ids();
    request.stop_token_ids.insert(request.stop_token_ids.end(), ends.begin(), ends.end());
  }
  request.priority = common.priority;
  request.cache_salt = common.cache_salt;
  request.turn = prompt.turn;
  request.continues = prompt.continues;
  if (const RuleSpec& rules = state_.spec.rules; rules.grammar) {
    request.rules = host_->grammars->MakeRules(
        *rules.grammar,
        {.starts_in_reasoning = prompt.starts_in_reasoning, .when_called = rules.when_called()});
  }
  request.sampling = common.sampling;
  if (prompt.echo) request.prompt_logprobs = common.sampling.top_logprobs;
  // Each choice of a prompt draws its own numbers; the same seed gives the same set of choices.
  if (request.sampling.seed) {
    *request.sampling.seed += static_cast<uint64_t>(choice.index % common.n);
  }
  auto& bias = request.sampling.logit_bias;
  const auto is_banned = [&](const std::pair<int32_t, float>& wanted) {
    const auto found = std::lower_bound(
        host_->banned.begin(), host_->banned.end(), wanted.first,
        [](const std::pair<int32_t, float>& row, int32_t id) { return row.first < id; });
    return found != host_->banned.end() && found->first == wanted.first;
  };
  bias.erase(std::remove_if(bias.begin(), bias.end(), is_banned), bias.end());
  bias.insert(bias.end(), host_->banned.begin(), host_->banned.end());
  return request;
}

bool Generation::Submit() {
  AddChoices();
  for (const Choice& choice : state_.choices) {
    Request request = MakeRequest(choice);
    const RequestId id = request.id;
    host_->metrics->params_max_tokens.Observe(request.max_tokens);
    const Status status = host_->engine->Submit(
        std::move(request),
        [mailbox = host_->mailbox](const Event& event) { mailbox->Put(event); });
    if (!status.ok()) {
      if (status.code() == Code::kExhausted) ++host_->metrics->rejected_queue_full;
      Fail(FromStatus(status));
      return false;
    }
    ids_.push_back(id);
  }
  host_->metrics->params_n.Observe(state_.spec.common.n);
  return true;
}

void Generation::OnEvent(size_t i, const Event& event) {
  Choice& choice = state_.choices[i];
  if (done_ || !choice.finish_reason.empty()) return;
  if (event.finish == Finish::kError) {
    SC_LOG_ERROR("{}: {}", state_.id, event.error.message());
    return Fail(FromStatus(event.error));
  }
  if (event.finish == Finish::kCancelled) {
    return Fail(Unavailable("cancelled", "the request was cancelled by the server"));
  }
  if (state_.spec.prompts[choice.prompt].echo) TakePrompt(i, event);
  const int32_t before = choice.completion_tokens;
  for (size_t k = 0; k < event.tokens.size() && !runs_[i].reader.done(); ++k) {
    const bool is_end = event.finish == Finish::kStop && k + 1 == event.tokens.size();
    TakeToken(i, event.tokens[k], is_end);
  }
  CountTokens(i, event, choice.completion_tokens - before);
  const bool stopped = runs_[i].reader.done();
  if (stopped || event.finish != Finish::kNone) FinishChoice(i, event);
  const bool finished = !choice.finish_reason.empty();
  if (state_.spec.common.stream) {
    // Not before the first event: only now is it certain that the answer is no error.
    std::string frames = begun_ ? "" : form_->StreamBegin(&state_);
    begun_ = true;
    frames += Emit(i, finished);
    if (finished) frames += form_->StreamFinish(&state_, &choice);
    if (state_.finished()) frames += form_->StreamEnd(&state_);
    if (!frames.empty()) {
      BeginStream();
      reply_.Write(frames);
      last_write_ = Clock::now();
    }
    if (state_.finished()) reply_.End();
  } else {
    Emit(i, finished);
    if (state_.finished()) {
      reply_.Send(200, headers_, "application/json", form_->Whole(&state_));
    }
  }
  done_ = state_.finished();
}

Piece& Generation::PendingPiece(size_t i, ReplyPart part) {
  std::vector<Piece>& pending = runs_[i].pending;
  if (pending.empty() || pending.back().part != part) pending.emplace_back().part = part;
  return pending.back();
}

// Each call's beginning is a piece of its own.
void Generation::AppendCall(size_t i, ReplyDelta delta) {
  Piece* piece = &PendingPiece(i, ReplyPart::kToolCall);
  const bool goes_on = piece->call == delta.call && piece->name.empty() && delta.name.empty();
  if (piece->call >= 0 && !goes_on) {
    piece = &runs_[i].pending.emplace_back();
    piece->part = ReplyPart::kToolCall;
  }
  piece->call = delta.call;
  piece->text += delta.text;
  piece->name = std::move(delta.name);
}

void Generation::AppendDeltas(size_t i, std::vector<ReplyDelta> deltas) {
  SampledReply& sampled = runs_[i].sampled;
  for (ReplyDelta& delta : deltas) {
    if (delta.part == ReplyPart::kToolCall) {
      AppendCall(i, std::move(delta));
      continue;
    }
    PendingPiece(i, delta.part).text += delta.text;
    if (!state_.spec.is_chat) continue;
    (delta.part == ReplyPart::kReasoning ? sampled.reasoning : sampled.content) += delta.text;
  }
}

// With ignore_eos the model goes on after an end token, and so does the reader.
bool Generation::IsEnd(int32_t id) const {
  return !state_.spec.common.ignore_eos && Contains(host_->tokenizer->end_ids(), id);
}

// The prompt is the reply's first piece, which is whole when the first token comes.
void Generation::TakePrompt(size_t i, const Event& event) {
  Choice& choice = state_.choices[i];
  if (choice.completion_tokens > 0) return;
  const Prompt& prompt = state_.spec.prompts[choice.prompt];
  std::vector<Token>& tokens = runs_[i].prompt;
  if (tokens.empty() && wants_tokens()) tokens.push_back({prompt.ids[0], NAN, {}});
  tokens.insert(tokens.end(), event.prompt.begin(), event.prompt.end());
  if (event.tokens.empty()) return;
  Piece& piece = PendingPiece(i, ReplyPart::kContent);
  piece.text = *prompt.echo;
  piece.tokens = std::move(tokens);
}

void Generation::TakeToken(size_t i, const Token& token, bool is_end) {
  const CommonRequest& common = state_.spec.common;
  if (common.max_tokens == 0) return;
  Choice& choice = state_.choices[i];
  Run& run = runs_[i];
  ++choice.completion_tokens;
  if (common.return_token_ids) choice.ids.push_back(token.id);
  const bool is_end_id = IsEnd(token.id);
  const bool is_stop_id = is_end && !is_end_id;
  // The token that ended the reply is no part of its text. Its logprob is told only beside its id,
  // so that the two lists match; elsewhere the logprobs spell the text.
  const bool told =
      !(is_end || is_end_id) || common.return_token_ids || (is_stop_id && common.include_stop);
  if (wants_tokens() && told) PendingPiece(i, run.reader.part()).tokens.push_back(token);
  if (is_end_id || (is_stop_id && !common.include_stop)) return;
  if (state_.spec.is_chat) run.sampled.ids.push_back(token.id);
  AppendDeltas(i, run.reader.Feed(token.id));
  choice.reasoning_tokens = run.reader.reasoning_tokens();
}

void Generation::FinishChoice(size_t i, const Event& event) {
  Choice& choice = state_.choices[i];
  Run& run = runs_[i];
  if (run.reader.done()) {
    choice.finish_reason = "stop";
    choice.stop_string = run.reader.matched_stop();
    if (event.finish == Finish::kNone) host_->engine->Cancel(ids_[i]);
  } else {
    const bool in_reasoning = run.reader.part() == ReplyPart::kReasoning;
    AppendDeltas(i, run.reader.Finish());
    const bool is_length = event.finish == Finish::kLength || state_.spec.common.max_tokens == 0;
    choice.finish_reason = is_length ? "length" : "stop";
    if (choice.finish_reason == "stop" && !event.tokens.empty()) {
      const int32_t last = event.tokens.back().id;
      if (!IsEnd(last)) choice.stop_id = last;
    }
    if (in_reasoning && choice.finish_reason == "stop" && host_->thinking_is_content) {
      AppendDeltas(i, {{ReplyPart::kContent, run.sampled.reasoning}});
    }
  }
  FinishCalls(i);
  CountFinished(i, choice.finish_reason == "length" ? Outcome::kLength : Outcome::kStop);
  if (state_.spec.is_chat) host_->on_reply(&state_.spec, std::move(run.sampled));
}

// A reply that ends inside a call is cut off, however it ends.
void Generation::FinishCalls(size_t i) {
  Choice& choice = state_.choices[i];
  const ReplyCalls* calls = runs_[i].reader.calls();
  if (calls == nullptr) return;
  host_->metrics->tool_calls += calls->delivered.size();
  for (size_t k = 0; k < calls->faults.size(); ++k) {
    host_->metrics->malformed_calls[k] += static_cast<uint64_t>(calls->faults[k]);
  }
  const bool ended = choice.finish_reason == "stop" && !calls->cut;
  if (!calls->delivered.empty() && (ended || calls->closed)) {
    choice.finish_reason = "tool_calls";
  } else if (calls->cut) {
    choice.finish_reason = "length";
  }
  if (choice.finish_reason == "stop" && runs_[i].sampled.content.empty()) {
    ++host_->metrics->empty_replies;
  }
  choice.calls = calls->delivered;
  runs_[i].sampled.calls = calls->delivered;
  runs_[i].sampled.whole_calls = calls->whole;
}

// Takes what is pending: adds it to the whole reply, or words it for the stream. Tokens without
// text yet wait for it, unless `all`.
std::string Generation::Emit(size_t i, bool all) {
  Choice& choice = state_.choices[i];
  std::vector<Piece>& pending = runs_[i].pending;
  std::string frames;
  size_t taken = 0;
  for (; taken < pending.size(); ++taken) {
    Piece& piece = pending[taken];
    const bool is_last = taken + 1 == pending.size();
    if (!piece.has_text() && is_last && !all) break;
    if (!piece.has_text() && piece.tokens.empty()) continue;
    const bool is_reasoning = piece.part == ReplyPart::kReasoning;
    if (is_reasoning && !state_.spec.include_reasoning) continue;
    if (state_.spec.common.stream) {
      frames += form_->StreamPiece(&state_, &choice, piece);
      continue;
    }
    if (piece.part != ReplyPart::kToolCall) {
      (is_reasoning ? choice.reasoning : choice.content) += piece.text;
    }
    std::vector<Token>& kept =
        is_reasoning ? choice.reasoning_tokens_kept : choice.content_tokens_kept;
    std::move(piece.tokens.begin(), piece.tokens.end(), std::back_inserter(kept));
  }
  pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(taken));
  return frames;
}

void Generation::CountTokens(size_t i, const Event& event, int32_t tokens) {
  if (event.tokens.empty()) return;
  Metrics& metrics = *host_->metrics;
  Choice& choice = state_.choices[i];
  Run& run = runs_[i];
  const auto now = Clock::now();
  if (run.first_token == Clock::time_point()) {
    const size_t prompt_tokens = state_.spec.prompts[choice.prompt].ids.size();
    choice.cached_tokens = event.cached_tokens;
    metrics.prompt_tokens += prompt_tokens;
    metrics.cached_prompt_tokens += static_cast<uint64_t>(event.cached_tokens);
    metrics.request_prompt_tokens.Observe(static_cast<double>(prompt_tokens));
    metrics.time_to_first_token.Observe(Seconds(now - arrived_));
    run.first_token = now;
  } else {
    // Tokens that came together share the time since the last ones.
    metrics.inter_token_latency.Observe(Seconds(now - run.last_token) / tokens,
                                        static_cast<uint64_t>(tokens));
  }
  run.last_token = now;
  metrics.generation_tokens += static_cast<uint64_t>(tokens);
}

void Generation::CountFinished(size_t i, Outcome outcome) {
  Metrics& metrics = *host_->metrics;
  const Run& run = runs_[i];
  const int32_t tokens = state_.choices[i].completion_tokens;
  ++metrics.finished[static_cast<size_t>(outcome)];
  metrics.e2e_latency.Observe(Seconds(Clock::now() - arrived_));
  metrics.request_generation_tokens.Observe(tokens);
  if (run.first_token == Clock::time_point()) return;
  const double decode = Seconds(run.last_token - run.first_token);
  metrics.decode_time.Observe(decode);
  if (tokens > 1) metrics.time_per_output_token.Observe(decode / (tokens - 1));
}

void Generation::BeginStream() {
  if (reply_.streaming()) return;
  HttpHeaders headers = headers_;
  headers.emplace_back("Cache-Control", "no-cache");
  headers.emplace_back("X-Accel-Buffering", "no");
  reply_.BeginStream(headers, "text/event-stream; charset=utf-8");
}

void Generation::Tick(Clock::time_point now, Clock::duration keep_alive) {
  const float timeout = state_.spec.common.timeout;
  if (timeout > 0 && Seconds(now - arrived_) >= timeout) {
    return Fail({504, fmt::format("The request did not end within {:g} s (timeout).", timeout), "",
                 "timeout", 0});
  }
  if (done_ || !state_.spec.common.stream || now - last_write_ < keep_alive) return;
  BeginStream();
  reply_.Write(": keep-alive\n\n");
  last_write_ = now;
}

void Generation::Fail(const ApiError& error) {
  if (done_) return;
  done_ = true;
  const Outcome outcome = error.code == "cancelled" ? Outcome::kAbort : Outcome::kError;
  for (size_t i = 0; i < ids_.size(); ++i) {
    Choice& choice = state_.choices[i];
    if (!choice.finish_reason.empty()) continue;
    host_->engine->Cancel(ids_[i]);
    choice.finish_reason = kOutcomeNames[static_cast<size_t>(outcome)];
    CountFinished(i, outcome);
  }
  if (reply_.streaming()) {
    reply_.Write(form_->StreamError(error));
    reply_.End();
    return;
  }
  HttpHeaders headers = headers_;
  if (error.retry_after > 0) headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  reply_.Send(error.http_status, headers, "application/json", ErrorBody(error));
}

}  // namespace seacliff::serve
