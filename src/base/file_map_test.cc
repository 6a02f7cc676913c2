// File mapping: contents, moves, and errors that name the file.
#include "base/file_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace seacliff {
namespace {

using testing::HasSubstr;

class FileMapTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path_ = testing::TempDir() + "seacliff_file_map_" + info->name();
  }
  void TearDown() override { std::remove(path_.c_str()); }
  void Write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }

  std::string path_;
};

TEST_F(FileMapTest, ReadsAllBytes) {
  Write(std::string("abc\0def", 7));
  auto text = ReadFile(path_);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, std::string("abc\0def", 7));
}

TEST_F(FileMapTest, AnEmptyFileIsEmpty) {
  Write("");
  auto map = FileMap::Open(path_);
  ASSERT_TRUE(map.ok());
  EXPECT_TRUE(map->bytes().empty());
}

TEST_F(FileMapTest, SurvivesMoves) {
  Write("hello");
  auto opened = FileMap::Open(path_);
  ASSERT_TRUE(opened.ok());
  FileMap map;
  map = std::move(opened).value();
  const FileMap moved(std::move(map));
  EXPECT_EQ(moved.path(), path_);
  ASSERT_EQ(moved.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(moved.bytes()[4]), 'o');
}

TEST_F(FileMapTest, AMissingFileIsNotFoundByName) {
  const auto map = FileMap::Open(path_);
  ASSERT_FALSE(map.ok());
  EXPECT_EQ(map.status().code(), Code::kNotFound);
  EXPECT_THAT(map.status().message(), HasSubstr(path_));
}

TEST_F(FileMapTest, ADirectoryIsNoFile) {
  const auto map = FileMap::Open(testing::TempDir());
  ASSERT_FALSE(map.ok());
  EXPECT_EQ(map.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(map.status().message(), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace seacliff
