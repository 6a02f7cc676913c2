// THE route table: what the server answers to, and nothing else does.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace seacliff::serve {

class Service;
struct Call;

struct Route {
  const char* method;
  const char*
      path;  // mounted as it stands, under /v1 and /beta; a last "{id}" takes the rest of the path
  void (Service::*handler)(Call call);
  bool needs_key;     // where the server has an API key
  bool needs_engine;  // 503 until the model is loaded
  bool generates;     // 503 while draining
  const char* doc;
};

std::span<const Route> Routes();

struct RouteMatch {
  const Route* route = nullptr;  // nullptr: see `allowed`
  std::string rest;              // what "{id}" stands for
  std::string allowed;           // methods of this path ("GET, POST"); "" if there is no such path
};
RouteMatch FindRoute(std::string_view method, std::string_view path);

// The table for people: `seacliff show routes`.
std::string DescribeRoutes();

}  // namespace seacliff::serve
