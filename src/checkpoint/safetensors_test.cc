// The container: files that must be refused, each with its message, and what the writer writes.
#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace seacliff {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string FileOf(const std::string& header, size_t data_bytes, int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string file(8, '\0');
  std::memcpy(file.data(), &n, 8);
  return file + header + std::string(data_bytes, '\1');
}

Result<std::vector<NamedTensor>> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file)), "x.safetensors");
}

struct Malformed {
  const char* what;
  std::string file, message;
};

TEST(Safetensors, NamesWhatIsWrong) {
  const Malformed cases[] = {
      {"empty", "", "not a safetensors file: it has 0 bytes in all"},
      {"no whole length", "1234567", "not a safetensors file: it has 7 bytes in all"},
      {"header too long", FileOf("{}", 0, 100'000'001), "a header of 100000001 bytes is over"},
      {"length not a length", FileOf("{}", 0, INT64_MAX), "not a safetensors file: a header of"},
      {"truncated header", FileOf("{}", 0, 50), "truncated: a header of 50 bytes in a file of 10"},
      {"no header", FileOf("", 0), "header: does not begin with {"},
      {"not JSON", FileOf("{nonsense", 0), "header: not valid JSON"},
      {"not UTF-8", FileOf("{\"\xff\":1}", 0), "header: not valid JSON"},
      {"not an object", FileOf("[]", 0), "header: does not begin with {"},
      {"two documents", FileOf("{}{}", 0), "header: not valid JSON"},
      {"number too big",
       FileOf(R"({"a":{"dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,1]}})", 1),
       "header: not valid JSON"},
      {"tensor is a number", FileOf(R"({"a":1})", 0), "a: must be an object"},
      {"no dtype", FileOf(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), "a: dtype: missing"},
      {"dtype is a number", FileOf(R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1),
       "a: dtype: must be a string"},
      {"unknown dtype", FileOf(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", 1),
       "a: dtype: F4 is unknown"},
      {"no shape", FileOf(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), "a: shape: missing"},
      {"shape is a number", FileOf(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1),
       "a: shape: must be a list"},
      {"negative shape", FileOf(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1),
       "a: shape: must be integers from 0 to 2^63 - 1, not -1"},
      {"fractional shape", FileOf(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1),
       "a: shape: must be integers from 0 to 2^63 - 1, not 1.5"},
      {"overflowing shape",
       FileOf(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,1]}})", 1),
       "a: shape: [4294967296, 4294967296, 2] does not fit in 64 bits"},
      {"overflowing bytes",
       FileOf(R"({"a":{"dtype":"I64","shape":[9223372036854775807],"data_offsets":[0,1]}})", 1),
       "a: shape: [9223372036854775807] does not fit in 64 bits"},
      {"no offsets", FileOf(R"({"a":{"dtype":"U8","shape":[1]}})", 1), "a: data_offsets: missing"},
      {"three offsets", FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1),
       "a: data_offsets: must be two numbers"},
      {"negative offset", FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1),
       "a: data_offsets: must be integers from 0 to 2^63 - 1, not -1"},
      {"offsets reversed", FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1),
       "a: data_offsets: [1, 0] is not a range within the 1 bytes of data"},
      {"truncated data", FileOf(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 8),
       "a: data_offsets: [0, 9] is not a range within the 8 bytes of data"},
      {"size differs", FileOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
       "a: F32 [2] takes 8 bytes, but data_offsets span 4"},
      {"field twice",
       FileOf(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
       "a: field dtype is unknown or there twice"},
      {"name twice",
       FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
              R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
              2),
       "a: is there twice"},
      {"overlap",
       FileOf(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
              3),
       "b: its data overlap those of a"},
      {"gap",
       FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
              R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
              4),
       "b: 2 bytes before its data belong to no tensor"},
      {"gap at the end", FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4),
       "the last 3 bytes of data belong to no tensor"},
      {"metadata", FileOf(R"({"__metadata__":{"a":1}})", 0),
       "__metadata__: must be an object of strings"},
      {"line break in a name", FileOf("{\"a\\nb\":1}", 0), "a?b: must be an object"},
  };
  for (const Malformed& c : cases) {
    const auto tensors = Parse(c.file);
    ASSERT_FALSE(tensors.ok()) << c.what;
    EXPECT_EQ(tensors.status().code(), Code::kInvalidArgument) << c.what;
    EXPECT_THAT(tensors.status().message(), StartsWith("x.safetensors: ")) << c.what;
    EXPECT_THAT(tensors.status().message(), HasSubstr(c.message)) << c.what;
  }
}

