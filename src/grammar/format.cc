// Patterns of formats, from their RFCs: 3339 (dates and times), 4122, 5321, 1123, 791, 4291, 3986,
// 6901.
#include "grammar/format.h"

#include <utility>
#include <vector>

namespace seacliff::grammar {
namespace {

std::vector<std::pair<std::string, std::string>> Table() {
  const std::string date =
      "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
      "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|"
      "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)";
  const std::string clock = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?";
  const std::string zone = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  const std::string label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?";
  const std::string host = label + "(?:\\." + label + "){0,6}";
  const std::string byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  const std::string hex = "[0-9a-fA-F]";
  const std::string group = hex + "{1,4}";
  const std::string path_char = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%" + hex + "{2})";
  const std::string tail = "(?:\\?(?:" + path_char + "|[/?])*)?(?:#(?:" + path_char + "|[/?])*)?";
  const std::string uri = "(?:https?|ftp|file|ws|wss)://" + host + "(?::[1-9][0-9]{0,3})?(?:/" +
                          path_char + "*)*" + tail;
  return {
      {"date", date},
      {"time", clock + zone},
      {"date-time", date + "T" + clock + zone},
      {"duration",
       "P(?:[0-9]{1,4}W|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|"
       "[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D|"
       "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|"
       "[0-9]{1,4}S))"},
      {"uuid", hex + "{8}-" + hex + "{4}-" + hex + "{4}-" + hex + "{4}-" + hex + "{12}"},
      {"email", "[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,16}){0,3}@" + label + "(?:\\." + label +
                    "){1,4}"},
      {"hostname", host},
      {"ipv4", byte + "(?:\\." + byte + "){3}"},
      {"ipv6", "(?:(?:" + group + ":){7}" + group + "|::(?:" + group + "(?::" + group +
                   "){0,6})?|" + group + "::(?:" + group + "(?::" + group + "){0,5})?|" + group +
                   ":" + group + "::(?:" + group + "(?::" + group + "){0,4})?)"},
      {"uri", uri},
      {"uri-reference", "(?:" + uri + "|(?:/" + path_char + "+)+" + tail + ")"},
      {"json-pointer", "(?:/(?:[^/~]|~[01])*)*"},
  };
}

const std::vector<std::pair<std::string, std::string>>& Formats() {
  static const auto table = Table();
  return table;
}

}  // namespace

std::string FormatPattern(std::string_view format) {
  for (const auto& [name, pattern] : Formats()) {
    if (name == format) return pattern;
  }
  return {};
}

std::string FormatNames() {
  std::string out = "int32, int64, float, double";
  for (const auto& [name, pattern] : Formats()) out += ", " + name;
  return out;
}

}  // namespace seacliff::grammar
