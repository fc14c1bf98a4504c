#include "client/cli/serve/directory_check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "client/cli/aside.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include <yaml-cpp/yaml.h>

namespace predella::cli {
namespace {

constexpr absl::Duration kLockTimeout = absl::Seconds(5);

absl::Status Refused(absl::string_view message) {
  return absl::FailedPreconditionError(message);
}

absl::Status Mismatch(absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kClusterMismatch, message);
}

// What a look found, without strings: it is made in a child (see LookAside).
struct RawFacts {
  int error;
  bool exists;
  bool directory;
  bool writable;
  bool read_only;
  uint64_t device;
  uint64_t inode;
  char real_path[PATH_MAX];
};

void LookNow(const char* path, const char* label, RawFacts* found) {
  struct stat info {};
  struct stat label_info {};
  const int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &info) != 0) {
    found->error = errno;
    return;
  }
  found->exists = true;
  found->directory = S_ISDIR(info.st_mode);
  found->device = info.st_dev;
  found->inode = info.st_ino;
  if (access(path, W_OK | X_OK) == 0) {
    found->writable = true;
  } else {
    found->error = errno;
    found->read_only = errno == EROFS && stat(label, &label_info) == 0;
  }
  // realpath may allocate. The descriptor is the first after the pipe's.
  char link[] = "/proc/self/fd/0";
  link[sizeof(link) - 2] = static_cast<char>('0' + fd);
  if (fd > 9 ||
      readlink(link, found->real_path, sizeof(found->real_path) - 1) < 0) {
    found->real_path[0] = '\0';
  }
}

// What is wrong with it; empty for nothing.
std::string WhatIsWrong(const Datadir& datadir, const DirectoryFacts& facts) {
  const std::string why = std::generic_category().message(facts.error);
  if (!facts.exists) {
    return facts.error == ENOENT
               ? absl::StrCat(datadir.path, " does not exist")
               : absl::StrCat(datadir.path, " cannot be looked at: ", why);
  }
  if (!facts.directory) {
    return absl::StrCat(datadir.path, " is not a directory");
  }
  if (facts.writable || facts.read_only) {
    return "";
  }
  return absl::StrCat(datadir.path,
                      " is not writable for the user of this process (uid ",
                      geteuid(), "): ", why);
}

// FAILED_PRECONDITION for two that are one, or one in the other.
absl::Status CheckApart(const std::vector<Datadir>& datadirs,
                        const std::vector<DirectoryFacts>& facts, size_t i,
                        size_t j) {
  const std::string& a = facts[i].real_path;
  const std::string& b = facts[j].real_path;
  if (!facts[i].exists || !facts[j].exists ||
      facts[i].device != facts[j].device) {
    return absl::OkStatus();
  }
  if (facts[i].inode == facts[j].inode) {
    return Refused(absl::StrCat(datadirs[i].path, " and ", datadirs[j].path,
                                " are the same directory"));
  }
  if (IsInside(a, b) || IsInside(b, a)) {
    return Refused(absl::StrCat(datadirs[IsInside(a, b) ? i : j].path,
                                " lies inside ",
                                datadirs[IsInside(a, b) ? j : i].path,
                                "; one directory cannot hold another"));
  }
  return absl::OkStatus();
}

absl::Status CheckNoCopies(const std::vector<LabelledDirectory>& directories) {
  std::map<std::string, std::string> paths;  // by uid
  for (const LabelledDirectory& directory : directories) {
    if (!directory.label.has_value() || directory.label->mount_uid.empty()) {
      continue;
    }
    const std::string& uid = directory.label->mount_uid;
    const auto [other, fresh] = paths.try_emplace(uid, directory.datadir.path);
    if (!fresh) {
      return Refused(absl::StrCat(
          other->second, " and ", directory.datadir.path,
          " both bear the label of mount ", directory.label->name, " (", uid,
          "): one is a copy of the other; take the copy out"));
    }
  }
  return absl::OkStatus();
}

// Adds to the report what is to be said of one.
absl::Status JudgeOne(const Datadir& datadir, const DirectoryFacts& facts,
                      bool known, DirectoryReport* report) {
  if (!facts.answered) {
    report->away.insert(datadir.name);
    report->warnings.push_back(
        absl::StrCat(datadir.path,
                     " does not answer; it is served all the same and shown "
                     "as HUNG until it does"));
    return absl::OkStatus();
  }
  const std::string wrong = WhatIsWrong(datadir, facts);
  if (!wrong.empty() && !known) {
    return Refused(absl::StrCat(wrong, facts.exists || facts.error != ENOENT
                                           ? ""
                                           : "; mount it, or make it"));
  }
  if (!wrong.empty()) {
    if (!facts.exists || !facts.directory) {
      report->away.insert(datadir.name);
    }
    report->warnings.push_back(
        absl::StrCat(wrong, "; mount ", datadir.name,
                     " was served from it, and takes part as soon as it is "
                     "well"));
  } else if (facts.read_only) {
    report->warnings.push_back(absl::StrCat(
        datadir.path,
        " is mounted read-only (see dmesg): its images can be read, and it "
        "takes new ones once it is remounted"));
  }
  return absl::OkStatus();
}

}  // namespace

