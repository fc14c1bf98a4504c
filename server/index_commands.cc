#include "server/index_commands.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/config/config.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/mount_description.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/index/index_keys.h"
#include "server/index/placement_index.h"
#include "server/index/rebuild.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/index_backups.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/state_dir.h"

namespace predella::server {
namespace {

struct Arguments {
  std::string state_dir;
  std::vector<std::string> descriptions;
  std::string cluster_uid;
  std::string epoch_above = "0";
  std::string from;
  std::string backup_dir;
  bool yes = false;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "predella-coordinator: %s\n",
               std::string(status.message()).c_str());
  // The numbers of the exit codes of `predella`: docs/api.md.
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 5;
    default:
      return 1;
  }
}

void Say(absl::string_view line) {
  std::printf("%s\n", std::string(line).c_str());
}

absl::Status SystemError(absl::string_view what, const std::string& path,
                         const std::string& error) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " ", path, ": ", error));
}

absl::StatusOr<std::vector<MountDescription>> ReadDescriptions(
    const std::vector<std::string>& paths) {
  std::vector<MountDescription> all;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (!file.is_open() || file.bad()) {
      return SystemError("cannot read", path, std::strerror(errno));
    }
    auto some = ParseDescriptions(text.str());
    if (!some.ok()) {
      return Annotate(some.status(), path);
    }
    for (MountDescription& one : *some) {
      all.push_back(std::move(one));
    }
  }
  return all;
}

absl::StatusOr<RebuildInput> ReadInput(const Arguments& a) {
  RebuildInput input;
  ASSIGN_OR_RETURN(input.mounts, ReadDescriptions(a.descriptions));
  if (!a.cluster_uid.empty()) {
    ASSIGN_OR_RETURN(const Uuid uid, Uuid::Parse(a.cluster_uid));
    input.cluster_uid = uid;
  }
  if (!absl::SimpleAtoi(a.epoch_above, &input.above_epoch) ||
      input.above_epoch < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--epoch-above is \"", a.epoch_above,
                     "\": it has to be a number from 0 on"));
  }
  ASSIGN_OR_RETURN(input.epoch_file, MakePosixEpochFile(a.state_dir)->Read());
  return input;
}

// Which of several mounts, in one line.
void SayPlan(const RebuildPlan& plan) {
  Say(absl::StrCat("cluster ", plan.cluster_uid.ToString()));
  int absent = 0;
  for (const RebuildPlan::Mount& mount : plan.mounts) {
    const std::string& name = mount.identity.mount_name();
    if (!mount.given.has_value()) {
      ++absent;
      Say(absl::StrCat(
          "  ", name, ": not given, the others remember it (",
          Uuid::FromBytesOrNone(mount.identity.mount_uid()).ToString(),
          "); it will be UNCONFIRMED"));
      continue;
    }
    Say(absl::StrCat("  ", name, ": ", mount.given->image_count,
                     " images with ", FormatSize(mount.given->image_bytes),
                     " at ", mount.given->path));
    for (const std::string& warning : mount.given->warnings) {
      Say(absl::StrCat("    warning: ", warning));
    }
  }
  for (const std::string& note : plan.notes) {
    Say(absl::StrCat("  note: ", note));
  }
  Say(absl::StrCat(plan.tombstones.size(), " deletes are remembered"));
  Say(absl::StrCat("highest epoch heard of: ", plan.highest_epoch,
                   "; the new index begins at ", plan.epoch));
  if (absent > 0) {
    Say(absl::StrCat(
        "with all directories given none is UNCONFIRMED: add those of the ",
        absent, " to --datadirs where they still exist"));
  }
}

// A name beside the index that is free: what is moved there is never deleted
// by us.
std::string AsideName(const std::string& state_dir, absl::string_view why) {
  const std::string base =
      absl::StrCat(state_dir, "/index.before-", why, "-",
                   absl::FormatTime("%Y%m%dT%H%M%SZ", RealClock()->Now(),
                                    absl::UTCTimeZone()));
  std::string name = base;
  std::error_code error;
  for (int i = 2; std::filesystem::exists(name, error); ++i) {
    name = absl::StrCat(base, "-", i);
  }
  return name;
}

// `made` becomes the index; what was there is moved aside. The epoch file is
// written first: a stop in between leaves a directory that is refused as one
// whose index was lost, and never one that a new cluster begins in.
absl::Status PutInPlace(const std::string& state_dir, const std::string& made,
                        const storage::v1::EpochTable& epochs,
                        absl::string_view why) {
  RETURN_IF_ERROR(SyncDirectory(made));
  RETURN_IF_ERROR(MakePosixEpochFile(state_dir)->Write(epochs));
  const std::string index = absl::StrCat(state_dir, "/index");
  std::error_code error;
  if (std::filesystem::exists(index, error) &&
      !std::filesystem::is_empty(index, error)) {
    const std::string aside = AsideName(state_dir, why);
    if (rename(index.c_str(), aside.c_str()) != 0) {
      return SystemError("cannot move aside", index, std::strerror(errno));
    }
    Say(absl::StrCat("the index that was there is now ", aside));
  }
  // Over an empty directory as well.
  if (rename(made.c_str(), index.c_str()) != 0) {
    return SystemError("cannot put in place", index, std::strerror(errno));
  }
  return SyncDirectory(state_dir);
}

