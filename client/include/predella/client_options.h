// How a client behaves.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_OPTIONS_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace predella {

struct ClientOptions {
  // The coordinator: "unix:/path" or "HOST:PORT". Required.
  std::string endpoint;

  // Deadlines of single calls.
  absl::Duration get_timeout = absl::Seconds(5);
  absl::Duration change_timeout = absl::Seconds(15);

  // For how long StartUpload, and a stream that broke, are tried again. The
  // time starts anew with every message that comes from an agent.
  absl::Duration retry_for = absl::Minutes(2);
  // For how long a coordinator is asked again that answers, but cannot take
  // the upload now: mounts are missing, as right after its start, or a
  // leftover is being removed.
  absl::Duration refused_for = absl::Seconds(15);
  // For how long a read is tried again where a call to the disk of every copy
  // hangs, as their agents say. The next try may take as long as such a call
  // is given (15 s), so it ends within 45 s.
  absl::Duration stalled_for = absl::Seconds(10);
  // An open stream that is silent for so long is given up.
  absl::Duration stall_timeout = absl::Seconds(30);
  // Whether images are read through their open files, where an agent on this
  // host gives them: faster, and as safe (docs/api.md, "Reading on the agent's
  // host"). What goes wrong with it is read through the agent.
  enum class LocalReads { kAuto, kNever };
  LocalReads local_reads = LocalReads::kAuto;
  // A read of an open file that takes so long is left to itself.
  absl::Duration local_stall_timeout = absl::Seconds(5);
  // Between tries, with jitter.
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration most_backoff = absl::Seconds(2);

  // Bytes of an upload kept until the agent says that they are safe. An agent
  // is at most 16 MiB behind, so less than 18 MiB would block for ever.
  int64_t upload_window_bytes = int64_t{32} << 20;

  // Called before every wait for something that may come back, with what went
  // wrong last and for how long it has been so; and with every message of an
  // agent that has the whole image and waits for the coordinator. On the
  // thread of the call that waits; it must not use the client.
  std::function<void(const absl::Status& why, absl::Duration waited)>
      on_waiting;
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_OPTIONS_H_
