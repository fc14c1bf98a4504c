// Small whole files over the FileSystem seam.
#ifndef PREDELLA_AGENT_STORE_FILES_H_
#define PREDELLA_AGENT_STORE_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

// The first `limit` bytes of a file, or all of it.
absl::StatusOr<std::string> ReadFile(FileSystem* fs, absl::string_view path,
                                     int64_t limit);

enum class Durability {
  kProcess,  // survives the process
  kPower,    // content synced; the name is the caller's to sync
};

// Makes `path`, replacing what an earlier try left. On failure nothing is
// left of it; `sync_failed`, where given, tells whether it was the sync.
absl::Status WriteNewFile(FileSystem* fs, absl::string_view path,
                          absl::string_view content, Durability durability,
                          bool* sync_failed = nullptr);

// Writes a temporary file beside `path` and renames it over it.
absl::Status ReplaceFile(FileSystem* fs, absl::string_view path,
                         absl::string_view content, Durability durability);

// OK also when there is none.
absl::Status UnlinkIfThere(FileSystem* fs, absl::string_view path);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_FILES_H_
