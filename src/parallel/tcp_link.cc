// Frames over a socket.
#include "parallel/tcp_link.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace seacliff {
namespace {

constexpr uint32_t kMagic = 0x46464c53;             // "SLFF"
constexpr uint64_t kMostBytes = uint64_t{1} << 40;  // more is no frame

struct Header {
  uint32_t magic = kMagic;
  FrameKind kind = FrameKind::kData;
  int32_t code = 0;
  int32_t reserved = 0;
  uint64_t bytes = 0;
};

void Set(int socket, int level, int option, int value) {
  setsockopt(socket, level, option, &value, sizeof(value));
}

Status Closed() { return Unavailable("the connection was closed"); }

}  // namespace

TcpLink::TcpLink(int socket, std::chrono::milliseconds timeout) : socket_(socket) {
  // Without effect on sockets within a host.
  Set(socket_, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(socket_, SOL_SOCKET, SO_KEEPALIVE, 1);
  Set(socket_, IPPROTO_TCP, TCP_KEEPIDLE, 2);
  Set(socket_, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  Set(socket_, IPPROTO_TCP, TCP_KEEPCNT, 4);
  Set(socket_, IPPROTO_TCP, TCP_USER_TIMEOUT, 6000);
  set_timeout(timeout);
}

TcpLink::~TcpLink() { close(socket_); }

void TcpLink::set_timeout(std::chrono::milliseconds timeout) {
  timeout_ = timeout;
  const timeval t = {timeout.count() / 1000, timeout.count() % 1000 * 1000};
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
  setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

Status TcpLink::Send(FrameKind kind, Code code, const void* data, size_t bytes) {
  Header header;
  header.kind = kind;
  header.code = static_cast<int32_t>(code);
  header.bytes = bytes;
  SC_RETURN_IF_ERROR(SendAll(&header, sizeof(header)));
  return SendAll(data, bytes);
}

Status TcpLink::Receive(Frame& frame) {
  Header header;
  SC_RETURN_IF_ERROR(ReceiveAll(&header, sizeof(header)));
  if (header.magic != kMagic || header.bytes > kMostBytes) {
    return Unavailable("what came is not from another rank");
  }
  frame.kind = header.kind;
  frame.code = static_cast<Code>(header.code);
  frame.bytes.resize(header.bytes);
  return ReceiveAll(frame.bytes.data(), header.bytes);
}

Status TcpLink::SendAll(const void* data, size_t bytes) {
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(socket_, next, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return Unavailable(fmt::format("nothing was taken within {} ms", timeout_.count()));
    }
    if (sent <= 0) return Closed();
    next += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return OkStatus();
}

Status TcpLink::ReceiveAll(void* data, size_t bytes) {
  auto* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(socket_, next, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return Unavailable(fmt::format("nothing came within {} ms", timeout_.count()));
    }
    if (got < 0 && errno == ETIMEDOUT) return Unavailable("its host does not answer");
    if (got <= 0) return Closed();
    next += got;
    bytes -= static_cast<size_t>(got);
  }
  return OkStatus();
}

Status TcpLink::Look() const {
  std::array<char, sizeof(Header) + 1024> seen;
  const ssize_t got = recv(socket_, seen.data(), seen.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return OkStatus();
  if (got < 0 && errno == ETIMEDOUT) return Unavailable("its host does not answer");
  if (got <= 0) return Closed();
  Header header;
  if (got < static_cast<ssize_t>(sizeof(header))) return OkStatus();
  std::memcpy(&header, seen.data(), sizeof(header));
  if (header.magic != kMagic || header.kind != FrameKind::kAbort) return OkStatus();
  const auto there = static_cast<size_t>(got) - sizeof(header);
  return Unavailable(std::string(seen.data() + sizeof(header), there));
}

void TcpLink::Abort(const Status& why) {
  const std::string& message = why.message();
  std::vector<char> frame(sizeof(Header) + message.size());
  Header header;
  header.kind = FrameKind::kAbort;
  header.code = static_cast<int32_t>(Code::kUnavailable);
  header.bytes = message.size();
  std::memcpy(frame.data(), &header, sizeof(header));
  std::memcpy(frame.data() + sizeof(header), message.data(), message.size());
  send(socket_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(socket_, SHUT_RDWR);
}

}  // namespace seacliff
