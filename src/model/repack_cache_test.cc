// The repack cache: what is written is what comes back, and what does not fit is found out, never
// used and never fatal.
#include "model/repack_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/packing.h"
#include "model/direct.h"

namespace seacliff {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void WriteAll(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class TempFolder : public testing::Test {
 protected:
  TempFolder() : dir_(testing::TempDir() + "/seacliff_repack_" + std::to_string(getpid())) {
    std::filesystem::create_directories(dir_);
    path_ = dir_ + "/cache";
  }
  ~TempFolder() override { std::filesystem::remove_all(dir_); }

  std::string dir_, path_;
};

// The file alone, with made-up data of three pieces.
class RepackFile : public TempFolder {
 protected:
  RepackFile() : data_(static_cast<size_t>(2 * kRepackPiece + 1088)) {
    for (size_t i = 0; i < data_.size(); ++i) data_[i] = static_cast<std::byte>(i * 31 + i / 251);
    key_ = {11, 12, static_cast<int64_t>(data_.size())};
  }

  void Write() {
    const auto writer = RepackWriter::Create(path_, key_.bytes);
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    const Status status = (*writer)->Write(key_, data_.data(), pool_, {});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Why the file does not fit; "" if it does.
  std::string Unfit() {
    const Result<FileMap> file = FileMap::Open(path_);
    EXPECT_TRUE(file.ok());
    const Status status = CheckRepackCache(*file, key_, pool_, {});
    EXPECT_TRUE(status.ok() || status.message().starts_with(path_)) << status.message();
    return status.message();
  }
  // The same for the file with a changed header whose own hash is right.
  std::string UnfitWith(const std::function<void(RepackHeader&)>& change) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    RepackHeader good;
    file.read(reinterpret_cast<char*>(&good), sizeof(good));
    RepackHeader bad = good;
    change(bad);
    bad.self = HashOf(&bad, offsetof(RepackHeader, self));
    file.seekp(0).write(reinterpret_cast<const char*>(&bad), sizeof(bad)).flush();
    std::string why = Unfit();
    file.seekp(0).write(reinterpret_cast<const char*>(&good), sizeof(good)).flush();
    return why;
  }

  std::vector<std::byte> data_;
  RepackKey key_;
  ThreadPool pool_{3};
};

TEST_F(RepackFile, GivesBackWhatWasWritten) {
  Write();
  EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
  int64_t last = -1;
  const auto file = OpenRepackCache(path_, key_, pool_, [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    EXPECT_EQ(total, key_.bytes);
    last = done;
  });
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_TRUE(file->has_value());
  EXPECT_EQ(last, key_.bytes);
  EXPECT_EQ(std::memcmp(RepackData(**file), data_.data(), data_.size()), 0);
}

TEST_F(RepackFile, AnyFlippedByteIsFound) {
  Write();
  const std::string good = ReadAll(path_);
  std::vector<size_t> places = {good.size() - 1, sizeof(RepackHeader),
                                sizeof(RepackHeader) + static_cast<size_t>(kRepackPiece)};
  for (size_t at = kRepackMagic.size(); at < sizeof(RepackHeader); at += at < 64 ? 1 : 509) {
    places.push_back(at);
  }
  for (const size_t at : places) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(good[at] ^ 4)).flush();
    EXPECT_THAT(Unfit(), HasSubstr("damaged")) << "byte " << at;
    file.seekp(static_cast<std::streamoff>(at)).put(good[at]);
  }
  EXPECT_EQ(Unfit(), "");
}

TEST_F(RepackFile, SaysWhichFieldDiffers) {
  Write();
  EXPECT_EQ(UnfitWith([](RepackHeader&) {}), "");
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { ++h.layout; }), HasSubstr("packed layout"));
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { ++h.matrices; }), HasSubstr("of another model"));
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { ++h.origin; }), HasSubstr("from other weights"));
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { ++h.bytes; }), HasSubstr("truncated or damaged"));
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { h.bytes = ~uint64_t{0}; }), HasSubstr("truncated"));
  EXPECT_THAT(UnfitWith([](RepackHeader& h) { ++h.checksum; }), HasSubstr("checksums differ"));
  key_.bytes += 64;
  EXPECT_THAT(Unfit(), HasSubstr("of another model"));
}

