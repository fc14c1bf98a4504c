#include "server/index_backups.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/state_dir.h"

namespace predella::server {
namespace {

constexpr absl::string_view kFormat = "%Y%m%dT%H%M%SZ";
// Until it is whole.
constexpr absl::string_view kMaking = ".making";

absl::Status Failed(absl::string_view what, const std::string& path,
                    const std::string& why) {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
      absl::StrCat("no backup was made: ", what, " ", path, ": ", why),
      {{"path", path}});
}

int64_t SizeOf(const std::string& directory) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end;
       !error && it != end; it.increment(error)) {
    std::error_code ignored;
    const auto size = it->file_size(ignored);
    bytes += ignored ? 0 : static_cast<int64_t>(size);
  }
  return bytes;
}

// The time that a name of a whole copy says; absent: it is none.
std::optional<absl::Time> TimeOfName(absl::string_view name) {
  // ParseTime would take all digits for the year.
  if (name.size() != 16) {
    return std::nullopt;
  }
  absl::Time time;
  std::string ignored;
  if (!absl::ParseTime("%Y-%m-%dT%H:%M:%SZ",
                       absl::StrCat(name.substr(0, 4), "-", name.substr(4, 2),
                                    "-", name.substr(6, 5), ":",
                                    name.substr(11, 2), ":", name.substr(13)),
                       &time, &ignored)) {
    return std::nullopt;
  }
  return time;
}

// The name is its time.
v1::IndexBackup Describe(const std::string& path, absl::Time time) {
  v1::IndexBackup out;
  out.set_path(path);
  out.set_size_bytes(SizeOf(path));
  out.mutable_create_time()->set_seconds(absl::ToUnixSeconds(time));
  return out;
}

}  // namespace

std::string DeletesForgottenBy(const std::string& path, absl::Time now,
                               absl::Duration remembered) {
  std::filesystem::path name(path);
  if (name.filename().empty()) {
    name = name.parent_path();  // a slash at the end
  }
  const std::optional<absl::Time> made = TimeOfName(name.filename().string());
  if (made.has_value() && now - *made < remembered) {
    return "";
  }
  const int64_t hours = absl::ToInt64Hours(remembered);
  return absl::StrCat(
      made.has_value()
          ? absl::StrCat("the copy was made at ",
                         absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", *made,
                                          absl::UTCTimeZone()),
                         ", more than ", hours, " hours ago")
          : absl::StrCat("the name of the copy does not say when it was made; "
                         "if that was more than ",
                         hours, " hours ago, this holds"),
      ": a delete is remembered for ", hours,
      " hours after its last file is gone. Images that were deleted since, and "
      "longer ago than that, come back as names without a file "
      "(COPIES_MISSING): delete again those that Glance does not know "
      "(predella image rm)");
}

absl::StatusOr<std::vector<v1::IndexBackup>> ListBackups(
    const std::string& directory) {
  std::vector<v1::IndexBackup> out;
  std::error_code error;
  std::filesystem::directory_iterator it(directory, error);
  if (error == std::errc::no_such_file_or_directory) {
    return out;
  }
  for (const std::filesystem::directory_iterator end; !error && it != end;
       it.increment(error)) {
    if (const auto time = TimeOfName(it->path().filename().string())) {
      out.push_back(Describe(it->path().string(), *time));
    }
  }
  if (error) {
    return Failed("cannot list", directory, error.message());
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.path() > b.path(); });
  return out;
}

IndexBackups::IndexBackups(KvStore* kv, Clock* clock,
                           const BackupOptions& options)
    : kv_(kv), clock_(clock), options_(options), begun_(clock->Boot()) {}

bool IndexBackups::Due() const {
  MutexLock lock(&mu_);
  return options_.interval > absl::ZeroDuration() && !making_ &&
         clock_->Boot() - begun_ >= options_.interval;
}

