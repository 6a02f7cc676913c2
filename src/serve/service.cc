// Calls, generations and their events on the server's thread.
#include "serve/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/log.h"
#include "serve/banned_tokens.h"
#include "serve/http_text.h"
#include "serve/json_writer.h"

namespace seacliff::serve {
namespace {

constexpr std::chrono::milliseconds kTick{50};
// Bodies above this are tokenised by a worker; below, the way there and back costs more.
constexpr size_t kInlineBody = 16 << 10;
constexpr std::string_view kBearer = "Bearer ";
constexpr size_t kGrammarMemory = size_t{256} << 20;

// In a time that does not tell how much of it matches.
bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned>(a[i]) ^ static_cast<unsigned>(b[i]);
  }
  return difference == 0;
}

int64_t SecondsSince1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Service::Service(ServeOptions options)
    : options_(std::move(options)),
      started_(SecondsSince1970()),
      turns_(static_cast<size_t>(options_.reply_memory)),
      known_grammars_(kGrammarMemory) {
  std::random_device random;
  id_state_ = (static_cast<uint64_t>(random()) << 32) | random();
  context_.options = &options_;
  context_.turns = &turns_;
}

Service::~Service() {
  watchdog_.reset();
  if (compile_) compile_->Leave();
  text_.reset();
  if (host_.mailbox) host_.mailbox->Close();
}

void Service::Start(HttpServer* http) {
  http_ = http;
  const auto post = [http](std::function<void()> task) { http->Post(std::move(task)); };
  text_ = std::make_unique<Workers>("text", std::max(options_.text_threads, 1), post);
  compile_ = std::make_unique<Workers>("grammar", 1, post);
  host_.metrics = &metrics_;
  host_.thinking_is_content = options_.thinking_is_content;
  host_.on_reply = [this](GenerationSpec* spec, SampledReply reply) {
    OnReply(spec, std::move(reply));
  };
  host_.mailbox = std::make_shared<Mailbox>([this] { http_->Post([this] { TakeEvents(); }); });
  http_->Every(kTick, [this] { Tick(); });
}

void Service::Attach(Engine* engine, const Tokenizer* tokenizer, ChatProfile profile) {
  context_.tokenizer = tokenizer;
  context_.profile = profile;
  context_.max_model_len = engine->max_model_len();
  context_.vocab_size = engine->vocab_size();
  host_.engine = engine;
  host_.tokenizer = tokenizer;
  grammars_ = std::make_shared<const Grammars>(*tokenizer, profile, kGrammarMemory);
  host_.grammars = grammars_.get();
  host_.banned = BannedTokens(*tokenizer, context_.vocab_size);
  watchdog_ = std::make_unique<Watchdog>(
      engine, options_.stall_timeout,
      [this](const std::optional<std::string>& reason) { OnStall(reason); });
}

std::string Service::NewId() {
  const auto next = [this] {  // splitmix64
    uint64_t z = id_state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  };
  const uint64_t high = next();
  return fmt::format("{:016x}{:016x}", high, next());
}

void Service::Answer(Call* call, int status, std::string_view body) {
  call->reply.Send(status, {{"x-request-id", call->id}}, "application/json", body);
}

