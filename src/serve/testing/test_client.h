// A blocking HTTP client over a raw socket, for tests that must see and send exact bytes.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace seacliff::serve::testing {

struct ClientReply {
  int status = 0;
  std::string head;      // status line and headers
  std::string body;      // without chunk framing
  bool cut_off = false;  // the connection closed before the body's end

  std::string Header(std::string_view name) const {
    std::string lower;
    for (const char c : head) lower.push_back(static_cast<char>(std::tolower(c)));
    const size_t at = lower.find(fmt::format("\r\n{}: ", name));
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
  nlohmann::json Json() const { return nlohmann::json::parse(body); }
  std::string ErrorField(const char* key) const {
    const auto value = Json()["error"][key];
    return value.is_null() ? "" : value.get<std::string>();
  }
  // The data of server-sent events; comments are left out.
  std::vector<std::string> Events() const {
    std::vector<std::string> out;
    size_t begin = 0;
    while (begin < body.size()) {
      size_t end = body.find("\n\n", begin);
      if (end == std::string::npos) end = body.size();
      const std::string frame = body.substr(begin, end - begin);
      if (frame.starts_with("data: ")) out.push_back(frame.substr(6));
      begin = end + 2;
    }
    return out;
  }
};

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) {
      ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    const timeval limit{10, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      throw std::runtime_error("connect");
    }
  }
  ~Client() { Close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void ShutdownSend() { ::shutdown(socket_, SHUT_WR); }

  // False if the other side has closed.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  static std::string Text(std::string_view method, std::string_view path, std::string_view body,
                          std::string_view more_headers = "") {
    return fmt::format("{} {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{}\r\n{}", method,
                       path, body.size(), more_headers, body);
  }

  ClientReply Get(std::string_view path, std::string_view more_headers = "") {
    Send(Text("GET", path, "", more_headers));
    return Read();
  }
  ClientReply Post(std::string_view path, std::string_view body,
                   std::string_view more_headers = "") {
    Send(Text("POST", path, body, more_headers));
    return Read();
  }

  // One whole reply. `has_body` is false for the answer to a HEAD.
  ClientReply Read(bool has_body = true) {
    ClientReply reply;
    reply.head = ReadHead();
    if (reply.head.size() < 12) {
      reply.cut_off = true;
      return reply;
    }
    reply.status = std::stoi(reply.head.substr(9, 3));
    if (!has_body || reply.status == 100) return reply;
    if (reply.Header("transfer-encoding") == "chunked") {
      ReadChunks(&reply);
    } else if (!reply.Header("content-length").empty()) {
      const size_t length = std::stoul(reply.Header("content-length"));
      while (in_.size() < length && More()) {
      }
      reply.cut_off = in_.size() < length;
      reply.body = in_.substr(0, length);
      in_.erase(0, length);
    } else {
      while (More()) {
      }
      reply.body = std::exchange(in_, "");
    }
    return reply;
  }

  // Headers alone, up to and with the last line's end; "" if the connection closed.
  std::string ReadHead() {
    size_t end;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
      if (!More()) return "";
    }
    std::string head = in_.substr(0, end + 2);
    in_.erase(0, end + 4);
    return head;
  }
  // Reads until `text` has come (as raw bytes); false if the connection closed first.
  bool WaitFor(std::string_view text) {
    while (in_.find(text) == std::string::npos) {
      if (!More()) return false;
    }
    return true;
  }
  // True if the other side closes without saying more.
  bool Closed() { return !More() && in_.empty(); }

 private:
  bool More() {
    char bytes[16384];
    ssize_t count;
    do {
      count = ::recv(socket_, bytes, sizeof(bytes), 0);
    } while (count < 0 && errno == EINTR);  // one with a timeout is not started again by itself
    if (count <= 0) return false;
    in_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  void ReadChunks(ClientReply* reply) {
    for (;;) {
      size_t end;
      while ((end = in_.find("\r\n")) == std::string::npos) {
        if (!More()) {
          reply->cut_off = true;
          return;
        }
      }
      const size_t length = std::stoul(in_.substr(0, end), nullptr, 16);
      while (in_.size() < end + 2 + length + 2) {
        if (!More()) {
          reply->cut_off = true;
          return;
        }
      }
      reply->body += in_.substr(end + 2, length);
      in_.erase(0, end + 2 + length + 2);
      if (length == 0) return;
    }
  }

  int socket_ = -1;
  std::string in_;
};

}  // namespace seacliff::serve::testing