DirectoryFacts LookAtDirectory(const std::string& path,
                               absl::Duration timeout) {
  const std::string label = absl::StrCat(path, "/.predella/mount.id");
  RawFacts found{};
  const Aside aside = LookAside(
      [&] { LookNow(path.c_str(), label.c_str(), &found); }, &found, timeout);
  DirectoryFacts facts;
  facts.answered = aside.answered;
  facts.error = found.error;
  facts.exists = found.exists;
  facts.directory = found.directory;
  facts.writable = found.writable;
  facts.read_only = found.read_only;
  facts.device = found.device;
  facts.inode = found.inode;
  facts.real_path = found.real_path;
  return facts;
}

absl::StatusOr<DirectoryReport> JudgeDirectories(
    const std::vector<Datadir>& datadirs,
    const std::vector<DirectoryFacts>& facts,
    const std::set<std::string>& known) {
  DirectoryReport report;
  // By device, in the order of the list.
  std::map<uint64_t, std::vector<std::string>> together;
  for (size_t i = 0; i < datadirs.size(); ++i) {
    RETURN_IF_ERROR(JudgeOne(datadirs[i], facts[i],
                             known.count(datadirs[i].name) > 0, &report));
    for (size_t j = 0; j < i; ++j) {
      RETURN_IF_ERROR(CheckApart(datadirs, facts, i, j));
    }
    if (report.away.count(datadirs[i].name) == 0) {
      together[facts[i].device].push_back(datadirs[i].path);
    }
  }
  for (const auto& [device, paths] : together) {
    if (paths.size() > 1) {
      report.warnings.push_back(absl::StrCat(
          absl::StrJoin(paths, ", "),
          " are on one file system: its space is counted once, and they fail "
          "together"));
    }
  }
  return report;
}

std::optional<int64_t> LockHolder(const std::string& path) {
  struct {
    bool held;
    bool known;
    uint64_t inode;
  } found{};
  // The lock that shows that nobody has it ends with the child.
  LookAside(
      [&] {
        struct stat info {};
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        found.held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 &&
                     errno == EWOULDBLOCK;
        found.known = fd >= 0 && fstat(fd, &info) == 0;
        found.inode = info.st_ino;
      },
      &found, kLockTimeout);
  if (!found.held) {
    return std::nullopt;
  }
  if (!found.known) {
    return 0;
  }
  // "1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF"
  const std::string inode = absl::StrCat(":", found.inode);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    const std::vector<std::string> words =
        absl::StrSplit(line, ' ', absl::SkipWhitespace());
    int64_t pid = 0;
    if (words.size() > 5 && words[1] == "FLOCK" &&
        words[5].size() > inode.size() &&
        words[5].compare(words[5].size() - inode.size(), inode.size(), inode) ==
            0 &&
        absl::SimpleAtoi(words[4], &pid)) {
      return pid;
    }
  }
  return 0;
}

absl::StatusOr<Label> ParseLabel(const std::string& json) {
  // JSON is YAML.
  try {
    const YAML::Node root = YAML::Load(json);
    Label label;
    label.name = root["name"].as<std::string>("");
    label.mount_uid = root["mount_uid"].as<std::string>("");
    label.cluster_uid = root["cluster_uid"].as<std::string>("");
    if (!label.mount_uid.empty()) {
      return label;
    }
  } catch (const YAML::Exception&) {
    // The same as a label without a uid.
  }
  return absl::InternalError(
      absl::StrCat("predella-agent printed what is not a label: ", json));
}

absl::Status CheckLabels(const std::vector<LabelledDirectory>& directories,
                         const std::string& state_dir,
                         const std::string& cluster_uid, bool index_exists) {
  RETURN_IF_ERROR(CheckNoCopies(directories));
  const LabelledDirectory* first = nullptr;
  for (const LabelledDirectory& directory : directories) {
    if (!directory.label.has_value()) {
      continue;
    }
    const Label& label = *directory.label;
    const std::string& path = directory.datadir.path;
    if (!label.name.empty() && label.name != directory.datadir.name) {
      return Mismatch(absl::StrCat(path, " bears the name \"", label.name,
                                   "\", not \"", directory.datadir.name,
                                   "\"; write ", label.name, "=", path, ":",
                                   directory.datadir.priority));
    }
    if (label.cluster_uid.empty()) {
      continue;
    }
    if (!index_exists) {
      return Mismatch(absl::StrCat(
          path, " belongs to the cluster ", label.cluster_uid,
          ", but the state directory ", state_dir,
          " holds no index: start with the --state-dir that belongs to that "
          "cluster; if the index is lost, predella index rebuild makes it anew "
          "from the directories"));
    }
    if (!cluster_uid.empty() && label.cluster_uid != cluster_uid) {
      return Mismatch(absl::StrCat(
          path, " belongs to the cluster ", label.cluster_uid, ", but ",
          state_dir, " is the state directory of ", cluster_uid,
          ": start with the --state-dir that belongs to it, or take the "
          "directory out"));
    }
    if (first != nullptr && first->label->cluster_uid != label.cluster_uid) {
      return Mismatch(
          absl::StrCat(first->datadir.path, " belongs to the cluster ",
                       first->label->cluster_uid, ", ", path, " to ",
                       label.cluster_uid, ": one serve is one cluster"));
    }
    first = &directory;
  }
  return absl::OkStatus();
}

int64_t CountEntries(const std::string& path) {
  int64_t count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end;
       !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    count += name == "lost+found" || name == ".predella" ? 0 : 1;
  }
  return count;
}

}  // namespace predella::cli