void Service::Refuse(Call* call, const ApiError& error) {
  HttpHeaders headers = {{"x-request-id", call->id}};
  if (error.retry_after > 0) headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  if (error.http_status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
  call->reply.Send(error.http_status, headers, "application/json", ErrorBody(error));
}

// The right key that a request brings, in either header; "" where none is asked for.
std::optional<std::string> Service::KeyOf(const HttpRequest& request) const {
  if (options_.api_keys.empty()) return "";
  std::string_view bearer = request.Header("authorization");
  bearer = SameName(bearer.substr(0, kBearer.size()), kBearer) ? bearer.substr(kBearer.size()) : "";
  std::optional<std::string> found;
  for (const std::string& key : options_.api_keys) {
    if (SameSecret(bearer, key) || SameSecret(request.Header("x-api-key"), key)) found = key;
  }
  return found;
}

ApiError Service::NotNow(const Route& route) const {
  if (route.needs_engine && host_.engine == nullptr) {
    return Unavailable("loading", "The model is still being loaded.");
  }
  if (route.generates && draining_) {
    return Unavailable("draining", "The server is shutting down.");
  }
  if (route.generates && !stalled_.empty()) return Unavailable("stalled", stalled_);
  return {};
}

void Service::Handle(HttpRequest request, HttpReply reply) {
  Call call{std::move(request), std::move(reply), "", ""};
  const std::string_view sent_id = call.request.Header("x-request-id");
  call.id = IsPlainId(sent_id) ? std::string(sent_id) : NewId();
  RouteMatch match = FindRoute(call.request.method, call.request.path);
  SC_LOG_DEBUG("http: {} {} {}", call.id, call.request.method, call.request.path);
  if (match.route == nullptr && match.allowed.empty()) {
    return Refuse(
        &call,
        {404, fmt::format("There is no route {} {}.", call.request.method, call.request.path), "",
         "unknown_url", 0});
  }
  if (match.route == nullptr) {
    const ApiError error = {405,
                            fmt::format("{} does not take {}; it takes {}.", call.request.path,
                                        call.request.method, match.allowed),
                            "", "method_not_allowed", 0};
    return call.reply.Send(405, {{"x-request-id", call.id}, {"Allow", match.allowed}},
                           "application/json", ErrorBody(error));
  }
  if (match.route->needs_key && !KeyOf(call.request)) {
    return Refuse(&call, {401, "Incorrect API key provided.", "", "invalid_api_key", 0});
  }
  const ApiError not_now = NotNow(*match.route);
  if (not_now.any()) {
    if (not_now.code == "draining") ++metrics_.rejected_draining;
    return Refuse(&call, not_now);
  }
  call.rest = std::move(match.rest);
  (this->*match.route->handler)(std::move(call));
}

// Calls that generate, but whose prompt or grammar is still being made.
size_t Service::preparing() const {
  return static_cast<size_t>(
      std::count_if(generations_.begin(), generations_.end(),
                    [](const auto& row) { return !row.second->submitted(); }));
}

// The engine's, in which calls that are being prepared wait too.
EngineStats Service::Stats() const {
  EngineStats stats;
  if (host_.engine != nullptr) stats = host_.engine->stats();
  stats.waiting = std::max(stats.waiting, 0) + static_cast<int32_t>(preparing());
  return stats;
}

// An error if that many further requests cannot wait.
ApiError Service::QueueFull(size_t more) {
  const auto waiting = static_cast<size_t>(Stats().waiting);
  if (waiting + more <= static_cast<size_t>(options_.max_waiting)) return {};
  ++metrics_.rejected_queue_full;
  return Unavailable("queue_full", fmt::format("{} requests are waiting; the server's limit is {}. "
                                               "Please try again later.",
                                               waiting, options_.max_waiting));
}

void Service::Offload(std::weak_ptr<const void> caller, size_t body_size,
                      std::function<void()> work, std::function<void()> then) {
  if (body_size > kInlineBody) {
    return text_->Run(std::move(caller), std::move(work), std::move(then));
  }
  work();
  then();
}

void Service::Generate(Call call, Prepare prepare, std::unique_ptr<ReplyForm> form) {
  const ApiError full = QueueFull(1);
  if (full.any()) return Refuse(&call, full);
  idle_prefill_.Yield(host_.engine);
  struct Work {
    std::string body, api_key;
    Prepared prepared;
  };
  auto work = std::make_shared<Work>();
  work->api_key = KeyOf(call.request).value_or("");
  work->body = std::move(call.request.body);
  const size_t size = work->body.size();
  const uint64_t key = next_key_++;
  auto generation = std::make_shared<Generation>(
      &host_, std::move(form), std::move(call.reply), call.id, call.request.arrived,
      std::chrono::duration<float>(options_.request_timeout).count());
  generation->reply().OnGone([this, key] { Erase(key); });
  generations_.emplace(key, generation);
  Offload(
      generation, size,
      [this, work, prepare] { work->prepared = prepare(context_, work->body, work->api_key); },
      [this, key, work] { TakePrompt(key, std::move(work->prepared)); });
}

void Service::TakePrompt(uint64_t key, Prepared prepared) {
  const auto found = generations_.find(key);
  if (found == generations_.end()) return;
  found->second->Expect(std::move(prepared.spec));
  if (prepared.error.any()) return Fail(key, prepared.error);
  if (!found->second->state().spec.rules.any()) return StartGeneration(key);
  Compile(key);
}

// Where the grammar is not known, a thread makes it, which may take seconds.
void Service::Compile(uint64_t key) {
  const std::shared_ptr<Generation>& generation = generations_.at(key);
  RuleSpec& rules = generation->state().spec.rules;
  const auto began = Clock::now();
  const auto count = [this](Clock::duration time) {
    metrics_.grammar_compile.Observe(std::chrono::duration<double>(time).count());
  };
  if (known_grammars_.Find(&rules)) {
    count(Clock::now() - began);
    return StartGeneration(key);
  }
  struct Work {
    std::shared_ptr<const Grammars> grammars;
    RuleSpec rules;
    ApiError error;
    Clock::duration time{};
  };
  auto work = std::make_shared<Work>(Work{grammars_, std::move(rules), {}});
  compile_->Run(
      generation,
      [work] {
        const auto start = Clock::now();
        work->error = CompileRules(*work->grammars, &work->rules);
        work->time = Clock::now() - start;
      },
      [this, key, work, count] {
        count(work->time);
        if (!work->error.any()) known_grammars_.Add(work->rules);
        const auto found = generations_.find(key);
        if (found == generations_.end()) return;
        if (work->error.any()) return Fail(key, work->error);
        found->second->state().spec.rules = std::move(work->rules);
        StartGeneration(key);
      });
}

void Service::StartGeneration(uint64_t key) {
  Generation& generation = *generations_.at(key);
  ReplyState& state = generation.state();
  const GenerationSpec& spec = state.spec;
  // It counts as one already.
  const ApiError full = QueueFull(spec.prompts.size() * static_cast<size_t>(spec.common.n) - 1);
  if (full.any()) return Fail(key, full);
  metrics_.splices.Add(spec.splices);
  for (const Prompt& prompt : spec.prompts) idle_prefill_.Forget(prompt.continues);
  state.id = std::string(generation.form().id_prefix()) +
             (spec.common.request_id.empty() ? NewId() : spec.common.request_id);
  state.call_prefix = "call_" + NewId();
  state.model = spec.common.model.empty() ? options_.model_names[0] : spec.common.model;
  state.created = SecondsSince1970();
  state.tokenizer = host_.tokenizer;
  if (!generation.Submit()) return Erase(key);
  for (size_t i = 0; i < generation.ids().size(); ++i) {
    requests_.emplace(generation.ids()[i], std::pair(key, i));
  }
}

void Service::Fail(uint64_t key, const ApiError& error) {
  generations_.at(key)->Fail(error);
  Erase(key);
}

void Service::Erase(uint64_t key) {
  const auto found = generations_.find(key);
  if (found == generations_.end()) return;
  for (const RequestId id : found->second->ids()) requests_.erase(id);
  generations_.erase(found);  // cancels what still runs
}

void Service::TakeEvents() {
  host_.mailbox->TakeAll(&events_);
  for (const Event& event : events_) {
    if (event.id == probe_) TakeProbe(event);
    if (idle_prefill_.Take(event)) continue;
    // Requests that have been given up are not known any more.
    const auto found = requests_.find(event.id);
    if (found == requests_.end()) continue;
    const auto [key, choice] = found->second;
    Generation& generation = *generations_.at(key);
    generation.OnEvent(choice, event);
    // Also when writing cut the client off: the rest of a long batch is not for it.
    if (generation.done() || !generation.reply().open()) Erase(key);
  }
}

// A reply ended. If it can be found again by its text, the next turn's prompt goes on from it;
// otherwise, or where its reasoning will be dropped, that prompt is another one.
void Service::OnReply(GenerationSpec* spec, SampledReply reply) {
  const Prompt& prompt = spec->prompts[reply.prompt];
  const bool remembered = RememberReply(*host_.tokenizer, prompt.place, prompt.ids,
                                        prompt.starts_in_reasoning, reply, turns_);
  const bool comes_back = spec->include_reasoning || !prompt.starts_in_reasoning;
  if (remembered && comes_back && !spec->forgets_reasoning) return;
  if (spec->messages.empty() || spec->common.n > 1 || prompt.continues_message) return;
  struct Work {
    GenerationSpec spec;
    SampledReply reply;
    IdlePrefill::Prefix prefix;
  };
  auto work = std::make_shared<Work>();
  work->prefix.cache_salt = spec->common.cache_salt;
  work->prefix.turn = prompt.turn;
  work->spec.prompts = spec->prompts;
  work->spec.messages = std::exchange(spec->messages, {});
  work->spec.chat = spec->chat;
  work->spec.include_reasoning = spec->include_reasoning;
  work->reply = std::move(reply);
  text_->Run(
      work,
      [this, work] { work->prefix.ids = NextTurn(context_, std::move(work->spec), work->reply); },
      [this, work] {
        if (!work->prefix.ids.empty()) idle_prefill_.Add(std::move(work->prefix));
      });
}

bool Service::idle() const {
  return generations_.empty() && computed_.empty() && http_->busy() == 0;
}

void Service::Tick() {
  const auto now = Clock::now();
  std::vector<uint64_t> ended;
  for (auto& [key, generation] : generations_) {
    generation->Tick(now, options_.keep_alive);
    if (generation->done()) ended.push_back(key);
  }
  for (const uint64_t key : ended) Erase(key);
  if (probe_) CheckProbe(now);
  if (drained_ && idle()) std::exchange(drained_, nullptr)();
  if (host_.engine != nullptr && idle() && !draining_) {
    idle_prefill_.Start(host_.engine, host_.mailbox);
  }
}

void Service::Drain(std::function<void()> drained) {
  draining_ = true;
  drained_ = std::move(drained);
}

void Service::FailAll(const ApiError& error) {
  std::vector<uint64_t> keys;
  for (const auto& [key, generation] : generations_) keys.push_back(key);
  for (const uint64_t key : keys) Fail(key, error);
  for (auto& [key, call] : std::exchange(computed_, {})) Refuse(call.get(), error);
}

void Service::CancelAll() {
  draining_ = true;
  if (probe_) EndProbe("the server is shutting down");
  FailAll(Unavailable("cancelled", "The server is shutting down."));
}

}  // namespace seacliff::serve
