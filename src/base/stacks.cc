// Stacks by way of a signal: the thread that asks interrupts each other one in turn, whose handler
// walks its own stack into one array.
#include "base/stacks.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <thread>
#include <vector>

namespace seacliff {
namespace {

constexpr int kSignal = SIGURG;
constexpr size_t kMaxFrames = 64;
constexpr std::chrono::milliseconds kPatience(200);

struct Frames {
  std::array<uintptr_t, kMaxFrames> addresses;
  size_t count = 0;
};

_Unwind_Reason_Code AddFrame(_Unwind_Context* context, void* to) {
  Frames& frames = *static_cast<Frames*>(to);
  if (frames.count == kMaxFrames) return _URC_END_OF_STACK;
  frames.addresses[frames.count++] = _Unwind_GetIP(context);
  return _URC_NO_REASON;
}

pid_t ThisThread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

// A signal handler has nothing but globals to go by. `asked` is the thread whose turn it is, its
// negative once its handler has begun, 0 for nobody.
std::atomic<pid_t> asked{0};
std::atomic<bool> answered{false};
Frames answer;

void OnSignal(int) {
  const int saved = errno;
  pid_t self = ThisThread();
  if (asked.compare_exchange_strong(self, -self)) {
    answer.count = 0;
    _Unwind_Backtrace(AddFrame, &answer);
    answered.store(true, std::memory_order_release);
  }
  errno = saved;
}

// False if the thread does not answer.
bool Ask(pid_t thread) {
  answered.store(false);
  asked.store(thread);
  if (syscall(SYS_tgkill, getpid(), thread, kSignal) != 0) return false;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!answered.load(std::memory_order_acquire)) {
    pid_t expected = thread;
    // One that has begun will end.
    if (std::chrono::steady_clock::now() > deadline && asked.compare_exchange_strong(expected, 0)) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  asked.store(0);
  return true;
}

std::string Describe(uintptr_t address) {
  Dl_info info{};
  // The call lies before the address that it returns to.
  if (dladdr(reinterpret_cast<void*>(address - 1), &info) == 0 || info.dli_fname == nullptr) {
    return fmt::format("{:#x}", address);
  }
  std::string name;
  if (info.dli_sname != nullptr) {
    int status = 0;
    char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    name = std::string(status == 0 ? readable : info.dli_sname) + " ";
    std::free(readable);
  }
  return fmt::format("{}({}+{:#x})", name,
                     std::filesystem::path(info.dli_fname).filename().string(),
                     address - reinterpret_cast<uintptr_t>(info.dli_fbase));
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

void AppendThread(pid_t thread, std::string* out) {
  const std::string folder = fmt::format("/proc/self/task/{}/", thread);
  // "12 (name) S ...": the name may hold anything, the last ")" ends it.
  const std::string stat = FirstLine(folder + "stat");
  if (stat.empty()) return;  // it has ended
  const size_t end = stat.rfind(')');
  const char state = end != std::string::npos && end + 2 < stat.size() ? stat[end + 2] : '?';
  fmt::format_to(std::back_inserter(*out), "thread {} \"{}\" {} {}\n", thread,
                 FirstLine(folder + "comm"), state, FirstLine(folder + "wchan"));
  Frames frames;
  if (thread == ThisThread()) {
    _Unwind_Backtrace(AddFrame, &frames);
  } else if (Ask(thread)) {
    frames = answer;
  } else {
    *out += "  it does not answer\n";
    return;
  }
  for (size_t i = 0; i < frames.count; ++i) {
    fmt::format_to(std::back_inserter(*out), "  {} {}\n", i, Describe(frames.addresses[i]));
  }
}

}  // namespace

void NameThread(const char* name) { pthread_setname_np(pthread_self(), name); }

std::string StacksOfAllThreads() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  struct sigaction action = {}, before = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  std::string out;
  if (sigaction(kSignal, &action, &before) != 0) return "no stacks: no signal handler\n";
  std::vector<pid_t> threads;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    threads.push_back(static_cast<pid_t>(std::atoi(entry.path().filename().c_str())));
  }
  std::sort(threads.begin(), threads.end());
  for (const pid_t thread : threads) AppendThread(thread, &out);
  // The handler stays when nothing was there before: a late signal then finds it.
  if (before.sa_handler != SIG_DFL) sigaction(kSignal, &before, nullptr);
  return out;
}

}  // namespace seacliff
