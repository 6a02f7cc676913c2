// Ranks over TCP: several nodes in one process, on loopback. That processes die is in
// tests/parallel.
#include "parallel/tcp.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "parallel/testing/run_all.h"

namespace seacliff {
namespace {

using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// An address on loopback whose port is free.
std::string FreeAddress() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

using Nodes = std::vector<Result<std::unique_ptr<TcpNode>>>;

Nodes Join(int32_t nodes, int32_t ranks, const std::function<void(TcpOptions&)>& change = {}) {
  const std::string address = FreeAddress();
  Nodes joined;
  for (int32_t n = 0; n < nodes; ++n) joined.emplace_back(Internal(""));
  std::vector<std::thread> threads;
  for (int32_t n = 0; n < nodes; ++n) {
    threads.emplace_back([&, n] {
      TcpOptions options;
      options.address = address;
      options.nodes = nodes;
      options.node = n;
      options.ranks = ranks;
      options.join_timeout = std::chrono::seconds(20);
      if (change) change(options);
      joined[static_cast<size_t>(n)] = TcpNode::Join(options);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return joined;
}

Ranks RanksOf(Nodes& nodes) {
  Ranks ranks;
  for (auto& node : nodes) {
    EXPECT_TRUE(node.ok()) << node.status().message();
    for (auto& rank : node.value()->TakeRanks()) ranks.push_back(std::move(rank));
  }
  return ranks;
}

TEST(Tcp, AddsUpAndGathersAcrossNodes) {
  Nodes nodes = Join(2, 4);
  const auto ranks = RanksOf(nodes);
  ASSERT_EQ(ranks.size(), 4u);
  std::vector<float> all(8);
  const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
    // Rounded once, from 1 + 2^-8 + 2^-9 + 0.
    const float parts[4] = {1, 0x1p-8f, 0x1p-9f, 0};
    Bf16 v[2] = {ToBf16(parts[comm.rank()]), ToBf16(static_cast<float>(comm.rank()))};
    comm.AllReduce(k, {v, DType::kBf16, {1, 2}});
    EXPECT_EQ(ToFloat(v[0]), 1 + 0x1p-7f) << "rank " << comm.rank();
    EXPECT_EQ(ToFloat(v[1]), 6);
    const float own[2] = {static_cast<float>(comm.rank()), static_cast<float>(10 + comm.rank())};
    comm.Gather(k, {own, {2, 1}},
                comm.rank() == 0 ? View<float, 2>(all.data(), {2, 4}) : View<float, 2>());
  });
  for (const Status& error : errors) EXPECT_TRUE(error.ok()) << error.message();
  EXPECT_EQ(all, (std::vector<float>{0, 1, 2, 3, 10, 11, 12, 13}));
}

TEST(Tcp, AnErrorOfOneRankIsEverybodys) {
  for (const int32_t bad : {0, 1}) {
    Nodes nodes = Join(3, 3);
    const auto ranks = RanksOf(nodes);
    for (const bool fails : {true, false}) {
      const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
        if (fails && comm.rank() == bad) k.Fail(InvalidArgument("one says no"));
        float v = 1;
        comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
        comm.Gather(k, {&v, {0, 1}}, {});
      });
      for (const Status& error : errors) {
        EXPECT_EQ(error.message(), fails ? "one says no" : "");
        EXPECT_EQ(error.code(), fails ? Code::kInvalidArgument : Code::kOk);
      }
    }
  }
}

TEST(Tcp, ARankThatIsLateOrGoneEndsAll) {
  for (const bool gone : {false, true}) {
    Nodes nodes =
        Join(3, 3, [](TcpOptions& o) { o.rank_timeout = std::chrono::milliseconds(300); });
    auto ranks = RanksOf(nodes);
    const auto begin = Clock::now();
    const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
      if (comm.rank() == 2) {
        if (gone) comm.Abort(Unavailable("rank 2 has had enough"));
        return;
      }
      float v = 1;
      comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
    });
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
    for (const size_t r : {0, 1}) {
      EXPECT_EQ(errors[r].code(), Code::kUnavailable);
      EXPECT_THAT(errors[r].message(), HasSubstr(gone ? "rank 2 has had enough"
                                                      : "rank 2 of 3: nothing came within 300 ms"));
    }
    EXPECT_EQ(ranks[2]->error().code(), Code::kUnavailable);
  }
}

TEST(Tcp, AnIdleRankLearnsThatAnotherIsGone) {
  Nodes nodes = Join(2, 2);
  auto ranks = RanksOf(nodes);
  EXPECT_TRUE(ranks[0]->error().ok());
  ranks[1].reset();  // closes its connection, as the end of its process does
  const auto begin = Clock::now();
  while (ranks[0]->error().ok() && Clock::now() - begin < std::chrono::seconds(5)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_THAT(ranks[0]->error().message(), HasSubstr("rank 1 of 2: the connection was closed"));
}

TEST(Tcp, MessagesAndReports) {
  Nodes nodes = Join(2, 2);
  TcpNode &first = *nodes[0].value(), &other = *nodes[1].value();
  EXPECT_TRUE(other.Report(InvalidArgument("no such file")).ok());
  const Status report = first.AwaitReports();
  EXPECT_EQ(report.code(), Code::kInvalidArgument);
  EXPECT_EQ(report.message(), "node 1: no such file");
  const std::byte message[3] = {std::byte{1}, std::byte{2}, std::byte{3}};
  EXPECT_TRUE(first.Send(message).ok());
  const auto got = other.Receive();
  ASSERT_TRUE(got.ok());
  EXPECT_TRUE(std::equal(got->begin(), got->end(), message, message + 3));
  nodes[0] = Internal("");
  EXPECT_THAT(other.Receive().status().message(), HasSubstr("node 0 is gone"));
}

TEST(Tcp, NodesMustAgree) {
  const Nodes nodes = Join(2, 2, [](TcpOptions& o) {
    o.terms = o.node == 0 ? "seed 1\nmax_tokens 8\nslots 2\n" : "seed 1\nmax_tokens 16\nslots 2\n";
  });
  for (const auto& node : nodes) {
    EXPECT_EQ(node.status().code(), Code::kInvalidArgument);
    EXPECT_EQ(node.status().message(),
              "node 1 was started with \"max_tokens 16\", node 0 with \"max_tokens 8\"");
  }
  const auto alone = [](const std::function<void(TcpOptions&)>& change) {
    TcpOptions options;
    options.address = "127.0.0.1:1";
    options.nodes = options.ranks = 2;
    options.join_timeout = std::chrono::milliseconds(50);
    change(options);
    return TcpNode::Join(options).status().message();
  };
  EXPECT_THAT(alone([](TcpOptions& o) { o.address = "nowhere"; }), HasSubstr("HOST:PORT"));
  EXPECT_THAT(alone([](TcpOptions& o) { o.ranks = 3; }), HasSubstr("not a multiple of nnodes 2"));
  EXPECT_THAT(alone([](TcpOptions& o) { o.node = 2; }), HasSubstr("node_rank 2"));
  EXPECT_THAT(alone([](TcpOptions& o) { o.node = 1; }), HasSubstr("node 0 does not listen there"));
  EXPECT_THAT(alone([](TcpOptions& o) { o.address = FreeAddress(); }),
              HasSubstr("node 1 did not come"));
}

}  // namespace
}  // namespace seacliff
