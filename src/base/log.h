// Logging: one logger to stderr, levels and format in one place. Use SC_LOG_INFO("... {}", x).
#pragma once

#include <spdlog/spdlog.h>

#define SC_LOG_INFO(...) ::spdlog::info(__VA_ARGS__)
#define SC_LOG_WARN(...) ::spdlog::warn(__VA_ARGS__)
#define SC_LOG_ERROR(...) ::spdlog::error(__VA_ARGS__)
#define SC_LOG_DEBUG(...) ::spdlog::debug(__VA_ARGS__)

namespace seacliff {

// Sets stderr, the line format and the level ("debug", "info", "warning", "error"); call once.
void InitLog(const char* level);

}  // namespace seacliff
