#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/cli/reach.h"
#include "client/cli/serve/serve.h"
#include "common/process_tuning.h"

int main(int argc, char** argv) {
  predella::TuneProcess();
  // A closed pipe is an error of a write, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  if (argc > 1 && std::string_view(argv[1]) == "serve") {
    return predella::cli::ServeMain(argc - 1, argv + 1);
  }
  // gRPC looks at a channel that nobody waits on, as between two tries, every
  // 5 s: a coordinator that is back would be seen that late. Not for the
  // children of serve, which would inherit it.
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100", /*replace=*/0);
  predella::cli::Context context;
  context.out = &std::cout;
  context.err = &std::cerr;
  context.progress = isatty(STDERR_FILENO) == 1;
  context.terminal = isatty(STDOUT_FILENO) == 1;
  context.connect = predella::cli::ConnectByEndpoint;
  context.reach = predella::cli::ReachByChannel;
  const int code = predella::cli::RunCli(argc, argv, &context);
  if (code == predella::cli::kExitInterrupted) {
    predella::cli::RaiseNotedSignal();
  }
  return code;
}