absl::Status WriteRebuild(const Arguments& a, const RebuildPlan& plan) {
  const std::string making = absl::StrCat(a.state_dir, "/index.rebuilding");
  std::error_code error;
  // Of a rebuild that was stopped: no coordinator has ever opened it.
  std::filesystem::remove_all(making, error);
  if (error) {
    return SystemError("cannot remove what an earlier rebuild left,", making,
                       error.message());
  }
  if (mkdir(making.c_str(), 0700) != 0) {
    return SystemError("cannot make", making, std::strerror(errno));
  }
  storage::v1::EpochTable epochs;
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<KvStore> kv,
                     RocksDbKvStore::Open(making));
    ASSIGN_OR_RETURN(
        epochs, WriteRebuiltIndex(plan, kv.get(), RealClock(), RandomIds()));
  }
  return PutInPlace(a.state_dir, making, epochs, "rebuild");
}

absl::Status Rebuild(const Arguments& a) {
  std::unique_ptr<StateLock> lock;
  std::error_code error;
  if (a.yes) {
    RETURN_IF_ERROR(MakeDirectories(a.state_dir));
  }
  if (std::filesystem::exists(a.state_dir, error)) {
    ASSIGN_OR_RETURN(lock, StateLock::Take(a.state_dir));
  }
  ASSIGN_OR_RETURN(const RebuildInput input, ReadInput(a));
  ASSIGN_OR_RETURN(const RebuildPlan plan, PlanRebuild(input));
  SayPlan(plan);
  if (!a.yes) {
    Say("nothing was changed: this was a dry run; say --yes to write it");
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(WriteRebuild(a, plan));
  Say(absl::StrCat(
      "the index at ", a.state_dir,
      "/index was made anew. Next: start the coordinator and the agents; every "
      "mount is listed and its images are taken in (predella cluster status "
      "says RECOVERING until that is done)"));
  return absl::OkStatus();
}

// What stands in a copy of the index.
struct Backup {
  Uuid cluster_uid;
  int64_t epoch = 0;
  int64_t images = 0;
};

absl::StatusOr<Backup> ReadBackup(const std::string& path) {
  ASSIGN_OR_RETURN(const KvSummary summary, RocksDbKvStore::Inspect(path));
  storage::v1::ClusterRow cluster;
  storage::v1::EpochTable epochs;
  RETURN_IF_ERROR(ParseRow(keys::kCluster, summary.cluster, &cluster));
  RETURN_IF_ERROR(ParseRow(keys::kEpochs, summary.epochs, &epochs));
  if (cluster.format_version() > kIndexFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is of format ", cluster.format_version(),
                     ", this program reads "
                     "up to ",
                     kIndexFormatVersion, ": use the newer one"));
  }
  Backup out;
  out.cluster_uid = Uuid::FromBytesOrNone(cluster.cluster_uid());
  out.epoch = HighestEpoch(epochs);
  out.images = summary.images;
  return out;
}

// Made beside the index, as a copy: the backup stays what it is.
absl::Status WriteRestore(const Arguments& a, int64_t epoch) {
  const std::string making = absl::StrCat(a.state_dir, "/index.restoring");
  std::error_code error;
  // Of a restore that was stopped: no coordinator has ever opened it.
  std::filesystem::remove_all(making, error);
  if (!error) {
    std::filesystem::copy(a.from, making,
                          std::filesystem::copy_options::recursive, error);
  }
  if (error || chmod(making.c_str(), 0700) != 0) {
    return SystemError("cannot copy the backup to", making,
                       error ? error.message() : std::strerror(errno));
  }
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<KvStore> kv,
                     RocksDbKvStore::Open(making));
    RETURN_IF_ERROR(MarkRestored(kv.get(), RealClock()));
  }
  storage::v1::EpochTable epochs;
  epochs.set_current_epoch(epoch);
  epochs.set_current_nonce(static_cast<uint32_t>(RandomIds()->NextUint64()));
  RETURN_IF_ERROR(SyncFiles(making));
  return PutInPlace(a.state_dir, making, epochs, "restore");
}

