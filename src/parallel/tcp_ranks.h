// The communicators over connections: rank 0 has one to every other rank, and they one to it.
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/tcp_link.h"

namespace seacliff {

// `links`: to ranks 1, 2, ...
std::unique_ptr<Communicator> MakeTcpHub(std::vector<std::unique_ptr<TcpLink>> links);
// Of rank `rank` of `size`; `link`: to rank 0.
std::unique_ptr<Communicator> MakeTcpLeaf(int32_t rank, int32_t size,
                                          std::unique_ptr<TcpLink> link);

}  // namespace seacliff
