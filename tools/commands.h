// The commands of the binary. Each adds its subcommand to `app`; when the command line asks for it,
// it runs while the line is parsed and leaves its outcome in `status`.
#pragma once

#include <CLI/CLI.hpp>

#include "base/status.h"

namespace seacliff {

void AddServe(CLI::App& app, Status& status);
void AddGenerate(CLI::App& app, Status& status);
void AddChat(CLI::App& app, Status& status);
void AddTokenize(CLI::App& app, Status& status);
void AddLogits(CLI::App& app, Status& status);
void AddCheck(CLI::App& app, Status& status);
void AddBench(CLI::App& app, Status& status);
void AddShow(CLI::App& app, Status& status);

}  // namespace seacliff
