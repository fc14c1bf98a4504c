// What the jobs of a process share: its connections, its threads, and objects
// of Python's that a thread held last.
#ifndef PREDELLA_CLIENT_PYTHON_NATIVE_PROCESS_H_
#define PREDELLA_CLIENT_PYTHON_NATIVE_PROCESS_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "predella/client.h"

namespace predella::native {

// The connection of a process to one coordinator, made when it is first used:
// nothing of gRPC is started before that, as it does not survive a fork.
class Connections {
 public:
  explicit Connections(ClientOptions options);
  // In a child of the process that connected it is left as it is.
  ~Connections();
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  // FAILED_PRECONDITION in a process that was forked after gRPC was used.
  absl::StatusOr<Client> Get();
  const ClientOptions& options() const { return options_; }

 private:
  const ClientOptions options_;
  Mutex mu_;
  pid_t pid_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<Client> client_ ABSL_GUARDED_BY(mu_);
};

// Objects of the caller's that threads no longer use; he alone may drop them.
void Bury(void* owner);
std::vector<void*> Exhume();

// Waits until no thread of a job runs; false when `timeout` passed first.
bool WaitIdle(absl::Duration timeout);

// Starts a thread, which takes none of the process's signals. `name` has at
// most 15 bytes and lives for ever. UNAVAILABLE when there can be none.
absl::Status Spawn(const char* name, std::function<void()> run);

// What is called while this thread waits for something that may come back, as
// long as the object lives: a connection's own on_waiting does not say for
// which of its calls it is.
class WaitingScope {
 public:
  using OnWaiting = std::function<void(const absl::Status&, absl::Duration)>;
  explicit WaitingScope(OnWaiting on_waiting);
  ~WaitingScope();
  WaitingScope(const WaitingScope&) = delete;
  WaitingScope& operator=(const WaitingScope&) = delete;

 private:
  const OnWaiting on_waiting_;
};

}  // namespace predella::native

#endif  // PREDELLA_CLIENT_PYTHON_NATIVE_PROCESS_H_