TEST_F(RepackFile, AnyOtherLengthIsFound) {
  Write();
  const std::string good = ReadAll(path_);
  for (const size_t size : {good.size() + 1, good.size() - 1, sizeof(RepackHeader) + 1,
                            sizeof(RepackHeader), sizeof(RepackHeader) - 1, size_t{8}}) {
    WriteAll(path_, (good + "x").substr(0, size));
    EXPECT_THAT(Unfit(), HasSubstr("truncated")) << size;
    const auto file = OpenRepackCache(path_, key_, pool_, {});
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_FALSE(file->has_value());
  }
}

TEST_F(RepackFile, LeavesAloneWhatIsNoCache) {
  for (const char* text : {"", "seapac", "a letter to a friend"}) {
    WriteAll(path_, text);
    const auto file = OpenRepackCache(path_, key_, pool_, {});
    EXPECT_THAT(file.status().message(), HasSubstr(path_ + ": is not a repack cache"));
    EXPECT_EQ(ReadAll(path_), text);
  }
  EXPECT_THAT(OpenRepackCache(dir_, key_, pool_, {}).status().message(),
              HasSubstr(dir_ + ": not a regular file"));
}

TEST_F(RepackFile, NamesAFileThatCannotBeWritten) {
  const std::string nowhere = dir_ + "/nowhere/cache";
  const auto file = OpenRepackCache(nowhere, key_, pool_, {});
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_FALSE(file->has_value());
  EXPECT_THAT(RepackWriter::Create(nowhere, 64).status().message(),
              HasSubstr(nowhere + ": cannot write the packed weights: No such file"));
  // More than any disk has; where room is not taken beforehand, writing would fail instead.
  EXPECT_THAT(RepackWriter::Create(path_, int64_t{1} << 60).status().message(),
              HasSubstr(path_ + ": cannot write the packed weights: "));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
}

TEST_F(RepackFile, OneProcessWritesAtATime) {
  auto first = RepackWriter::Create(path_, key_.bytes);
  ASSERT_TRUE(first.ok() && *first != nullptr);
  const auto second = RepackWriter::Create(path_, key_.bytes);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*second, nullptr);
  EXPECT_TRUE((*first)->Write(key_, data_.data(), pool_, {}).ok());
  EXPECT_EQ(Unfit(), "");
}

TEST_F(RepackFile, TakesOverWhatAKilledProcessLeft) {
  WriteAll(path_ + ".partial", std::string(static_cast<size_t>(key_.bytes) + 9999, 'x'));
  Write();
  EXPECT_EQ(Unfit(), "");
}

