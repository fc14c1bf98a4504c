#include "client/cli/transfer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/cli/interrupt.h"
#include "client/cli/output.h"
#include "client/cli/output_file.h"
#include "client/cli/progress.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

// Of a file whose bytes were lost, each time to another mount.
constexpr int kMostTries = 3;

absl::Status FileError(const std::string& what, int error) {
  return absl::Status(error == ENOENT ? absl::StatusCode::kInvalidArgument
                                      : absl::StatusCode::kUnknown,
                      absl::StrCat(what, ": ", std::strerror(error)));
}

// Closes what it opened.
class File {
 public:
  File(int fd, bool owned) : fd_(fd), owned_(owned) {}
  ~File() {
    if (owned_) {
      close(fd_);
    }
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
  const bool owned_;
};

absl::Status Interrupted() {
  return absl::CancelledError("interrupted; nothing was stored");
}

// Up to a MiB, less only at the end. CANCELLED when a signal came.
absl::StatusOr<size_t> ReadFully(int fd, const NoteSignal& signals,
                                 std::vector<char>* buffer) {
  size_t got = 0;
  while (got < buffer->size()) {
    signals.AwaitReadable(fd);
    if (signals.noted()) {
      return Interrupted();
    }
    const ssize_t n = read(fd, buffer->data() + got, buffer->size() - got);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return FileError("reading failed", errno);
    }
    if (n == 0) {
      break;
    }
    got += static_cast<size_t>(n);
  }
  return got;
}

absl::Status SendAll(int fd, std::optional<int64_t> size,
                     const NoteSignal& signals, ImageWriter* writer,
                     Progress* progress) {
  std::vector<char> buffer(static_cast<size_t>(kMiB));
  while (true) {
    ASSIGN_OR_RETURN(const size_t got, ReadFully(fd, signals, &buffer));
    if (size.has_value() &&
        writer->bytes_written() + static_cast<int64_t>(got) > *size) {
      return absl::InvalidArgumentError(
          absl::StrCat("there are more bytes than the ", *size,
                       " that were announced: the file grew while it was "
                       "read, or --size is wrong"));
    }
    if (got == 0) {
      break;
    }
    RETURN_IF_ERROR(writer->Write(absl::string_view(buffer.data(), got)));
    progress->Update(writer->bytes_written());
    if (got < buffer.size()) {
      break;
    }
  }
  if (size.has_value() && writer->bytes_written() != *size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "only ", writer->bytes_written(), " of the ", *size,
        " bytes that were announced are there: the file shrank while it was "
        "read, or --size is wrong"));
  }
  return absl::OkStatus();
}

// Bytes are gone that only the file has: the mount took them, and said later
// that it has no room for them, or its agent is gone.
bool WantsTheFileAgain(const absl::Status& status) {
  return HasReason(status, reason::kMountFull) ||
         HasReason(status, reason::kAgentUnreachable) ||
         HasReason(status, reason::kUploadBytesLost);
}

absl::StatusOr<v1::Image> PutOnce(Client* client, const PutOptions& put, int fd,
                                  const struct stat& before,
                                  const UploadOptions& options,
                                  const Context& context) {
  ASSIGN_OR_RETURN(auto writer, client->StartUpload(options));
  // Only now there is something to give up; before, a signal just ends this.
  const NoteSignal signals;
  absl::Status status;
  {
    Progress progress(context.progress ? context.err : nullptr,
                      options.size_bytes, RealClock());
    status = SendAll(fd, options.size_bytes, signals, writer.get(), &progress);
  }
  struct stat after {};
  if (status.ok() && S_ISREG(before.st_mode) && fstat(fd, &after) == 0 &&
      (after.st_size != before.st_size ||
       after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
       after.st_mtim.tv_nsec != before.st_mtim.tv_nsec)) {
    status = absl::InvalidArgumentError(
        absl::StrCat(put.file, " changed while it was read"));
  }
  if (status.ok() && signals.noted()) {
    status = Interrupted();
  }
  if (!status.ok()) {
    // It would expire by itself; this frees its space now.
    writer->Abort().IgnoreError();
    return status;
  }
  auto image = writer->Commit();
  if (!image.ok() && !ReasonOf(image.status()).empty()) {
    // Somebody decided that there is no image. If it was published after all,
    // this does not take it back.
    writer->Abort().IgnoreError();
  }
  return image;
}

}  // namespace

absl::StatusOr<v1::Image> PutImage(Client* client, const PutOptions& put,
                                   const Context& context) {
  const bool standard = put.file == "-";
  const int fd =
      standard ? STDIN_FILENO : open(put.file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return FileError(absl::StrCat("cannot open ", put.file), errno);
  }
  const File file(fd, !standard);
  struct stat before {};
  if (fstat(fd, &before) != 0) {
    return FileError(absl::StrCat("cannot stat ", put.file), errno);
  }
  if (S_ISDIR(before.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(put.file, " is a directory: an image is one file"));
  }
  UploadOptions options;
  options.image = put.image;
  options.size_bytes = put.size_bytes;
  const off_t at = standard ? lseek(fd, 0, SEEK_CUR) : 0;
  if (S_ISREG(before.st_mode) && !options.size_bytes.has_value()) {
    options.size_bytes = before.st_size - (at > 0 ? at : 0);
  }
  for (int tries = 1;; ++tries) {
    auto image = PutOnce(client, put, fd, before, options, context);
    if (image.ok() || tries == kMostTries || !S_ISREG(before.st_mode) ||
        !WantsTheFileAgain(image.status()) || at < 0 ||
        lseek(fd, at, SEEK_SET) != at) {
      return image;
    }
    *context.err << "sending " << put.file
                 << " again: " << Shown(image.status().message()) << "\n"
                 << std::flush;
  }
}

absl::Status GetImageBytes(Client* client, const GetOptions& get,
                           const Context& context) {
  ASSIGN_OR_RETURN(auto reader, client->ReadImage(get.read));
  const int64_t total = get.read.length > 0
                            ? get.read.length
                            : reader->image().size_bytes() - get.read.offset;
  ASSIGN_OR_RETURN(const auto file, OutputFile::Open(get.file, total));
  {
    Progress progress(
        context.progress && get.file != "-" ? context.err : nullptr, total,
        RealClock());
    int64_t done = 0;
    while (true) {
      ASSIGN_OR_RETURN(const absl::string_view data, reader->Read());
      if (data.empty()) {
        break;
      }
      RETURN_IF_ERROR(file->Write(data));
      done += static_cast<int64_t>(data.size());
      progress.Update(done);
    }
  }
  return file->Finish();
}

}  // namespace predella::cli
