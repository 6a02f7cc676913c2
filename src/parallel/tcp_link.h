// A connection that carries frames: a kind, an error code and bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace seacliff {

enum class FrameKind : uint32_t {
  kHello,  // who connects (tcp.cc)
  kData,
  kError,  // of one step: `code`, and the message as bytes
  kAbort,  // for good, likewise
};

struct Frame {
  FrameKind kind = FrameKind::kData;
  Code code = Code::kOk;
  std::vector<std::byte> bytes;

  // Of kError and kAbort.
  Status status() const {
    return {code, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
  }
};

class TcpLink {
 public:
  // Takes over a connected socket. No wait is longer than `timeout` (0: for ever), but that a host
  // which does not answer for some seconds counts as gone.
  TcpLink(int socket, std::chrono::milliseconds timeout);
  ~TcpLink();
  TcpLink(const TcpLink&) = delete;
  TcpLink& operator=(const TcpLink&) = delete;

  // Errors are kUnavailable: "the connection was closed", "nothing came within 100 ms".
  Status Send(FrameKind kind, Code code, const void* data, size_t bytes);
  Status SendError(FrameKind kind, const Status& error) {
    return Send(kind, error.code(), error.message().data(), error.message().size());
  }
  // Into `frame`, whose memory is used again.
  Status Receive(Frame& frame);
  void set_timeout(std::chrono::milliseconds timeout);

  // Without waiting and without taking what has come: whether the other side is there and has not
  // aborted.
  Status Look() const;
  // Says why, as far as that goes without waiting, and ends all waits of both sides. From any
  // thread.
  void Abort(const Status& why);

 private:
  Status SendAll(const void* data, size_t bytes);
  Status ReceiveAll(void* data, size_t bytes);

  const int socket_;
  std::chrono::milliseconds timeout_;
};

}  // namespace seacliff
