// Where the repository lies, and model folders that tests make: with a config.json alone, for
// weights made up.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace seacliff {

// $SEACLIFF_SOURCE_DIR, else where this program was built.
inline std::string Repository() {
  const char* folder = std::getenv("SEACLIFF_SOURCE_DIR");
  return folder != nullptr ? folder : SEACLIFF_SOURCE_DIR;
}

// A new folder NAME with only a config.json: tests/data/configs/MODEL.json as `change` leaves it.
inline std::string ConfigOnly(const std::string& name, const std::string& model,
                              const std::function<void(nlohmann::json&)>& change) {
  std::ifstream in(Repository() + "/tests/data/configs/" + model + ".json");
  nlohmann::json config = nlohmann::json::parse(in);
  change(config);
  const std::string dir = testing::TempDir() + name;
  std::filesystem::create_directories(dir);
  std::ofstream(dir + "/config.json") << config;
  return dir;
}

}  // namespace seacliff
