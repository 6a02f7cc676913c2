// Byte-pair encoding of one piece: the byte tokens, merged by rank, lowest rank first and leftmost
// among equals. It knows bytes and ids only, no files and no Unicode.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace seacliff {

class Bpe {
 public:
  struct Merge {
    int32_t left = 0, right = 0;  // ids
    int32_t result = 0;
  };
  struct Word {
    std::string_view bytes;  // must outlive the Bpe
    int32_t id = 0;
  };

  // Memory that the calls of one thread share; empty until a long piece comes.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t rank;    // of the merge with the next symbol; kNoRank if there is none
      int32_t result;  // of that merge
      int32_t previous, next;
    };
    struct Place {
      int32_t symbol, next;
    };
    std::vector<Symbol> symbols;
    std::vector<Place> places;
    std::vector<int32_t> places_of;  // rank -> its last place; all empty between calls
    std::vector<int32_t> sweep;
  };

  Bpe() = default;
  // `byte_ids`: the id of each single byte. `merges` by rank; no pair stands there twice.
  Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const Merge> merges);

  // Pieces that are a word give its id at once, without merging. Without `all`, only those words
  // are taken that merging would give too.
  void AddWords(std::span<const Word> words, bool all);

  // Appends the ids of `piece`. Time is about linear in its length.
  void Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct PairSlot {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t result = 0;
  };
  struct WordSlot {
    std::string_view bytes;
    int32_t id = 0;
    uint32_t hash = 0;
  };
  class LongPiece;

  static constexpr uint64_t kNoPair = ~uint64_t{0};
  static constexpr int32_t kNoRank = INT32_MAX;
  static constexpr size_t kShortPiece = 48;  // bytes up to which quadratic time is the fastest

  const PairSlot* FindPair(int32_t left, int32_t right) const;
  const WordSlot* FindWord(std::string_view bytes) const;
  void FindSeams(std::span<const Merge> merges);
  // Whether no merge can join the two bytes: the text before and after has nothing in common.
  bool IsSeam(char left, char right) const {
    return !joined_[static_cast<uint8_t>(left) << 8 | static_cast<uint8_t>(right)];
  }
  void EncodeStretch(std::string_view stretch, Scratch* scratch, std::vector<int32_t>* ids) const;
  void MergeShort(std::string_view piece, std::vector<int32_t>* ids) const;
  void MergeLong(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<PairSlot> pairs_;  // open addressing, a power of two
  std::vector<WordSlot> words_;  // likewise; an empty slot has no bytes
  size_t longest_word_ = 0;
  bool words_are_merges_ = true;   // merging would give each of words_
  std::bitset<256 * 256> joined_;  // pairs of bytes that stand beside each other in some token
  int32_t ranks_ = 0;
  // No merge makes a token that a merge of lower rank uses, so ranks never go down in a piece.
  bool ordered_ = true;
};

}  // namespace seacliff
