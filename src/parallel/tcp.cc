// The rendezvous: node 0 listens, the others connect, once for the line and once for each rank.
#include "parallel/tcp.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "base/log.h"
#include "parallel/tcp_link.h"
#include "parallel/tcp_ranks.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// The bytes of a kHello frame begin with this; the terms follow.
struct Hello {
  uint32_t version = 1;
  int32_t nodes = 0, ranks = 0, node = 0;
  int32_t rank = -1;  // -1: the node's line
};

constexpr milliseconds kHelloTimeout(5000);

struct AddressFree {
  void operator()(addrinfo* a) const { freeaddrinfo(a); }
};
using Addresses = std::unique_ptr<addrinfo, AddressFree>;

Result<Addresses> Resolve(const std::string& address, bool listen) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
    return InvalidArgument(fmt::format("rendezvous \"{}\": must be HOST:PORT", address));
  }
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = listen ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (code != 0) {
    return InvalidArgument(fmt::format("rendezvous \"{}\": {}", address, gai_strerror(code)));
  }
  return Addresses(found);
}

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  int Take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Result<Socket> Listen(const std::string& address) {
  SC_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address, true));
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int yes = 1;
    setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(socket.fd(), a->ai_addr, a->ai_addrlen) == 0 && listen(socket.fd(), 128) == 0) {
      return socket;
    }
  }
  return InvalidArgument(
      fmt::format("rendezvous \"{}\": cannot listen there: {}", address, std::strerror(errno)));
}

// Tries until node 0 listens.
Result<Socket> Connect(const std::string& address, Clock::time_point until) {
  constexpr milliseconds kAgain(100);
  SC_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address, false));
  while (true) {
    for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
      Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
      if (connect(socket.fd(), a->ai_addr, a->ai_addrlen) == 0) return socket;
    }
    if (Clock::now() >= until) {
      return Unavailable(fmt::format("rendezvous \"{}\": node 0 does not listen there: {}", address,
                                     std::strerror(errno)));
    }
    std::this_thread::sleep_for(kAgain);
  }
}

// The first line in which two terms differ: "max_num_seqs 8" and "max_num_seqs 16".
std::pair<std::string, std::string> FirstDifference(const std::string& a, const std::string& b) {
  size_t line = 0;
  const size_t same = static_cast<size_t>(
      std::mismatch(a.begin(),
                    a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())),
                    b.begin())
          .first -
      a.begin());
  if (same > 0) line = a.rfind('\n', same - 1) + 1;
  const auto from = [line](const std::string& text) {
    return line >= text.size() ? "" : text.substr(line, text.find('\n', line) - line);
  };
  return {from(a), from(b)};
}

}  // namespace

// How a node gets its links.
class Rendezvous {
 public:
  explicit Rendezvous(const TcpOptions& options)
      : options_(options),
        per_node_(options.ranks / options.nodes),
        until_(Clock::now() + options.join_timeout) {}

  Result<std::unique_ptr<TcpNode>> Join() {
    auto node = std::unique_ptr<TcpNode>(new TcpNode());
    SC_RETURN_IF_ERROR(options_.node == 0 ? Gather(*node) : Follow(*node));
    return node;
  }