absl::Status Restore(const Arguments& a) {
  if (a.from.empty() || a.from[0] != '/') {
    return absl::InvalidArgumentError(
        "--from names the copy to put back, as an absolute path: predella "
        "index backups lists them");
  }
  std::unique_ptr<StateLock> lock;
  std::error_code error;
  if (a.yes) {
    RETURN_IF_ERROR(MakeDirectories(a.state_dir));
  }
  if (std::filesystem::exists(a.state_dir, error)) {
    ASSIGN_OR_RETURN(lock, StateLock::Take(a.state_dir));
  }
  ASSIGN_OR_RETURN(RebuildInput input, ReadInput(a));
  ASSIGN_OR_RETURN(const Backup backup, ReadBackup(a.from));
  int64_t highest = std::max(backup.epoch, HighestEpoch(input.mounts));
  if (input.epoch_file.has_value()) {
    highest = std::max(highest, HighestEpoch(*input.epoch_file));
  }
  Say(absl::StrCat("backup of the cluster ", backup.cluster_uid.ToString(),
                   ": ", backup.images, " images, epoch ", backup.epoch));
  input.cluster_uid = backup.cluster_uid;
  // The directories have to be this cluster's.
  RETURN_IF_ERROR(PlanRebuild(input).status());
  for (const MountDescription& mount : input.mounts) {
    Say(absl::StrCat("  ", mount.label.mount_name(), ": ", mount.image_count,
                     " images with ", FormatSize(mount.image_bytes), " at ",
                     mount.path));
  }
  const int64_t epoch = std::max(highest, input.above_epoch) + 1;
  Say(absl::StrCat("highest epoch heard of: ", highest,
                   "; the index that is put back begins above ", epoch));
  if (input.mounts.empty() && !input.epoch_file.has_value()) {
    Say("note: neither directories nor an epoch file tell what the agents have "
        "heard of: if they refuse the coordinator (STALE_EPOCH), say "
        "--datadirs, or --epoch-above as they name it");
  }
  // Also with --yes alone: what it says is of use afterwards, too.
  const std::string forgotten = DeletesForgottenBy(
      a.from, RealClock()->Now(), LifecycleOptions().tombstone_ttl);
  if (!forgotten.empty()) {
    Say(absl::StrCat("warning: ", forgotten));
  }
  if (!a.yes) {
    Say("nothing was changed: this was a dry run; say --yes to put it back");
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(WriteRestore(a, epoch));
  Say(absl::StrCat(
      "the index at ", a.state_dir,
      "/index is the backup. Next: start the coordinator and the agents; every "
      "mount is listed, and what was stored since is taken in (predella "
      "cluster status says RECOVERING until that is done)"));
  return absl::OkStatus();
}

absl::Status Backups(const Arguments& a) {
  const std::string directory = a.backup_dir.empty()
                                    ? absl::StrCat(a.state_dir, "/backups")
                                    : a.backup_dir;
  ASSIGN_OR_RETURN(const std::vector<v1::IndexBackup> all,
                   ListBackups(directory));
  for (const v1::IndexBackup& one : all) {
    Say(absl::StrCat(one.path(), "  ", FormatSize(one.size_bytes())));
  }
  if (all.empty()) {
    std::fprintf(stderr, "no backups at %s\n", directory.c_str());
  }
  return absl::OkStatus();
}

absl::Status Run(absl::string_view command, const Arguments& a) {
  return command == "rebuild"   ? Rebuild(a)
         : command == "restore" ? Restore(a)
                                : Backups(a);
}

}  // namespace

std::optional<int> RunSubCommand(int argc, const char* const* argv) {
  const absl::string_view command = argc > 1 ? argv[1] : "";
  const bool rebuild = command == "rebuild";
  const bool backups = command == "backups";
  if (!rebuild && !backups && command != "restore") {
    return std::nullopt;
  }
  Arguments a;
  a.state_dir = DefaultStateDir();
  Config config(
      absl::StrCat("predella-coordinator ", command),
      rebuild   ? "Makes the index anew from what the mounts say of "
                  "themselves; predella index rebuild calls it."
      : backups ? "Lists the copies of the index; predella index backups calls "
                  "it."
                : "Puts a copy of the index back; predella index restore calls "
                  "it.",
      "");
  config.Add("state-dir", &a.state_dir, "Directory of the index");
  if (backups) {
    config.Add("backup-dir", &a.backup_dir, "Directory of the copies");
  } else {
    config.Add("descriptions", &a.descriptions,
               "File that predella-agent describe wrote; repeatable");
    config.Add("epoch-above", &a.epoch_above,
               "Begin above this epoch, where a mount that is not given has "
               "heard of a later one");
    config.Add("yes", &a.yes, "Do it; without, only say what would be done");
  }
  if (rebuild) {
    config.Add("cluster-uid", &a.cluster_uid,
               "UUID of the cluster; the labels must agree");
  } else if (!backups) {
    config.Add("from", &a.from, "The copy that is put back");
  }
  std::vector<const char*> rest(argv, argv + argc);
  rest.erase(rest.begin() + 1);
  const absl::StatusOr<Config::Outcome> parsed =
      config.Parse(static_cast<int>(rest.size()), rest.data());
  if (!parsed.ok()) {
    return Fail(absl::InvalidArgumentError(parsed.status().message()));
  }
  if (!parsed->run) {
    return parsed->exit_code;
  }
  if (a.state_dir.empty() || a.state_dir[0] != '/') {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("--state-dir is \"", a.state_dir,
                     "\": it has to be an absolute path")));
  }
  const absl::Status done = Run(command, a);
  return done.ok() ? 0 : Fail(done);
}

}  // namespace predella::server
