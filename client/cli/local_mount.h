// What this machine sees of a mount whose agent runs here.
#ifndef PREDELLA_CLIENT_CLI_LOCAL_MOUNT_H_
#define PREDELLA_CLIENT_CLI_LOCAL_MOUNT_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace predella::cli {

struct LocalMount {
  // False: the file system did not answer in time; nothing else is known.
  bool answered = true;
  bool directory = false;
  enum class Labelled { kYes, kNo, kHidden };
  // kHidden: the label may not be seen by this user.
  Labelled label = Labelled::kHidden;
  bool read_only = false;
  // Why it could not be looked at, as errno; 0: it could.
  int error = 0;
  // The process that looked and hangs in it, where it did not answer.
  int64_t left = 0;
};

// Looks in a process of its own, left behind after `timeout`.
LocalMount LookAtMount(const std::string& path, absl::Duration timeout);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_LOCAL_MOUNT_H_