 private:
  // Node 0: takes connections until all are there. Its own ranks have some to themselves.
  Status Gather(TcpNode& node) {
    std::vector<std::unique_ptr<TcpLink>> ranks(static_cast<size_t>(options_.ranks - 1));
    node.lines_.resize(static_cast<size_t>(options_.nodes - 1));
    SC_ASSIGN_OR_RETURN(const Socket listener, Listen(options_.address));
    SC_LOG_INFO("waiting for {} nodes at {}", options_.nodes - 1, options_.address);
    const auto missing = [&] {
      return std::count(node.lines_.begin(), node.lines_.end(), nullptr) +
             std::count(ranks.begin() + per_node_ - 1, ranks.end(), nullptr);
    };
    while (missing() > 0) {
      const auto left = std::chrono::duration_cast<milliseconds>(until_ - Clock::now()).count();
      pollfd wanted = {listener.fd(), POLLIN, 0};
      if (left <= 0 || poll(&wanted, 1, static_cast<int>(std::min<int64_t>(left, 1000))) < 0) {
        if (left > 0 && errno == EINTR) continue;
        return Unavailable(fmt::format("node {} did not come to {} within {} s", FirstMissing(node),
                                       options_.address, options_.join_timeout.count() / 1000));
      }
      if (wanted.revents == 0) continue;
      Socket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      if (socket.fd() < 0) continue;
      auto link = std::make_unique<TcpLink>(socket.Take(), kHelloTimeout);
      SC_RETURN_IF_ERROR(Admit(std::move(link), node, ranks));
    }
    std::vector<std::unique_ptr<Communicator>> own(1);
    for (int32_t r = 1; r < per_node_; ++r) {
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return Internal(fmt::format("a socket: {}", std::strerror(errno)));
      }
      ranks[static_cast<size_t>(r - 1)] = std::make_unique<TcpLink>(pair[0], options_.rank_timeout);
      own.push_back(MakeTcpLeaf(r, options_.ranks, LeafLink(pair[1])));
    }
    for (const auto& link : ranks) link->set_timeout(options_.rank_timeout);
    own[0] = MakeTcpHub(std::move(ranks));
    node.ranks_ = std::move(own);
    return OkStatus();
  }

  // One that has connected. Whoever is not of ours is sent away; an error is of one that is, and
  // ends the rendezvous.
  Status Admit(std::unique_ptr<TcpLink> link, TcpNode& node,
               std::vector<std::unique_ptr<TcpLink>>& ranks) {
    Frame frame;
    Hello hello;
    if (!link->Receive(frame).ok() || frame.kind != FrameKind::kHello ||
        frame.bytes.size() < sizeof(hello)) {
      SC_LOG_WARN("rendezvous: a connection that is not a node's");
      return OkStatus();
    }
    std::memcpy(&hello, frame.bytes.data(), sizeof(hello));
    const std::string terms(reinterpret_cast<const char*>(frame.bytes.data()) + sizeof(hello),
                            frame.bytes.size() - sizeof(hello));
    const Status fits = Check(hello, terms);
    if (!fits.ok()) {
      const Status told = link->SendError(FrameKind::kError, fits);
      if (!told.ok()) SC_LOG_DEBUG("rendezvous: {}", told.message());
      return fits;
    }
    auto& place = hello.rank < 0 ? node.lines_[static_cast<size_t>(hello.node - 1)]
                                 : ranks[static_cast<size_t>(hello.rank - 1)];
    if (place != nullptr) {
      const Status twice = InvalidArgument(fmt::format("node {} is there already", hello.node));
      return link->SendError(FrameKind::kError, twice);
    }
    SC_RETURN_IF_ERROR(link->Send(FrameKind::kData, Code::kOk, nullptr, 0));
    place = std::move(link);
    return OkStatus();
  }

  Status Check(const Hello& hello, const std::string& terms) const {
    const auto refuse = [&](const char* what, int64_t theirs, int64_t ours) {
      return InvalidArgument(fmt::format("node {} was started with {} {}, node 0 with {}",
                                         hello.node, what, theirs, ours));
    };
    if (hello.version != Hello().version) {
      return refuse("version", hello.version, Hello().version);
    }
    if (hello.nodes != options_.nodes) return refuse("nnodes", hello.nodes, options_.nodes);
    if (hello.ranks != options_.ranks) {
      return refuse("tensor_parallel_size", hello.ranks, options_.ranks);
    }
    const int32_t first = hello.node * per_node_;
    if (hello.node < 1 || hello.node >= options_.nodes ||
        (hello.rank >= 0 && (hello.rank < first || hello.rank >= first + per_node_))) {
      return InvalidArgument(fmt::format("there is no node {}", hello.node));
    }
    if (terms == options_.terms) return OkStatus();
    const auto [theirs, ours] = FirstDifference(terms, options_.terms);
    return InvalidArgument(fmt::format("node {} was started with \"{}\", node 0 with \"{}\"",
                                       hello.node, theirs, ours));
  }

  // Another node.
  Status Follow(TcpNode& node) {
    SC_ASSIGN_OR_RETURN(auto line, Call(-1));
    line->set_timeout(milliseconds(0));  // between two steps there may be hours
    node.lines_.push_back(std::move(line));
    for (int32_t i = 0; i < per_node_; ++i) {
      const int32_t rank = options_.node * per_node_ + i;
      SC_ASSIGN_OR_RETURN(auto link, Call(rank));
      link->set_timeout(LeafTimeout());
      node.ranks_.push_back(MakeTcpLeaf(rank, options_.ranks, std::move(link)));
    }
    return OkStatus();
  }
  // A link to node 0, for a rank or (-1) the line.
  Result<std::unique_ptr<TcpLink>> Call(int32_t rank) {
    SC_ASSIGN_OR_RETURN(Socket socket, Connect(options_.address, until_));
    auto link = std::make_unique<TcpLink>(socket.Take(), options_.join_timeout);
    Hello hello;
    hello.nodes = options_.nodes;
    hello.ranks = options_.ranks;
    hello.node = options_.node;
    hello.rank = rank;
    std::string bytes(reinterpret_cast<const char*>(&hello), sizeof(hello));
    bytes += options_.terms;
    SC_RETURN_IF_ERROR(link->Send(FrameKind::kHello, Code::kOk, bytes.data(), bytes.size()));
    Frame answer;
    const Status heard = link->Receive(answer);
    if (!heard.ok()) {
      return Unavailable(
          fmt::format("rendezvous \"{}\": node 0: {}", options_.address, heard.message()));
    }
    if (answer.kind == FrameKind::kError) return answer.status();
    return link;
  }

  // Rank 0 finds out first who is late, and tells the others.
  milliseconds LeafTimeout() const { return options_.rank_timeout * 3 / 2; }
  std::unique_ptr<TcpLink> LeafLink(int socket) const {
    return std::make_unique<TcpLink>(socket, LeafTimeout());
  }
  static int64_t FirstMissing(const TcpNode& node) {
    const auto place = std::find(node.lines_.begin(), node.lines_.end(), nullptr);
    return place == node.lines_.end() ? 1 : place - node.lines_.begin() + 1;
  }

  const TcpOptions& options_;
  const int32_t per_node_;
  const Clock::time_point until_;
};

