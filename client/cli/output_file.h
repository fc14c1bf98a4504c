// Where an image that is read goes to.
#ifndef PREDELLA_CLIENT_CLI_OUTPUT_FILE_H_
#define PREDELLA_CLIENT_CLI_OUTPUT_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "client/cli/interrupt.h"

namespace predella::cli {

// A regular file, or one that is not there yet, is written as a temporary
// file beside it that takes its name at the end, so that half an image is
// never taken for a whole one; its mode stays. A symbolic link is followed
// and stays. What is there and is not a regular file (a device, a fifo), and
// a descriptor named through /proc or /dev/fd, is written straight to, and
// never replaced.
//
// No temporary file is left behind: not after an error, and not when SIGINT,
// SIGTERM or SIGHUP end the process. Not safe for concurrent use.
class OutputFile {
 public:
  // `path` "-" is standard output; `size` is how many bytes will come.
  // INVALID_ARGUMENT for a directory and for a path that cannot be;
  // RESOURCE_EXHAUSTED with the numbers when there is no room.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Open(
      const std::string& path, int64_t size);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status Write(absl::string_view data);
  // Makes the bytes durable and gives the file its name.
  absl::Status Finish();

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}
  absl::Status CreateBeside(const std::string& target, int64_t size,
                            std::optional<mode_t> mode);
  absl::Status Failed(absl::string_view what, int error) const;

  const std::string path_;  // as it was given, for messages
  std::string target_;
  int fd_ = -1;
  bool owned_ = false;
  int64_t written_ = 0;
  // Empty: written straight to.
  std::string temporary_;
  std::optional<RemoveOnSignal> guard_;
};

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_OUTPUT_FILE_H_
