// A fault that ends the device's context: what is told, and what a serving engine makes of it. The
// context of the whole process is gone then, so each test runs in a process of its own, which tells
// on standard error what it saw.
#include "tests/gpu/fault.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cstdio>
#include <future>

#include "seacliff/engine.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

class Fault : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
};

void Tell(const char* what, const Status& status) {
  std::fprintf(stderr, "%s: %s: %s\n", what,
               status.code() == Code::kUnavailable ? "unavailable" : "another code",
               status.message().c_str());
}

void FaultOnADevice() {
  auto device = OpenDevice(0, {}).value();
  WriteToNull(*device);
  Tell("the device", device->Synchronize());
  const Buffer after = device->Allocate(100);
  Tell("later", device->Synchronize());
  std::fprintf(stderr, "lost %d, memory %d\n", device->lost(), after.data() != nullptr);
  std::_Exit(0);
}

TEST_F(Fault, LosesTheDeviceAndIsToldInOneLine) {
  EXPECT_EXIT(FaultOnADevice(), testing::ExitedWithCode(0),
              "the device: unavailable: CUDA: [^\n]*illegal memory access[^\n]*\n"
              "later: unavailable: CUDA: [^\n]*\n"
              "lost 1, memory 0\n");
}

void FaultUnderAnEngine() {
  std::promise<void> begun;
  std::promise<Status> ended, lost;
  EngineOptions options;
  options.model_dir = Repository() + kDemoModel;
  options.device = "cuda";
  options.kv_cache_memory = int64_t{64} << 20;
  options.on_lost = [&](const Status& status) { lost.set_value(status); };
  auto engine = Engine::Load(options, {}).value();
  Request request;
  request.prompt = {0, 300, 400};
  request.max_tokens = 4000;
  request.ignore_eos = true;
  bool first = true;
  const Status submitted = engine->Submit(std::move(request), [&](const Event& event) {
    if (first) begun.set_value();
    first = false;
    if (event.finish == Finish::kError) ended.set_value(event.error);
  });
  begun.get_future().wait();
  auto device = OpenDevice(0, {}).value();
  WriteToNull(*device);
  const auto tell = [](const char* what, std::future<Status> status) {
    if (status.wait_for(std::chrono::seconds(60)) == std::future_status::ready) {
      Tell(what, status.get());
    }
  };
  tell("the request", ended.get_future());
  tell("the engine", lost.get_future());
  Request next;
  next.prompt = {0};
  Tell("the next request", engine->Submit(std::move(next), [](const Event&) {}));
  std::_Exit(submitted.ok() ? 0 : 1);
}

TEST_F(Fault, EndsTheRequestsOfAnEngineThatThenTakesNoMore) {
  EXPECT_EXIT(FaultUnderAnEngine(), testing::ExitedWithCode(0),
              "the request: unavailable: CUDA: [^\n]*\n"
              "the engine: unavailable: CUDA: [^\n]*\n"
              "the next request: unavailable: CUDA: ");
}

}  // namespace
}  // namespace seacliff