absl::StatusOr<v1::IndexBackup> IndexBackups::Make() {
  {
    MutexLock lock(&mu_);
    if (making_) {
      return MakeError(absl::StatusCode::kAborted, reason::kIndexUnavailable,
                       "another backup is being made");
    }
    making_ = true;
    begun_ = clock_->Boot();
  }
  absl::StatusOr<v1::IndexBackup> made = MakeNow();
  if (made.ok()) {
    LogInfo("index_backup",
            {{"path", made->path()}, {"bytes", made->size_bytes()}});
    RemoveOld();
  } else {
    LogWarning("index_backup_failed", {{"error", made.status().ToString()}});
  }
  MutexLock lock(&mu_);
  making_ = false;
  return made;
}

// Where the copy lies on the index's own file system most files are linked,
// and take no room yet; RocksDB replaces them by and by, so the room is
// wanted in either case.
absl::Status IndexBackups::CheckRoom() const {
  struct statvfs fs {};
  if (statvfs(options_.directory.c_str(), &fs) != 0) {
    return Failed("cannot ask for the room at", options_.directory,
                  std::strerror(errno));
  }
  const int64_t free =
      static_cast<int64_t>(fs.f_bavail) * static_cast<int64_t>(fs.f_frsize);
  const int64_t needed = SizeOf(options_.index) + options_.min_free_bytes;
  if (free >= needed) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, reason::kIndexReadOnly,
      absl::StrCat("no backup was made: ", FormatSize(free), " are free at ",
                   options_.directory, ", ", FormatSize(needed),
                   " are wanted; free some, or give another --backup-dir"),
      {{"free_bytes", absl::StrCat(free)},
       {"needed_bytes", absl::StrCat(needed)}});
}

absl::StatusOr<v1::IndexBackup> IndexBackups::MakeNow() {
  RETURN_IF_ERROR(MakeDirectories(options_.directory));
  // What earlier ones left that were stopped.
  std::error_code error;
  for (std::filesystem::directory_iterator it(options_.directory, error), end;
       !error && it != end; it.increment(error)) {
    if (absl::EndsWith(it->path().filename().string(), kMaking)) {
      std::error_code removed;
      std::filesystem::remove_all(it->path(), removed);
    }
  }
  RETURN_IF_ERROR(CheckRoom());
  // Names rise, also of two in one second or when the clock was set back: the
  // lowest are removed as the oldest.
  absl::Time time = clock_->Now();
  ASSIGN_OR_RETURN(const std::vector<v1::IndexBackup> there,
                   ListBackups(options_.directory));
  if (!there.empty()) {
    time = std::max(
        time, absl::FromUnixSeconds(there[0].create_time().seconds() + 1));
  }
  const std::string path =
      absl::StrCat(options_.directory, "/",
                   absl::FormatTime(kFormat, time, absl::UTCTimeZone()));
  const std::string making = absl::StrCat(path, kMaking);
  RETURN_IF_ERROR(kv_->Checkpoint(making));
  // The copy holds the cluster's key.
  if (chmod(making.c_str(), 0700) != 0) {
    return Failed("cannot protect", making, std::strerror(errno));
  }
  RETURN_IF_ERROR(RocksDbKvStore::Inspect(making).status());
  if (rename(making.c_str(), path.c_str()) != 0) {
    return Failed("cannot name", path, std::strerror(errno));
  }
  RETURN_IF_ERROR(SyncDirectory(options_.directory));
  return Describe(path, time);
}

void IndexBackups::RemoveOld() {
  const auto all = ListBackups(options_.directory);
  if (!all.ok()) {
    LogIfError(all.status(), "the next backup removes the old ones");
    return;
  }
  for (size_t i = static_cast<size_t>(options_.keep); i < all->size(); ++i) {
    std::error_code error;
    // Renamed first: what is half removed bears no name of a copy.
    const std::string gone = absl::StrCat((*all)[i].path(), kMaking);
    std::filesystem::rename((*all)[i].path(), gone, error);
    std::filesystem::remove_all(gone, error);
    if (error) {
      LogWarning("old_backup_stays",
                 {{"path", gone}, {"error", error.message()}});
    }
  }
}

}  // namespace predella::server
