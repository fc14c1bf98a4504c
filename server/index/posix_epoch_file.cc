#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/index_keys.h"
#include "server/index/placement_index.h"

namespace predella::server {
namespace {

// Magic, CRC32C of the rest as eight hexadecimal digits, newline, message.
constexpr absl::string_view kMagic = "predella epoch 1 ";
constexpr size_t kHeaderBytes = kMagic.size() + 8 + 1;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

absl::Status FileError(const std::string& path, absl::string_view what,
                       int error) {
  const std::error_code code(error, std::generic_category());
  return MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                   absl::StrCat("cannot ", what, " the epoch file ", path, ": ",
                                code.message()),
                   {{"path", path}});
}

class PosixEpochFile final : public EpochFile {
 public:
  explicit PosixEpochFile(std::string directory)
      : directory_(std::move(directory)), path_(directory_ + "/epoch") {}

  absl::StatusOr<std::optional<storage::v1::EpochTable>> Read() override {
    const Fd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) {
      if (errno == ENOENT) {
        return std::optional<storage::v1::EpochTable>();
      }
      return FileError(path_, "open", errno);
    }
    std::string content;
    std::array<char, 4096> buffer{};
    for (;;) {
      const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        return FileError(path_, "read", errno);
      }
      if (got == 0) {
        break;
      }
      content.append(buffer.data(), static_cast<size_t>(got));
    }
    return Decode(content);
  }

  absl::Status Write(const storage::v1::EpochTable& table) override {
    const std::string body = SerializeRow(table);
    const std::string content =
        absl::StrCat(kMagic, absl::Hex(Crc32c(body), absl::kZeroPad8), "\n",
                     absl::string_view(body));
    const std::string temporary = path_ + ".tmp";
    RETURN_IF_ERROR(WriteSynced(temporary, content));
    if (rename(temporary.c_str(), path_.c_str()) != 0) {
      return FileError(path_, "replace", errno);
    }
    const Fd directory(
        open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0 || fsync(directory.get()) != 0) {
      return FileError(path_, "sync the directory of", errno);
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status WriteSynced(const std::string& path,
                                  absl::string_view content) {
    // A new file each time: one whose sync failed is never synced again.
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
      return FileError(path, "remove", errno);
    }
    const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                     S_IRUSR | S_IWUSR));
    if (fd.get() < 0) {
      return FileError(path, "make", errno);
    }
    while (!content.empty()) {
      const ssize_t put = write(fd.get(), content.data(), content.size());
      if (put < 0 && errno == EINTR) {
        continue;
      }
      if (put < 0) {
        return FileError(path, "write", errno);
      }
      content.remove_prefix(static_cast<size_t>(put));
    }
    if (fsync(fd.get()) != 0) {
      return FileError(path, "sync", errno);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<storage::v1::EpochTable>> Decode(
      absl::string_view content) const {
    storage::v1::EpochTable table;
    const absl::string_view body =
        content.size() < kHeaderBytes ? "" : content.substr(kHeaderBytes);
    const std::string header =
        absl::StrCat(kMagic, absl::Hex(Crc32c(body), absl::kZeroPad8), "\n");
    if (content.substr(0, kHeaderBytes) != header ||
        !table.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
      return MakeError(
          absl::StatusCode::kDataLoss, reason::kIndexUnavailable,
          absl::StrCat("the epoch file ", path_, " is damaged (",
                       content.size(),
                       " bytes): if the index beside it was not put back from "
                       "a copy since the last start, remove the file and start "
                       "again"),
          {{"path", path_}});
    }
    return std::optional<storage::v1::EpochTable>(std::move(table));
  }

  const std::string directory_;
  const std::string path_;
};

}  // namespace

std::unique_ptr<EpochFile> MakePosixEpochFile(const std::string& directory) {
  return std::make_unique<PosixEpochFile>(directory);
}

}  // namespace predella::server
