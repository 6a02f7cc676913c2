// Two merging loops with the same result: a plain one for short pieces, and one that takes all
// occurrences of a rank in a single sweep for long ones (a piece can be a megabyte of spaces).
#include "text/bpe.h"

#include <algorithm>
#include <cstring>
#include <queue>
#include <unordered_map>

#include "base/check.h"

namespace seacliff {
namespace {

uint64_t Mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15u;
  return x ^ x >> 32;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

uint32_t HashBytes(std::string_view bytes) {
  uint64_t hash = bytes.size();
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    hash = Mix(hash ^ word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
  return static_cast<uint32_t>(Mix(Mix(hash ^ rest)));
}

size_t TableSize(size_t entries) {
  size_t size = 16;
  while (size < entries * 2) size *= 2;
  return size;
}

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const Merge> merges)
    : byte_ids_(byte_ids),
      pairs_(TableSize(merges.size())),
      words_(TableSize(0)),
      ranks_(static_cast<int32_t>(merges.size())) {
  const size_t mask = pairs_.size() - 1;
  for (int32_t rank = 0; rank < ranks_; ++rank) {
    const uint64_t key = PairKey(merges[rank].left, merges[rank].right);
    size_t slot = Mix(key) & mask;
    while (pairs_[slot].pair != kNoPair) {
      SC_CHECK(pairs_[slot].pair != key);
      slot = (slot + 1) & mask;
    }
    pairs_[slot] = {key, rank, merges[rank].result};
  }
  FindSeams(merges);
  std::unordered_map<int32_t, int32_t> last_made;  // token -> the highest rank that makes it
  for (int32_t rank = 0; rank < ranks_; ++rank) last_made[merges[rank].result] = rank;
  ordered_ = true;
  for (int32_t rank = 0; rank < ranks_; ++rank) {
    for (const int32_t part : {merges[rank].left, merges[rank].right}) {
      const auto made = last_made.find(part);
      if (made != last_made.end() && made->second > rank) ordered_ = false;
    }
  }
}

// A token joins what its parts join, and the last byte of the left to the first of the right one.
// Its own ends are known once its parts' are, whatever the order of the merges.
void Bpe::FindSeams(std::span<const Merge> merges) {
  struct Ends {
    uint8_t first, last;
  };
  std::unordered_map<int32_t, Ends> ends;
  for (int byte = 0; byte < 256; ++byte) {
    const auto end = static_cast<uint8_t>(byte);
    ends[byte_ids_[byte]] = {end, end};
  }
  size_t known = 0;
  while (known != ends.size()) {
    known = ends.size();
    for (const Merge& merge : merges) {
      const auto left = ends.find(merge.left), right = ends.find(merge.right);
      if (left == ends.end() || right == ends.end()) continue;
      joined_.set(size_t{left->second.last} << 8 | right->second.first);
      ends.try_emplace(merge.result, Ends{left->second.first, right->second.last});
    }
  }
}

void Bpe::AddWords(std::span<const Word> words, bool all) {
  std::vector<WordSlot> table(TableSize(words.size()));
  const size_t mask = table.size() - 1;
  size_t longest = 0;
  std::vector<int32_t> merged;
  Scratch scratch;
  for (const Word& word : words) {
    if (!all) {
      merged.clear();
      Encode(word.bytes, &scratch, &merged);
      if (merged.size() != 1 || merged[0] != word.id) continue;
    }
    const uint32_t hash = HashBytes(word.bytes);
    size_t slot = hash & mask;
    while (!table[slot].bytes.empty()) slot = (slot + 1) & mask;
    table[slot] = {word.bytes, word.id, hash};
    longest = std::max(longest, word.bytes.size());
  }
  // Only now: the checks above must not see words.
  words_ = std::move(table);
  longest_word_ = longest;
  words_are_merges_ = !all;
}

const Bpe::PairSlot* Bpe::FindPair(int32_t left, int32_t right) const {
  const uint64_t key = PairKey(left, right);
  const size_t mask = pairs_.size() - 1;
  for (size_t slot = Mix(key) & mask;; slot = (slot + 1) & mask) {
    if (pairs_[slot].pair == key) return &pairs_[slot];
    if (pairs_[slot].pair == kNoPair) return nullptr;
  }
}

const Bpe::WordSlot* Bpe::FindWord(std::string_view bytes) const {
  if (bytes.size() > longest_word_) return nullptr;
  const uint32_t hash = HashBytes(bytes);
  const size_t mask = words_.size() - 1;
  for (size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    if (words_[slot].bytes.empty()) return nullptr;
    if (words_[slot].hash == hash && words_[slot].bytes == bytes) return &words_[slot];
  }
}

void Bpe::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.empty()) return;
  if (!words_are_merges_) {
    if (const WordSlot* word = FindWord(piece)) {
      ids->push_back(word->id);
      return;
    }
  }
  // What lies between two seams is merged by itself: near at hand, and often a word.
  size_t begin = 0;
  for (size_t at = 1; piece.size() > kShortPiece && at < piece.size(); ++at) {
    if (!IsSeam(piece[at - 1], piece[at])) continue;
    EncodeStretch(piece.substr(begin, at - begin), scratch, ids);
    begin = at;
  }
  EncodeStretch(piece.substr(begin), scratch, ids);
}