TEST_F(RepackFile, AWriterThatGivesUpLeavesNothing) {
  { const auto writer = RepackWriter::Create(path_, key_.bytes); }
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST(RepackKey, ChangesWithEachPartOfIt) {
  const Matrix a{WeightFormat::kFp8, 64, 96, nullptr, nullptr};
  const auto key = [](std::vector<Matrix> list, const std::string& origin) {
    std::vector<Matrix*> pointers;
    for (Matrix& m : list) pointers.push_back(&m);
    return RepackKeyOf(pointers, origin);
  };
  const RepackKey base = key({a, a}, "x");
  EXPECT_EQ(base.bytes, 2 * PackedBytes(a));
  EXPECT_EQ(base.matrices, key({a, a}, "y").matrices);
  EXPECT_NE(base.origin, key({a, a}, "y").origin);
  Matrix b = a;
  b.format = WeightFormat::kBf16;
  EXPECT_NE(base.matrices, key({a, b}, "x").matrices);
  EXPECT_NE(key({b, a}, "x").matrices, key({a, b}, "x").matrices);
  b = a;
  b.rows = 63;  // as many bytes
  EXPECT_NE(base.matrices, key({a, b}, "x").matrices);
  b = a;
  b.cols = 128;
  EXPECT_NE(base.matrices, key({a, b}, "x").matrices);
}

// Whole models.
class RepackedModel : public TempFolder {
 protected:
  RepackedModel() {
    options_.dir = SEACLIFF_SOURCE_DIR "/models/tiny";
    options_.max_tokens = 128;
    DirectRunner::SizeCache(1, 256, options_);
  }

  // The logits of a prompt's last token; phases_ gets what loading reported.
  std::vector<float> Logits() {
    phases_.clear();
    const auto model = Model::Load(options_, [&](std::string_view phase, int64_t, int64_t) {
      if (phases_.empty() || phases_.back() != phase) phases_.emplace_back(phase);
    });
    EXPECT_TRUE(model.ok()) << model.status().message();
    if (!model.ok()) return {};
    DirectRunner runner(**model, 1, 256);
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 100; ++i) ids.push_back(i * 7919 % 4000);
    const DirectRunner::Piece piece{0, ids};
    const int32_t last = 99;
    std::vector<float> logits;
    EXPECT_TRUE(runner.Step({&piece, 1}, {&last, 1}, logits).ok());
    return logits;
  }

  ModelOptions options_;
  std::vector<std::string> phases_;
};

TEST_F(RepackedModel, GivesIdenticalLogits) {
  const std::vector<float> packed = Logits();
  EXPECT_THAT(phases_, ElementsAre("loading", "packing"));
  options_.repack_cache = path_;
  EXPECT_EQ(Logits(), packed);
  EXPECT_THAT(phases_, ElementsAre("loading", "packing", "writing"));
  EXPECT_EQ(Logits(), packed);
  EXPECT_THAT(phases_, ElementsAre("loading", "verifying"));
}

TEST_F(RepackedModel, WritesADamagedFileAnew) {
  options_.repack_cache = path_;
  const std::vector<float> packed = Logits();
  const std::string good = ReadAll(path_);
  std::string bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  for (const std::string& bytes : {bad, good.substr(0, good.size() / 2), good.substr(0, 100)}) {
    WriteAll(path_, bytes);
    EXPECT_EQ(Logits(), packed);
    EXPECT_EQ(phases_.back(), "writing");
    EXPECT_EQ(ReadAll(path_), good);
  }
}

TEST_F(RepackedModel, WritesAnotherModelsFileAnew) {
  options_.repack_cache = path_;
  const std::vector<float> tiny = Logits();
  options_.load_format = "dummy";  // the same shapes
  options_.seed = 5;
  const std::vector<float> five = Logits();
  EXPECT_THAT(phases_, ElementsAre("making weights", "packing", "writing"));
  EXPECT_EQ(Logits(), five);
  EXPECT_THAT(phases_, ElementsAre("making weights", "verifying"));
  options_.seed = 6;
  EXPECT_NE(Logits(), five);
  EXPECT_EQ(phases_.back(), "writing");
  options_.load_format = "auto";
  EXPECT_EQ(Logits(), tiny);
  EXPECT_EQ(phases_.back(), "writing");
}

TEST_F(RepackedModel, AFlagThatCannotBeHonouredIsAnError) {
  const auto message = [&] { return Model::Load(options_, {}).status().message(); };
  options_.repack_cache = dir_ + "/nowhere/cache";
  EXPECT_THAT(message(), HasSubstr(options_.repack_cache + ": cannot write"));
  options_.repack_cache = options_.dir + "/config.json";
  EXPECT_THAT(message(), HasSubstr("config.json: is not a repack cache"));
  options_.repack_cache = path_;
  options_.numerics = Numerics::kExact;
  EXPECT_THAT(message(), HasSubstr(path_ + ": exact numerics pack no weights"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace seacliff
