// The settings table is consistent, and values as typed become what they should or an error.
#include "config/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>

namespace seacliff {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Setting& Find(std::string_view name, Command command) {
  for (const Setting& setting : SettingsTable()) {
    if (SettingName(setting) == name && (setting.commands & command) != 0) return setting;
  }
  ADD_FAILURE() << "no setting " << name;
  return SettingsTable()[0];
}

std::string Error(std::string_view name, Command command, std::string_view text) {
  Settings settings;
  return SetFromText(Find(name, command), text, settings).message();
}

TEST(Settings, EachFlagOfACommandStandsOnceAndItsDefaultIsValid) {
  std::set<std::pair<std::string, uint32_t>> seen;
  for (const Setting& setting : SettingsTable()) {
    SCOPED_TRACE(setting.flag);
    for (uint32_t bit = kServe; bit <= kBench; bit *= 2) {
      if ((setting.commands & bit) == 0) continue;
      EXPECT_TRUE(seen.emplace(SettingName(setting), bit).second);
    }
    EXPECT_NE(setting.commands, 0u);
    EXPECT_NE(std::string(setting.help), "");
    EXPECT_EQ(IsSwitch(setting), std::string(setting.values).empty());
    if (setting.initial[0] != '\0') {
      Settings settings;
      EXPECT_EQ(SetFromText(setting, setting.initial, settings).message(), "");
    }
  }
}

TEST(Settings, InitialValuesAreThoseOfTheCommand) {
  EXPECT_EQ(InitialSettings(kServe).port, 8000);
  EXPECT_EQ(InitialSettings(kServe).log_level, "info");
  EXPECT_EQ(InitialSettings(kGenerate).log_level, "warning");
  EXPECT_EQ(InitialSettings(kGenerate).max_tokens, 256);
  EXPECT_EQ(InitialSettings(kChat).max_tokens, 0);
  EXPECT_FALSE(InitialSettings(kServe).temperature.has_value());
}

TEST(Settings, Numbers) {
  EXPECT_EQ(Error("--port", kServe, "65535"), "");
  EXPECT_EQ(Error("--port", kServe, "65536"), "must be between 0 and 65535, not 65536");
  EXPECT_EQ(Error("--port", kServe, "80x"), "must be a whole number, not \"80x\"");
  EXPECT_EQ(Error("--port", kServe, ""), "must be a whole number, not \"\"");
  EXPECT_THAT(Error("--port", kServe, "99999999999999999999"), HasSubstr("out of range"));
  EXPECT_EQ(Error("--top-k", kServe, "-1"), "");
  EXPECT_EQ(Error("--top-p", kServe, "0.95"), "");
  EXPECT_NE(Error("--top-p", kServe, "1.5"), "");
  EXPECT_NE(Error("--top-p", kServe, "nan"), "");
}

TEST(Settings, Choices) {
  EXPECT_EQ(Error("--numerics", kServe, "exact"), "");
  EXPECT_EQ(Error("--numerics", kServe, "fp8"), "must be one of checkpoint, exact, not \"fp8\"");
}

TEST(Settings, Sizes) {
  const Setting& setting = Find("--kv-cache-memory", kServe);
  const auto parsed = [&](std::string_view text) {
    Settings settings;
    return SetFromText(setting, text, settings).ok() ? settings.kv_cache_memory.value : -1;
  };
  EXPECT_EQ(parsed("1000"), 1000);
  EXPECT_EQ(parsed("64k"), 65536);
  EXPECT_EQ(parsed("512M"), int64_t{512} << 20);
  EXPECT_EQ(parsed("8G"), int64_t{8} << 30);
  EXPECT_EQ(parsed("8GiB"), int64_t{8} << 30);
  EXPECT_EQ(parsed("2TB"), int64_t{2} << 40);
  for (const char* text : {"", "G", "8X", "-1", "1.5G", "99999999T", "8GG"}) {
    EXPECT_EQ(parsed(text), -1) << text;
  }
}

TEST(Settings, ListsGrow) {
  Settings settings;
  const Setting& stop = Find("--stop", kGenerate);
  EXPECT_TRUE(IsList(stop));
  ASSERT_TRUE(SetFromText(stop, "a", settings).ok());
  ASSERT_TRUE(SetFromText(stop, "b,c", settings).ok());
  EXPECT_THAT(settings.stop, ElementsAre("a", "b,c"));
}

TEST(Settings, Environment) {
  const Setting& key = Find("--api-key", kServe);
  ASSERT_EQ(setenv("SEACLIFF_API_KEY", "secret", 1), 0);
  EXPECT_EQ(EnvironmentValue(key), "secret");
  ASSERT_EQ(unsetenv("SEACLIFF_API_KEY"), 0);
  EXPECT_EQ(EnvironmentValue(key), std::nullopt);
  EXPECT_EQ(EnvironmentValue(Find("--port", kServe)), std::nullopt);
}

TEST(Settings, TheTableNamesEveryFlag) {
  const std::string text = DescribeSettings();
  for (const Setting& setting : SettingsTable()) EXPECT_THAT(text, HasSubstr(setting.flag));
}

}  // namespace
}  // namespace seacliff
