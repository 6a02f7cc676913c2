// Ranks that talk through the memory of GPUs: the same sums as on the host, bit for bit, in replays
// of graphs too, and no wait that does not end. With two ranks and more on one GPU, which a Device
// each stands for, and with a GPU each where there are two. Ranks on one GPU may not allocate or
// record while another waits: the driver may want the GPU idle for that. Nor may they queue graphs
// up: then they wait for each other in vain at times.
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/context.h"
#include "kernels/shared_device.h"
#include "parallel/device_group.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

using testing::HasSubstr;

struct Ranks {
  int32_t size;
  bool on_one_gpu;
};

class CollectivesTest : public testing::TestWithParam<Ranks> {
 protected:
  void SetUp() override {
    for (int32_t r = 0; r < size(); ++r) {
      auto device = GetParam().on_one_gpu ? OpenSharedDevice(0, size()) : OpenDevice(r, {});
      if (NoDevice(device.status())) {
        const char* none = r == 0 ? "skipped: no device: " : "skipped: one device: ";
        GTEST_SKIP() << none << device.status().message();
      }
      ASSERT_TRUE(device.ok()) << device.status().message();
      devices_.push_back(std::move(device).value());
      contexts_.push_back(std::make_unique<Context>(1));
      contexts_.back()->set_device(devices_.back().get());
    }
  }
  void TearDown() override { ranks_.clear(); }

  void Make(const DeviceGroupOptions& options) {
    std::vector<Device*> devices;
    for (const auto& device : devices_) devices.push_back(device.get());
    auto ranks = MakeDeviceGroup(devices, options);
    ASSERT_TRUE(ranks.ok()) << ranks.status().message();
    ranks_ = std::move(ranks).value();
  }
  void SetRows(const std::string& text) {
    for (const auto& k : contexts_) k->rows() = Rows::Parse(text).value();
  }

  int32_t size() const { return GetParam().size; }
  Device& device(int32_t rank) { return *devices_[static_cast<size_t>(rank)]; }
  Context& context(int32_t rank) { return *contexts_[static_cast<size_t>(rank)]; }
  Communicator& communicator(int32_t rank) { return *ranks_[static_cast<size_t>(rank)]; }
  // Runs one function as every rank, each in its thread.
  void Each(const std::function<void(int32_t)>& body) {
    std::vector<std::thread> threads;
    for (int32_t r = 0; r < size(); ++r) threads.emplace_back(body, r);
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<Buffer> AllocateEach(int64_t bytes) {
    std::vector<Buffer> memory;
    for (int32_t r = 0; r < size(); ++r) {
      memory.push_back(device(r).Allocate(bytes));
      EXPECT_TRUE(device(r).Synchronize().ok());
    }
    return memory;
  }
  void ExpectOk() {
    for (int32_t r = 0; r < size(); ++r) {
      EXPECT_EQ(context(r).TakeError().message(), "") << "rank " << r;
      EXPECT_EQ(device(r).Synchronize().message(), "") << "rank " << r;
      EXPECT_EQ(communicator(r).error().message(), "") << "rank " << r;
    }
  }

  void ExpectSums(int64_t count, DType dtype, int64_t offset);

 private:
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::vector<std::unique_ptr<Communicator>> ranks_;
};

std::vector<float> Values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(static_cast<int32_t>(random())) * 1e-9f;
  return values;
}

// In the bits of dtype.
std::vector<char> Stored(const std::vector<float>& values, DType dtype) {
  std::vector<char> bytes(values.size() * static_cast<size_t>(SizeOf(dtype)));
  const Act<1> to(bytes.data(), dtype, {static_cast<int64_t>(values.size())});
  for (int64_t i = 0; i < to.size(); ++i) to.Store(i, values[static_cast<size_t>(i)]);
  return bytes;
}

// Added in f32 in the order of ranks, rounded once.
std::vector<char> HostSum(const std::vector<std::vector<char>>& parts, DType dtype, int64_t count) {
  std::vector<char> sum = parts[0];
  const Act<1> to(sum.data(), dtype, {count});
  for (int64_t i = 0; i < count; ++i) {
    float total = 0;
    for (size_t r = 0; r < parts.size(); ++r) {
      const float v = Act<1>(const_cast<char*>(parts[r].data()), dtype, {count}).Load(i);
      total = r == 0 ? v : total + v;
    }
    to.Store(i, total);
  }
  return sum;
}

