// Whether a file that is kept open still is what its path names: what is
// written to one that was removed or replaced is gone with the process.
#ifndef PREDELLA_AGENT_STORE_FILE_PLACE_H_
#define PREDELLA_AGENT_STORE_FILE_PLACE_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

// Thread-safe.
class FilePlace {
 public:
  // `fs` must outlive this.
  FilePlace(FileSystem* fs, std::string path)
      : fs_(fs), path_(std::move(path)) {}

  // What was opened there.
  void Opened(const FileInfo& file) { inode_.store(file.inode); }
  // FAILED_PRECONDITION, MOUNT_IDENTITY_MISMATCH, when the path names nothing,
  // or another file; OK before anything was opened.
  absl::Status Check() const;

 private:
  FileSystem* const fs_;
  const std::string path_;
  // Of an open file: no other one is given it meanwhile.
  std::atomic<uint64_t> inode_{0};
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_FILE_PLACE_H_
