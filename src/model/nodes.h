// A parallel model over several hosts: what node 0 does is told to the others, whose ranks do the
// same.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "model/model.h"
#include "model/rank_thread.h"
#include "parallel/tcp.h"
#include "seacliff/progress.h"

namespace seacliff {

// A command as bytes. Of a trace the part that changes how a step runs is kept.
std::vector<std::byte> EncodeCommand(const RankCommand& command);

// A command from bytes, with the memory that it refers to.
class DecodedCommand {
 public:
  // kInvalidArgument if they are no command.
  Status Decode(std::vector<std::byte> bytes);
  const RankCommand& command() const { return command_; }

 private:
  std::vector<std::byte> bytes_;
  std::vector<RowCopy> copies_;
  std::vector<float> margins_;
  ForwardTrace trace_;
  RankCommand command_;
};

// This node among options.nodes, which must have been started with the same options.
Result<std::unique_ptr<TcpNode>> JoinNodes(const ModelOptions& options);

}  // namespace seacliff
