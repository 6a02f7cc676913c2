// Both merging loops against the definition: lowest rank first, leftmost among equals.
#include "text/bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <string>

namespace seacliff {
namespace {

struct Model {
  std::array<int32_t, 256> byte_ids{};
  std::vector<Bpe::Merge> merges;
  std::vector<std::string> bytes;  // by id
};

// kOrdered: each merge makes a new token out of already made ones. kRepeated: two merges may make
// the same token. kShuffled: a merge may use tokens that a merge of higher rank makes.
enum class Order { kOrdered, kRepeated, kShuffled };

Model RandomModel(std::mt19937* random, Order order) {
  Model model;
  for (int byte = 0; byte < 256; ++byte) {
    model.byte_ids[byte] = byte;
    model.bytes.emplace_back(1, static_cast<char>(byte));
  }
  std::vector<int32_t> pool = {'a', 'b', 'c'};
  std::map<std::string, int32_t> id_of = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}};
  std::map<std::pair<int32_t, int32_t>, bool> seen;
  const auto most = static_cast<int>(1 + (*random)() % 40);  // few merges leave seams
  for (int i = 0; i < most; ++i) {
    const int32_t left = pool[(*random)() % pool.size()], right = pool[(*random)() % pool.size()];
    if (seen[{left, right}]) continue;
    seen[{left, right}] = true;
    const std::string bytes = model.bytes[left] + model.bytes[right];
    if (bytes.size() > 12 || (order == Order::kOrdered && id_of.contains(bytes))) continue;
    if (!id_of.contains(bytes)) {
      id_of[bytes] = static_cast<int32_t>(model.bytes.size());
      pool.push_back(id_of[bytes]);
      model.bytes.push_back(bytes);
    }
    model.merges.push_back({left, right, id_of[bytes]});
  }
  if (order == Order::kShuffled) std::shuffle(model.merges.begin(), model.merges.end(), *random);
  return model;
}

std::vector<int32_t> ByDefinition(const Model& model, const std::string& piece) {
  std::vector<int32_t> ids;
  for (const char byte : piece) ids.push_back(model.byte_ids[static_cast<uint8_t>(byte)]);
  while (true) {
    size_t best_rank = model.merges.size(), best = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (model.merges[rank].left == ids[i] && model.merges[rank].right == ids[i + 1]) {
          best_rank = rank;
          best = i;
        }
      }
    }
    if (best_rank == model.merges.size()) return ids;
    ids[best] = model.merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<int64_t>(best) + 1);
  }
}

std::string RandomPiece(std::mt19937* random, size_t size) {
  std::string piece;
  for (size_t i = 0; i < size; ++i) piece += "abcabcabcd"[(*random)() % 10];
  return piece;
}

TEST(Bpe, AgreesWithTheDefinition) {
  std::mt19937 random(1);
  Bpe::Scratch scratch;
  for (int round = 0; round < 300; ++round) {
    const Model model = RandomModel(&random, static_cast<Order>(round % 3));
    const Bpe bpe(model.byte_ids, model.merges);
    scratch = {};
    for (const size_t size : {1, 2, 7, 30, 48, 49, 60, 150}) {
      const std::string piece = RandomPiece(&random, size);
      std::vector<int32_t> ids;
      bpe.Encode(piece, &scratch, &ids);
      ASSERT_EQ(ids, ByDefinition(model, piece)) << round << ' ' << piece;
    }
  }
}

// A long piece is cut where no token joins two bytes; with `all` the whole piece is still a word.
TEST(Bpe, SeamsDoNotCutWords) {
  Model model;
  for (int byte = 0; byte < 256; ++byte) model.byte_ids[byte] = byte;
  model.merges = {{'a', 'b', 256}, {256, 256, 257}};
  Bpe bpe(model.byte_ids, model.merges);
  Bpe::Scratch scratch;
  std::string long_word;
  for (int i = 0; i < 20; ++i) long_word += "abc";
  const std::vector<Bpe::Word> words = {{"ab", 256}, {"c", 'c'}, {"abc", 258}, {long_word, 259}};
  bpe.AddWords(words, /*all=*/false);
  std::vector<int32_t> ids, expected;
  bpe.Encode(long_word, &scratch, &ids);
  for (int i = 0; i < 20; ++i) expected.insert(expected.end(), {256, 'c'});
  EXPECT_EQ(ids, expected);
  bpe.AddWords(words, /*all=*/true);
  ids.clear();
  bpe.Encode(long_word, &scratch, &ids);
  EXPECT_EQ(ids, std::vector<int32_t>{259});
  ids.clear();
  expected.push_back('x');
  bpe.Encode(long_word + "x", &scratch, &ids);
  EXPECT_EQ(ids, expected);
}

TEST(Bpe, WordsThatMergingWouldNotGiveAreLeftOut) {
  Model model;
  for (int byte = 0; byte < 256; ++byte) model.byte_ids[byte] = byte;
  model.merges = {{'b', 'c', 256}, {'a', 'b', 257}};
  const std::vector<Bpe::Word> words = {{"bc", 256}, {"ab", 257}, {"abc", 258}};
  Bpe bpe(model.byte_ids, model.merges);
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe.AddWords(words, /*all=*/false);
  bpe.Encode("abc", &scratch, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{'a', 256}));
  ids.clear();
  bpe.AddWords(words, /*all=*/true);
  bpe.Encode("abc", &scratch, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{258}));
}

// Quadratic time would take minutes.
TEST(Bpe, MegabytePieceTakesAboutLinearTime) {
  Model model;
  for (int byte = 0; byte < 256; ++byte) model.byte_ids[byte] = byte;
  int32_t token = 'a';
  for (int32_t id = 256; id < 263; ++id) {
    model.merges.push_back({token, token, id});
    token = id;
  }
  const Bpe bpe(model.byte_ids, model.merges);
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  const auto start = std::chrono::steady_clock::now();
  bpe.Encode(std::string(1 << 20, 'a'), &scratch, &ids);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ids, std::vector<int32_t>((1 << 20) / 128, 262));
  EXPECT_LT(took.count(), 5.0);
}

}  // namespace
}  // namespace seacliff
