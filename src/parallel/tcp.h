// Ranks on several hosts (nodes), with as many on each, over plain TCP: how they find each other,
// their communicators, over host memory, and the line over which node 0 tells the others what to
// do. All that ranks add up goes through rank 0: for correctness on any machines, not for speed.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "parallel/communicator.h"

namespace seacliff {

struct TcpOptions {
  std::string address;          // HOST:PORT where node 0 listens and the others find it
  int32_t nodes = 1, node = 0;  // how many, and which is this
  int32_t ranks = 1;            // on all nodes together, a multiple of them
  std::string terms;            // lines "name value" that must be the same on all nodes
  std::chrono::milliseconds rank_timeout{20'000};  // as MakeThreadGroup's
  std::chrono::milliseconds join_timeout{300'000};
};

class TcpLink;

// This node among the others. A node whose process ends, or whose host does not answer for some
// seconds, ends the waits of all, as does a rank that is late by rank_timeout.
class TcpNode {
 public:
  // Waits until all nodes are there. kInvalidArgument for an address or terms that do not fit,
  // which the other side is told too; kUnavailable if they do not come in time.
  static Result<std::unique_ptr<TcpNode>> Join(const TcpOptions& options);
  ~TcpNode();

  // The communicators of this node's ranks, in order; once. They do not need the node.
  std::vector<std::unique_ptr<Communicator>> TakeRanks() { return std::move(ranks_); }

  // From node 0 to all others.
  Status Send(std::span<const std::byte> message);
  // What node 0 sent next; waits for it. kUnavailable if node 0 is gone.
  Result<std::vector<std::byte>> Receive();

  // Other nodes: how the loading of their part went. Node 0 waits for that of all; the first error
  // names its node.
  Status Report(const Status& loaded);
  Status AwaitReports();

 private:
  TcpNode() = default;
  friend class Rendezvous;

  std::vector<std::unique_ptr<TcpLink>> lines_;  // node 0: to node i + 1; others: to node 0
  std::vector<std::unique_ptr<Communicator>> ranks_;
};

}  // namespace seacliff