Result<std::unique_ptr<TcpNode>> TcpNode::Join(const TcpOptions& options) {
  if (options.nodes < 1 || options.ranks % options.nodes != 0) {
    return InvalidArgument(fmt::format("tensor_parallel_size {}: not a multiple of nnodes {}",
                                       options.ranks, options.nodes));
  }
  if (options.node < 0 || options.node >= options.nodes) {
    return InvalidArgument(
        fmt::format("node_rank {}: nodes are 0 to {}", options.node, options.nodes - 1));
  }
  return Rendezvous(options).Join();
}

TcpNode::~TcpNode() = default;

Status TcpNode::Send(std::span<const std::byte> message) {
  for (size_t i = 0; i < lines_.size(); ++i) {
    const Status sent =
        lines_[i]->Send(FrameKind::kData, Code::kOk, message.data(), message.size());
    if (!sent.ok()) return Unavailable(fmt::format("node {}: {}", i + 1, sent.message()));
  }
  return OkStatus();
}

Result<std::vector<std::byte>> TcpNode::Receive() {
  Frame frame;
  const Status status = lines_[0]->Receive(frame);
  if (!status.ok()) return Unavailable("node 0 is gone: " + status.message());
  return std::move(frame.bytes);
}

Status TcpNode::Report(const Status& loaded) {
  return loaded.ok() ? lines_[0]->Send(FrameKind::kData, Code::kOk, nullptr, 0)
                     : lines_[0]->SendError(FrameKind::kError, loaded);
}

Status TcpNode::AwaitReports() {
  Frame frame;
  for (size_t i = 0; i < lines_.size(); ++i) {
    lines_[i]->set_timeout(milliseconds(0));  // loading takes as long as it takes
    Status status = lines_[i]->Receive(frame);
    if (status.ok() && frame.kind == FrameKind::kError) status = frame.status();
    if (!status.ok()) {
      return Status(status.code(), fmt::format("node {}: {}", i + 1, status.message()));
    }
    lines_[i]->set_timeout(kHelloTimeout);
  }
  return OkStatus();
}

}  // namespace seacliff
