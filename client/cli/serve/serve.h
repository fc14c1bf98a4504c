// predella serve: everything on one host with one command.
#ifndef PREDELLA_CLIENT_CLI_SERVE_SERVE_H_
#define PREDELLA_CLIENT_CLI_SERVE_SERVE_H_

namespace predella::cli {

// argv[0] is "serve". Returns the exit code.
int ServeMain(int argc, const char* const* argv);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_SERVE_H_
