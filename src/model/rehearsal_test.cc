// Rows that steps take, told without running any.
#include "model/rehearsal.h"

#include <gtest/gtest.h>

#include "config/model_config.h"

namespace seacliff {
namespace {

ModelConfig Flash() {
  return LoadModelConfigFile(SEACLIFF_SOURCE_DIR "/tests/data/configs/flash.json").value();
}

std::string LineOf(const std::string& text, const std::string& op) {
  const size_t begin = text.find("\n" + op + " ") + 1;
  return text.substr(begin, text.find('\n', begin) - begin);
}

TEST(RehearsalTest, TellsTheRowsOfAFullSizeModelOnTheHost) {
  const std::string text =
      DescribeRowsTaken(Flash(), Rows::Parse("router=ref").value(), nullptr).value();
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "taken in a        decode of 1   decode of 32  prefill of 2,048");
  EXPECT_EQ(LineOf(text, "experts"), "experts           cpu           cpu           cpu");
  EXPECT_EQ(LineOf(text, "router"), "router            ref           ref           ref");
  EXPECT_EQ(text.find("sample"), std::string::npos);
}

TEST(RehearsalTest, AForcedRowThatCannotRunIsAnError) {
  ModelConfig config = Flash();
  config.streams = 3;  // mhc_boundary=cpu wants 4
  EXPECT_NE(DescribeRowsTaken(config, Rows::Parse("mhc_boundary=cpu").value(), nullptr)
                .status()
                .message()
                .find("row 'cpu' cannot run"),
            std::string::npos);
}

}  // namespace
}  // namespace seacliff
