// The route table, its search and its printing.
#include "serve/routes.h"

#include <fmt/format.h>

#include "serve/service.h"

namespace seacliff::serve {
namespace {

constexpr bool kKey = true, kOpen = false, kEngine = true, kAlways = false, kGenerates = true,
               kLooks = false;

// clang-format off
constexpr Route kRoutes[] = {
    {"POST", "/chat/completions", &Service::ChatCompletions, kKey, kEngine, kGenerates, "a reply to messages; stream: server-sent events"},
    {"POST", "/completions", &Service::Completions, kKey, kEngine, kGenerates, "the continuation of raw prompts (text or token ids)"},
    {"GET", "/models", &Service::ListModels, kKey, kEngine, kLooks, "the served names"},
    {"GET", "/models/{id}", &Service::GetModel, kKey, kEngine, kLooks, "one served name"},
    {"POST", "/tokenize", &Service::Tokenize, kKey, kEngine, kLooks, "token ids of a prompt or of messages"},
    {"POST", "/detokenize", &Service::Detokenize, kKey, kEngine, kLooks, "the text of token ids"},
    {"GET", "/health", &Service::Health, kOpen, kAlways, kLooks, "200 when ready; 503 while loading, draining or stalled; deep=1: only once a token was generated"},
    {"GET", "/ping", &Service::Health, kOpen, kAlways, kLooks, "as /health"},
    {"GET", "/metrics", &Service::MetricsPage, kOpen, kAlways, kLooks, "Prometheus metrics"},
    {"GET", "/load", &Service::Load, kKey, kAlways, kLooks, "how many requests run or wait"},
    {"GET", "/version", &Service::Version, kKey, kAlways, kLooks, "the program's version"},
};
// clang-format on

constexpr std::string_view kMounts[] = {"/v1", "/beta"};
constexpr std::string_view kRest = "{id}";

// True if `path` is the route's; the part that "{id}" stands for goes to `rest`.
bool Matches(std::string_view pattern, std::string_view path, std::string* rest) {
  if (!pattern.ends_with(kRest)) return path == pattern;
  const std::string_view stem = pattern.substr(0, pattern.size() - kRest.size());
  if (!path.starts_with(stem) || path.size() == stem.size()) return false;
  *rest = std::string(path.substr(stem.size()));
  return true;
}

}  // namespace

std::span<const Route> Routes() { return kRoutes; }

RouteMatch FindRoute(std::string_view method, std::string_view path) {
  for (const std::string_view mount : kMounts) {
    if (path.starts_with(mount) && path.substr(mount.size()).starts_with('/')) {
      path.remove_prefix(mount.size());
      break;
    }
  }
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  RouteMatch match;
  for (const Route& route : kRoutes) {
    std::string rest;
    if (!Matches(route.path, path, &rest)) continue;
    const bool is_get = std::string_view(route.method) == "GET";
    if (method == route.method || (is_get && method == "HEAD")) {
      match.route = &route;
      match.rest = std::move(rest);
      return match;
    }
    if (!match.allowed.empty()) match.allowed += ", ";
    match.allowed += is_get ? "GET, HEAD" : route.method;
  }
  return match;
}

std::string DescribeRoutes() {
  std::string out = fmt::format("{:<7}{:<36}{:<6}{}\n", "method", "path", "key", "what");
  for (const Route& route : kRoutes) {
    fmt::format_to(std::back_inserter(out), "{:<7}{:<36}{:<6}{}\n", route.method,
                   fmt::format("[/v1]{}", route.path), route.needs_key ? "yes" : "-", route.doc);
  }
  out += "/beta in place of /v1 does too\n";
  out += "key: needs the API key, if the server has one (--api-key)\n";
  return out;
}

}  // namespace seacliff::serve
