// What a daemon and the process that started it say to each other: systemd's
// notification protocol, and the end of a supervisor.
#ifndef PREDELLA_COMMON_CONFIG_SERVICE_MANAGER_H_
#define PREDELLA_COMMON_CONFIG_SERVICE_MANAGER_H_

#include <signal.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace predella {

// Each sends one datagram to the socket that NOTIFY_SOCKET names (a path, or
// @name for an abstract one), and does nothing without that variable. `status`
// is one line for people: `systemctl status` shows it. Never blocks, and never
// fails in a way that matters: what is lost is only a line for people, but for
// READY, without which systemd ends the daemon; so failures are logged. Safe
// for concurrent use as long as nobody changes the environment.
void NotifyReady(absl::string_view status);
void NotifyStatus(absl::string_view status);
void NotifyStopping(absl::string_view status);

// What WatchParent sends. Not SIGTERM, by which a living parent asks for a
// stop that lets work end.
inline constexpr int kParentGoneSignal = SIGINT;

// Has the kernel send kParentGoneSignal to this process when its parent ends
// (`die_with_parent`; the thread of the parent counts that started it), and
// watches `watch_fd` (unless negative): an inherited pipe at whose end the
// signal is sent. What comes through the pipe before is ignored.
// INVALID_ARGUMENT when `watch_fd` is not open. Call once, after the signal is
// blocked or handled.
absl::Status WatchParent(bool die_with_parent, int watch_fd);

}  // namespace predella

#endif  // PREDELLA_COMMON_CONFIG_SERVICE_MANAGER_H_