void Bpe::EncodeStretch(std::string_view stretch, Scratch* scratch,
                        std::vector<int32_t>* ids) const {
  const WordSlot* word = nullptr;
  if (stretch.size() == 1) {
    ids->push_back(byte_ids_[static_cast<uint8_t>(stretch[0])]);
  } else if (words_are_merges_ && (word = FindWord(stretch)) != nullptr) {
    ids->push_back(word->id);
  } else if (stretch.size() <= kShortPiece) {
    MergeShort(stretch, ids);
  } else {
    MergeLong(stretch, scratch, ids);
  }
}

void Bpe::MergeShort(std::string_view piece, std::vector<int32_t>* ids) const {
  int32_t symbols[kShortPiece];
  const PairSlot* merge[kShortPiece];  // of symbols i and i + 1, or null
  int count = static_cast<int>(piece.size());
  for (int i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (int i = 0; i + 1 < count; ++i) merge[i] = FindPair(symbols[i], symbols[i + 1]);
  while (true) {
    int best = -1;
    int32_t best_rank = kNoRank;
    for (int i = 0; i + 1 < count; ++i) {
      if (merge[i] != nullptr && merge[i]->rank < best_rank) {
        best = i;
        best_rank = merge[i]->rank;
      }
    }
    if (best < 0) break;
    symbols[best] = merge[best]->result;
    --count;
    for (int i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      merge[i - 1] = merge[i];
    }
    if (best > 0) merge[best - 1] = FindPair(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merge[best] = FindPair(symbols[best], symbols[best + 1]);
  }
  ids->insert(ids->end(), symbols, symbols + count);
}

// A linked list of symbols, and for each rank the places where it can be merged. Ranks are taken in
// ascending order; a rank that a merge brings up again, even a lower one, is queued anew.
class Bpe::LongPiece {
 public:
  LongPiece(const Bpe& bpe, std::string_view piece, Scratch* scratch) : bpe_(bpe), s_(*scratch) {
    SC_CHECK(piece.size() < INT32_MAX);
    const auto count = static_cast<int32_t>(piece.size());
    s_.places_of.resize(bpe.ranks_, kEnd);
    s_.places.clear();
    s_.places.reserve(2 * piece.size());
    s_.symbols.clear();
    s_.symbols.reserve(piece.size());
    for (int32_t i = 0; i < count; ++i) {
      s_.symbols.push_back({bpe.byte_ids_[static_cast<uint8_t>(piece[i])], kNoRank, 0, i - 1,
                            i + 1 < count ? i + 1 : kEnd});
    }
    for (int32_t i = 0; i + 1 < count; ++i) Queue(i);
  }

  void Run() {
    while (!ranks_.empty()) {
      const int32_t rank = ranks_.top();
      ranks_.pop();
      TakePlaces(rank);
      for (size_t i = 0; i < s_.sweep.size(); ++i) {
        if (!ranks_.empty() && ranks_.top() < rank) {
          for (; i < s_.sweep.size(); ++i) Queue(s_.sweep[i]);
          break;
        }
        if (s_.symbols[s_.sweep[i]].rank == rank) Merge(s_.sweep[i], rank);
      }
    }
  }

  void Append(std::vector<int32_t>* ids) const {
    for (int32_t at = 0; at != kEnd; at = s_.symbols[at].next) ids->push_back(s_.symbols[at].id);
  }

 private:
  static constexpr int32_t kEnd = -1;

  // Moves the places queued for `rank` to the sweep, from left to right.
  void TakePlaces(int32_t rank) {
    s_.sweep.clear();
    const int32_t last = s_.places_of[rank];
    int32_t at = last;
    do {
      at = s_.places[at].next;
      s_.sweep.push_back(s_.places[at].symbol);
    } while (at != last);
    s_.places_of[rank] = kEnd;
    if (!std::is_sorted(s_.sweep.begin(), s_.sweep.end())) {
      std::sort(s_.sweep.begin(), s_.sweep.end());
    }
  }

  // Looks up the merge of a symbol with its next one and puts it in the queue of its rank, a ring
  // of places of which the last is known.
  void Queue(int32_t at) {
    Scratch::Symbol& symbol = s_.symbols[at];
    symbol.rank = kNoRank;
    if (symbol.id == kEnd || symbol.next == kEnd) return;
    const PairSlot* pair = bpe_.FindPair(symbol.id, s_.symbols[symbol.next].id);
    if (pair == nullptr) return;
    symbol.rank = pair->rank;
    symbol.result = pair->result;
    const auto place = static_cast<int32_t>(s_.places.size());
    int32_t& last = s_.places_of[pair->rank];
    if (last == kEnd) {
      ranks_.push(pair->rank);
      s_.places.push_back({at, place});
    } else {
      s_.places.push_back({at, s_.places[last].next});
      s_.places[last].next = place;
    }
    last = place;
  }

  void Merge(int32_t at, int32_t rank) {
    Scratch::Symbol& left = s_.symbols[at];
    Scratch::Symbol& right = s_.symbols[left.next];
    left.id = left.result;
    right.id = kEnd;
    right.rank = kNoRank;
    left.next = right.next;
    if (left.next != kEnd) s_.symbols[left.next].previous = at;
    if (left.previous != kEnd) Queue(left.previous);
    // A next symbol that this sweep merges too will queue the two together.
    const bool next_is_merged =
        bpe_.ordered_ && left.next != kEnd && s_.symbols[left.next].rank == rank;
    left.rank = kNoRank;
    if (!next_is_merged) Queue(at);
  }

  const Bpe& bpe_;
  Scratch& s_;
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> ranks_;
};

void Bpe::MergeLong(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  LongPiece work(*this, piece, scratch);
  work.Run();
  work.Append(ids);
}

}  // namespace seacliff
