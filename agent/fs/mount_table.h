// What is mounted where, as the kernel lists it: text, so that no file system
// is asked anything and a hung one can not hold the asker.
#ifndef PREDELLA_AGENT_FS_MOUNT_TABLE_H_
#define PREDELLA_AGENT_FS_MOUNT_TABLE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace predella::agent {

struct MountEntry {
  int64_t id = 0;
  int64_t parent = 0;
  std::string point;
  std::string type;
  std::string source;
};

// The lines of /proc/self/mountinfo; what can't be read as one is left out.
std::vector<MountEntry> ParseMountTable(absl::string_view text);

// The mount that a walk along `path` (absolute, without symbolic links or a
// slash at the end) comes to: what is mounted over an ancestor hides what is
// mounted below it. Absent when the table has no mount at /.
std::optional<MountEntry> MountAt(const std::vector<MountEntry>& table,
                                  absl::string_view path);

// The table as a seam. One thread reads and waits; Wake comes from any.
class MountTable {
 public:
  virtual ~MountTable() = default;
  virtual absl::StatusOr<std::string> Read() = 0;
  // Returns when the table changed since the last Wait, Wake was called, or
  // `timeout` passed.
  virtual void Wait(absl::Duration timeout) = 0;
  virtual void Wake() = 0;
  // Without symbolic links. Looks at names only, never at what is mounted on
  // the last one.
  virtual absl::StatusOr<std::string> Canonical(const std::string& path) = 0;
};

// This process's. UNAVAILABLE when /proc is not there.
absl::StatusOr<std::unique_ptr<MountTable>> OpenMountTable();

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_MOUNT_TABLE_H_
