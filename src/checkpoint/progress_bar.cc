// Draws on stderr; the rate is the mean since the first call.
#include "checkpoint/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/log.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWidestBar = 40;
constexpr int kNarrowestBar = 5;

struct State {
  State() = default;
  explicit State(std::string_view phase) : label(phase) {}

  std::string label;
  bool terminal = isatty(STDERR_FILENO) == 1;
  bool started = false;
  bool finished = false;
  Clock::time_point start, drawn;
  int64_t tenth = 0;  // the next one to log
};

int TerminalColumns() {
  struct winsize size {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

double Percent(int64_t done, int64_t total) {
  return total <= 0 ? 100 : 100 * static_cast<double>(done) / static_cast<double>(total);
}

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  if (whole >= 3600) {
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

void Draw(const State& state, int64_t done, int64_t total, double seconds) {
  const std::string plain = FormatProgress(state.label, done, total, seconds, 0);
  // " [...]" beside the text, and the last column free so that no terminal wraps.
  int bar = std::min(TerminalColumns() - static_cast<int>(plain.size()) - 4, kWidestBar);
  if (bar < kNarrowestBar) bar = 0;
  const std::string line = FormatProgress(state.label, done, total, seconds, bar);
  fmt::print(stderr, "\r{}\x1b[K{}", line, done >= total ? "\n" : "");
  std::fflush(stderr);
}

void Update(State& state, int64_t done, int64_t total) {
  if (state.finished) return;
  const Clock::time_point now = Clock::now();
  if (!state.started) {
    state.started = true;
    state.start = now;
    if (!state.terminal) state.drawn = now;  // what takes no time has one line, at its end
  }
  const bool last = done >= total;
  const double seconds = std::chrono::duration<double>(now - state.start).count();
  state.finished = last;
  if (state.terminal) {
    if (!last && now - state.drawn < std::chrono::milliseconds(100)) return;
    state.drawn = now;
    Draw(state, done, total, seconds);
    return;
  }
  const auto tenth = static_cast<int64_t>(Percent(done, total) / 10);
  if (!last && (tenth < state.tenth || now - state.drawn < std::chrono::seconds(1))) return;
  state.tenth = tenth + 1;
  state.drawn = now;
  SC_LOG_INFO("{}", FormatProgress(state.label, done, total, seconds, 0));
}

}  // namespace

std::string FormatProgress(const std::string& label, int64_t done, int64_t total, double seconds,
                           int bar_width) {
  const bool small = total < 1'000'000'000;
  const double unit = small ? 1e6 : 1e9;
  const char* const unit_name = small ? "MB" : "GB";
  const double percent = Percent(done, total);
  std::string text = label;
  if (bar_width > 0) {
    const int full = std::clamp(static_cast<int>(percent / 100 * bar_width), 0, bar_width);
    text += fmt::format(" [{:#<{}}{:{}}]", "", full, "", bar_width - full);
  }
  text +=
      fmt::format(" {:3} %  {:.1f} / {:.1f} {}", static_cast<int>(percent),
                  static_cast<double>(done) / unit, static_cast<double>(total) / unit, unit_name);
  if (done <= 0 || seconds <= 0) return text;
  const double rate = static_cast<double>(done) / seconds;
  text += fmt::format("  {:.1f} {}/s", rate / unit, unit_name);
  if (done >= total) return text + "  in " + Duration(seconds);
  return text + "  " + Duration(static_cast<double>(total - done) / rate) + " left";
}

LoadProgress ShowProgress() {
  const auto state = std::make_shared<State>();
  return [state](std::string_view phase, int64_t done, int64_t total) {
    if (state->label != phase) *state = State(phase);
    Update(*state, done, total);
  };
}

}  // namespace seacliff
