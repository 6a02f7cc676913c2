// The logger's set-up.
#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace seacliff {

void InitLog(const char* level) {
  auto logger = spdlog::get("seacliff");
  if (!logger) logger = spdlog::stderr_color_mt("seacliff");
  logger->set_pattern("%H:%M:%S.%e %^%L%$ %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace seacliff
