// The seacliff command line: picks the command and turns errors into one line and an exit status, 1
// for what went wrong, 2 for a command line that cannot be followed, 3 for a lost device, 4
// (serve) for an engine that hangs, after which a new process may well succeed.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app("Seacliff: an inference engine for DeepSeek-V4", "seacliff");
  app.set_version_flag("--version", "seacliff " SEACLIFF_VERSION);
  app.require_subcommand(1);

  seacliff::Status status;
  seacliff::AddServe(app, status);
  seacliff::AddGenerate(app, status);
  seacliff::AddChat(app, status);
  seacliff::AddTokenize(app, status);
  seacliff::AddLogits(app, status);
  seacliff::AddCheck(app, status);
  seacliff::AddBench(app, status);
  seacliff::AddShow(app, status);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    // CLI11 asks for a command where there is one that it does not know.
    const std::vector<std::string> unknown = app.remaining();
    const std::string what = app.get_subcommands().empty() && !unknown.empty()
                                 ? unknown.front() + ": no such command"
                                 : error.what();
    std::fprintf(stderr,
                 "seacliff: %s (seacliff --help lists the commands, COMMAND --help the flags)\n",
                 what.c_str());
    return 2;
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "seacliff: %s\n", status.message().c_str());
  return status.code() == seacliff::Code::kUnavailable ? 3 : 1;
}
