// Memory by the page.
#include "base/pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/file_map.h"

namespace seacliff {
namespace {

TEST(Pages, MemoryIsZeroAndOfItsSize) {
  auto allocated = PageMemory::Allocate(10'000, "the words");
  ASSERT_TRUE(allocated.ok()) << allocated.status().message();
  const PageMemory memory = std::move(allocated).value();
  EXPECT_EQ(memory.bytes(), 10'000);
  EXPECT_EQ(reinterpret_cast<intptr_t>(memory.data()) % sysconf(_SC_PAGESIZE), 0);
  for (int64_t i = 0; i < memory.bytes(); ++i) ASSERT_EQ(memory.data()[i], std::byte{0});
  EXPECT_EQ(PageMemory::Allocate(0, "nothing").value().bytes(), 0);
}

TEST(Pages, MoreThanTheMachineHasIsExhausted) {
  const Status status = PageMemory::Allocate(int64_t{1} << 60, "the words").status();
  EXPECT_EQ(status.code(), Code::kExhausted);
  EXPECT_THAT(status.message(), testing::HasSubstr("the words take 1152921504.6 GB of"));
}

TEST(Pages, ReleasesWholePagesAlone) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const PageMemory memory = PageMemory::Allocate(4 * page, "the words").value();
  std::memset(memory.data(), 7, static_cast<size_t>(4 * page));
  ReleasePages(memory.data() + 1, 3 * page);  // two whole ones, which are zero when read again
  for (int64_t i = 0; i < 4 * page; ++i) {
    const bool released = i / page == 1 || i / page == 2;
    ASSERT_EQ(memory.data()[i], released ? std::byte{0} : std::byte{7}) << i;
  }
  ReleasePages(memory.data() + 1, page);
  ReleasePages(memory.data(), 0);
  EXPECT_EQ(memory.data()[0], std::byte{7});
}

TEST(Pages, AlignsLargePiecesToPages) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  EXPECT_EQ(AlignedOffset(0, 3), 0);
  EXPECT_EQ(AlignedOffset(1, 3), 64);
  EXPECT_EQ(AlignedOffset(64, page - 1), 64);
  EXPECT_EQ(AlignedOffset(64, page), page);
}

TEST(Pages, ReadingTellsOfAFileThatGotShorter) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const std::string path = testing::TempDir() + "seacliff_pages_" + std::to_string(getpid());
  std::ofstream(path) << std::string(static_cast<size_t>(3 * page), 'x');
  const FileMap file = FileMap::Open(path).value();
  EXPECT_TRUE(ReadPages(file.bytes().data() + 5, 2 * page));
  PrefetchPages(file.bytes().data() + 5, 2 * page);
  std::filesystem::resize_file(path, static_cast<uintmax_t>(page));
  EXPECT_TRUE(ReadPages(file.bytes().data(), page));
  EXPECT_FALSE(ReadPages(file.bytes().data(), 3 * page));  // needs Linux 5.14
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace seacliff
