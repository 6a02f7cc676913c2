// The ids of turns that this server has sampled, so that a turn that comes back in a conversation
// can be a prompt of the same ids: the tokens that are in the prefix cache, where encoding its text
// again might give others.
//
// A turn is known by its text, its tool calls and all tokens before it, so a turn is replaced only
// where it was sampled. It knows no tokenizer, only hashes; who takes ids out of it compares their
// text and calls with what is to be replaced (splice.h).
//
// Thread safety: every method may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace seacliff::serve {

// The hash of a turn's text, for those who share the `scope` alone.
uint64_t TurnHash(uint64_t scope, std::string_view text);

class SampledTurns {
 public:
  struct Key {
    uint64_t before = 0, text = 0;  // hashes
    bool operator==(const Key&) const = default;
  };
  enum class Miss {
    kUnknown,   // neither this text nor a turn after these tokens
    kEdited,    // after these tokens a turn of another text was sampled
    kTemplate,  // a turn of this text was sampled after other tokens
  };
  struct Found {
    std::optional<std::vector<int32_t>> ids;
    std::string calls;
    Miss miss = Miss::kUnknown;  // without ids
  };

  // Keeps at most so many bytes; the turns that were used least recently go first.
  explicit SampledTurns(size_t bytes) : most_(bytes) {}

  // `calls`: what the key stands for beside the text of the ids (CallsKey), if anything.
  void Add(const Key& key, std::span<const int32_t> ids, std::string_view calls = "");
  Found Find(const Key& key);

  size_t bytes() const;
  size_t size() const;

 private:
  struct Turn {
    Key key;
    std::vector<int32_t> ids;
    std::string calls;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const { return key.before ^ (key.text * 0x9E3779B97F4A7C15); }
  };
  using Order = std::list<Turn>;

  static size_t Cost(const Turn& turn);
  void Remove(Order::iterator turn);

  const size_t most_;
  mutable std::mutex mutex_;
  size_t bytes_ = 0;
  Order order_;  // the one used last at the end
  std::unordered_map<Key, Order::iterator, KeyHash> turns_;
  std::unordered_map<uint64_t, int32_t> befores_, texts_;  // how many turns have each hash
};

}  // namespace seacliff::serve