TEST(Safetensors, ReadsInTheOrderOfTheData) {
  const std::string file = FileOf(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[1,5]},)"
      R"("a":{"dtype":"F8_E8M0","shape":[],"data_offsets":[0,1]},)"
      R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[5,5]}}   )",
      5);
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status().message();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].tensor.dtype, DType::kE8m0);
  EXPECT_TRUE((*tensors)[0].tensor.shape.empty());
  EXPECT_EQ((*tensors)[1].name, "b");
  EXPECT_THAT((*tensors)[1].tensor.shape, ElementsAre(1, 2));
  EXPECT_EQ((*tensors)[1].tensor.bytes, 4);
  EXPECT_EQ((*tensors)[1].tensor.data - (*tensors)[0].tensor.data, 1);
  EXPECT_EQ((*tensors)[2].name, "none");
}

// Every single-byte change of a small file must be refused or read, never more.
TEST(Safetensors, SurvivesEveryByteChanged) {
  const std::string file = FileOf(R"({"a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},)"
                                  R"("b":{"dtype":"I8","shape":[1],"data_offsets":[4,5]}})",
                                  5);
  int64_t bytes = 0;
  for (size_t at = 0; at < file.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = file;
      changed[at] = static_cast<char>(value);
      const auto tensors = Parse(changed);
      if (!tensors.ok()) continue;
      for (const NamedTensor& t : *tensors) {
        for (int64_t i = 0; i < t.tensor.bytes; ++i) bytes += static_cast<int>(t.tensor.data[i]);
      }
    }
  }
  EXPECT_GT(bytes, 0);
}

class WriterTest : public ::testing::Test {
 protected:
  WriterTest() : dir_(::testing::TempDir() + "/seacliff_writer_" + std::to_string(getpid())) {
    std::filesystem::create_directories(dir_);
  }
  ~WriterTest() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST_F(WriterTest, RoundTrips) {
  const std::vector<uint8_t> small = {1, 2, 3};
  const std::vector<float> floats = {1.5f, -2.0f};
  const std::vector<int64_t> ids = {7};
  const auto bytes = [](const auto& v) { return std::as_bytes(std::span(v)).data(); };
  const std::vector<NamedTensor> written = {
      {"small", {DType::kU8, {3, 1}, bytes(small), 3}},
      {"odd \"name\"\n", {DType::kF32, {2}, bytes(floats), 8}},
      {"ids", {DType::kI64, {1}, bytes(ids), 8}},
      {"none", {DType::kF32, {0}, nullptr, 0}},
  };
  const std::string path = dir_ + "/out.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, written).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->tensors().size(), written.size());
  for (const NamedTensor& t : written) {
    const StoredTensor* read = file->Find(t.name);
    ASSERT_NE(read, nullptr) << t.name;
    EXPECT_EQ(read->dtype, t.tensor.dtype);
    EXPECT_EQ(read->shape, t.tensor.shape);
    ASSERT_EQ(read->bytes, t.tensor.bytes);
    if (read->bytes > 0) {
      EXPECT_EQ(std::memcmp(read->data, t.tensor.data, static_cast<size_t>(read->bytes)), 0);
    }
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read->data) % static_cast<size_t>(SizeOf(read->dtype)),
              0u);
  }
  EXPECT_EQ(file->Find("absent"), nullptr);
}

TEST_F(WriterTest, ReplacesAndLeavesNothingElse) {
  const std::string path = dir_ + "/out.safetensors";
  std::ofstream(path) << "old";
  ASSERT_TRUE(WriteSafetensors(path, {}).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE(file->tensors().empty());
  const auto begin = std::filesystem::directory_iterator(dir_);
  EXPECT_EQ(std::distance(begin, std::filesystem::directory_iterator()), 1);
}

TEST_F(WriterTest, NamesThePathItCannotWrite) {
  const Status status = WriteSafetensors(dir_ + "/absent/out.safetensors", {});
  EXPECT_THAT(status.message(), HasSubstr("/absent/out.safetensors: cannot write: No such file"));
}

}  // namespace
}  // namespace seacliff