void CollectivesTest::ExpectSums(int64_t count, DType dtype, int64_t offset) {
  std::vector<std::vector<char>> parts, got(static_cast<size_t>(size()));
  for (int32_t r = 0; r < size(); ++r) {
    parts.push_back(Stored(Values(count, static_cast<uint32_t>(100 * r + count % 97)), dtype));
  }
  const auto bytes = static_cast<int64_t>(parts[0].size());
  const std::vector<Buffer> memory = AllocateEach(bytes + 64);
  Each([&](int32_t r) {
    const auto own = static_cast<size_t>(r);
    char* const v = static_cast<char*>(memory[own].data()) + offset * SizeOf(dtype);
    device(r).Upload(v, parts[own].data(), bytes);
    communicator(r).AllReduce(context(r), Act<2>(v, dtype, {1, count}));
    got[own].resize(static_cast<size_t>(bytes));
    device(r).Download(got[own].data(), v, bytes);
  });
  const std::vector<char> want = HostSum(parts, dtype, count);
  for (int32_t r = 0; r < size(); ++r) {
    EXPECT_TRUE(got[static_cast<size_t>(r)] == want)
        << "rank " << r << " of " << size() << ": " << count << " numbers of " << SizeOf(dtype)
        << " bytes at offset " << offset;
  }
}

TEST_P(CollectivesTest, SumsAreTheHosts) {
  Make({.nccl = false});
  for (const char* row : {"", "all_reduce=one_shot", "all_reduce=two_shot"}) {
    if (size() == 2 && std::string(row) == "all_reduce=two_shot") continue;
    SetRows(row);
    for (const DType dtype : {DType::kBf16, DType::kF32}) {
      for (const int64_t count : {1, 7, 8, 9, 4095, 4096, 32 * 4096, 131071, 1000003}) {
        ExpectSums(count, dtype, 0);
      }
      ExpectSums(70001, dtype, 1);
    }
    ExpectOk();
  }
  ExpectSums(int64_t{32} << 20, DType::kBf16, 0);
  ExpectOk();
}

TEST_P(CollectivesTest, NcclGivesTheSameSums) {
  const char* library = std::getenv("SEACLIFF_NCCL");
  if (size() != 2 || GetParam().on_one_gpu) GTEST_SKIP() << "skipped: needs two GPUs";
  Make({.nccl_library = library == nullptr ? "" : library});
  SetRows("all_reduce=nccl");
  ExpectSums(4096, DType::kBf16, 0);
  const Status error = context(0).TakeError();
  if (!error.ok()) GTEST_SKIP() << "skipped: " << error.message();
  for (const int64_t count : {1, 4097, 1000003, 32 << 20}) ExpectSums(count, DType::kBf16, 0);
  ExpectOk();
}

// Messages of many lengths one after another, each of other numbers, so that what is left of an
// earlier one is found out.
TEST_P(CollectivesTest, GraphsRunAgainAThousandTimes) {
  Make({.nccl = false});
  const std::vector<int64_t> counts = {4096, 33, 65536, 4096, 1, 4096, 300001, 8192, 4096};
  int64_t total = 0;
  for (const int64_t count : counts) total += (count + 7) / 8 * 8;
  std::vector<std::vector<char>> parts, got(static_cast<size_t>(size()));
  for (int32_t r = 0; r < size(); ++r) {
    parts.push_back(Stored(Values(total, static_cast<uint32_t>(r)), DType::kBf16));
  }
  const std::vector<char> want = HostSum(parts, DType::kBf16, total);
  const std::vector<Buffer> values = AllocateEach(2 * total), sums = AllocateEach(2 * total);
  std::vector<std::unique_ptr<DeviceGraph>> graphs;
  for (int32_t r = 0; r < size(); ++r) {
    const auto own = static_cast<size_t>(r);
    device(r).Upload(values[own].data(), parts[own].data(), 2 * total);
    graphs.push_back(device(r).Record([&] {
      device(r).Copy(sums[own].data(), values[own].data(), 2 * total);
      auto* next = static_cast<Bf16*>(sums[own].data());
      for (const int64_t count : counts) {
        communicator(r).AllReduce(context(r), Act<2>(next, DType::kBf16, {1, count}));
        next += (count + 7) / 8 * 8;
      }
    }));
    ASSERT_NE(graphs.back(), nullptr) << device(r).TakeError().message();
    got[own].resize(want.size());
  }
  std::vector<int> wrong(static_cast<size_t>(size()));
  Each([&](int32_t r) {
    const auto own = static_cast<size_t>(r);
    for (int round = 0; round < 20; ++round) {
      for (int replay = 0; replay < 50; ++replay) {
        device(r).Run(*graphs[own]);
        if (GetParam().on_one_gpu) {
          EXPECT_EQ(device(r).Synchronize().message(), "");
        }
      }
      device(r).Download(got[own].data(), sums[own].data(), 2 * total);
      int64_t at = 0;
      for (const int64_t count : counts) {  // between them lie numbers that nobody adds up
        const auto from = static_cast<std::ptrdiff_t>(2 * at);
        wrong[own] += !std::equal(want.begin() + from, want.begin() + from + 2 * count,
                                  got[own].begin() + from);
        at += (count + 7) / 8 * 8;
      }
    }
  });
  ExpectOk();
  EXPECT_THAT(wrong, testing::Each(0));
}

TEST_P(CollectivesTest, GatherLaysRanksSideBySide) {
  Make({.nccl = false});
  struct Case {
    int64_t rows, columns;
  };
  for (const auto& [rows, columns] :
       {Case{1, 1}, {3, 5}, {1, 64640}, {17, 4040}, {32, 64640}, {5, 1023}}) {
    std::vector<std::vector<float>> parts;
    for (int32_t r = 0; r < size(); ++r) {
      parts.push_back(Values(rows * columns, static_cast<uint32_t>(r)));
    }
    const int64_t width = size() * columns;
    std::vector<float> got(static_cast<size_t>(rows * width)), want(got.size());
    for (int64_t i = 0; i < rows * width; ++i) {
      const int64_t row = i / width, column = i % width;
      want[static_cast<size_t>(i)] = parts[static_cast<size_t>(column / columns)]
                                          [static_cast<size_t>(row * columns + column % columns)];
    }
    const std::vector<Buffer> own_parts = AllocateEach(rows * columns * 4);
    const Buffer table = device(0).Allocate(rows * width * 4);
    EXPECT_TRUE(device(0).Synchronize().ok());
    Each([&](int32_t r) {
      const Buffer& part = own_parts[static_cast<size_t>(r)];
      device(r).Upload(part.data(), parts[static_cast<size_t>(r)].data(), rows * columns * 4);
      for (int again = 0; again < 3; ++again) {
        communicator(r).Gather(context(r), part.As<const float, 2>({rows, columns}),
                               r == 0 ? table.As<float, 2>({rows, width}) : View<float, 2>());
      }
      EXPECT_TRUE(device(r).Synchronize().ok());
      if (r == 0) device(r).Download(got.data(), table.data(), rows * width * 4);
    });
    EXPECT_TRUE(got == want) << rows << " x " << columns;
  }
  ExpectSums(4096, DType::kBf16, 0);  // the inboxes are as they should be
  ExpectOk();
}

TEST_P(CollectivesTest, ARankThatDoesNotComeIsNamed) {
  Make({.nccl = false, .timeout_seconds = 0.5});
  ExpectSums(4096, DType::kBf16, 0);
  const int32_t last = size() - 1;
  const std::vector<Buffer> v = AllocateEach(8192);
  Each([&](int32_t r) {
    if (r == last) return;
    communicator(r).AllReduce(context(r),
                              Act<2>(v[static_cast<size_t>(r)].data(), DType::kBf16, {1, 4096}));
    EXPECT_EQ(device(r).Synchronize().message(), "") << "a wait that ended is no fault of the GPU";
  });
  for (int32_t r = 0; r < size(); ++r) {
    const Status error = communicator(r).error();
    EXPECT_EQ(error.code(), Code::kUnavailable);
    EXPECT_THAT(error.message(), HasSubstr("rank " + std::to_string(last) + " did not come"));
  }
  // Whoever comes later is told, and waits for nobody.
  communicator(last).AllReduce(context(last), Act<2>(v[0].data(), DType::kBf16, {1, 4096}));
  EXPECT_EQ(context(last).TakeError().message(), communicator(0).error().message());
}

TEST_P(CollectivesTest, AbortEndsWaits) {
  Make({.nccl = false, .timeout_seconds = 3600});
  const std::vector<Buffer> v = AllocateEach(32 * 8192);
  std::vector<std::unique_ptr<DeviceGraph>> graphs;
  for (int32_t r = 0; r < size(); ++r) {
    graphs.push_back(device(r).Record([&] {
      communicator(r).AllReduce(context(r),
                                Act<2>(v[static_cast<size_t>(r)].data(), DType::kBf16, {32, 4096}));
    }));
    ASSERT_NE(graphs.back(), nullptr) << device(r).TakeError().message();
  }
  Each([&](int32_t r) {
    if (r == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      communicator(r).Abort(Internal("the step failed"));
      communicator(r).Abort(Internal("and again"));
      return;
    }
    for (int replay = 0; replay < 10; ++replay) device(r).Run(*graphs[static_cast<size_t>(r)]);
    EXPECT_EQ(device(r).Synchronize().message(), "");
  });
  for (int32_t r = 0; r < size(); ++r) {
    EXPECT_EQ(communicator(r).error().message(), "the step failed");
  }
}

INSTANTIATE_TEST_SUITE_P(OnOneGpu, CollectivesTest,
                         testing::Values(Ranks{2, true}, Ranks{3, true}, Ranks{4, true},
                                         Ranks{5, true}),
                         [](const auto& of) { return "Ranks" + std::to_string(of.param.size); });
INSTANTIATE_TEST_SUITE_P(OnTwoGpus, CollectivesTest, testing::Values(Ranks{2, false}),
                         [](const auto&) { return "Ranks2"; });

}  // namespace
}  // namespace seacliff
