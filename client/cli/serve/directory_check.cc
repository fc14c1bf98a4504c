#include "client/cli/serve/directory_check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/errors.h"
#include <yaml-cpp/yaml.h>

namespace predella::cli {
namespace {

absl::Status Refused(absl::string_view message) {
  return absl::FailedPreconditionError(message);
}

DirectoryFacts LookNow(const std::string& path) {
  DirectoryFacts facts;
  struct stat info {};
  struct stat label {};
  if (stat(path.c_str(), &info) != 0) {
    return facts;
  }
  facts.exists = true;
  facts.directory = S_ISDIR(info.st_mode);
  facts.writable = access(path.c_str(), W_OK | X_OK) == 0;
  facts.read_only =
      !facts.writable && errno == EROFS &&
      stat(absl::StrCat(path, "/.predella/mount.id").c_str(), &label) == 0;
  facts.device = info.st_dev;
  facts.inode = info.st_ino;
  std::error_code error;
  facts.real_path = std::filesystem::canonical(path, error).string();
  return facts;
}

absl::Status JudgeOne(const Datadir& datadir, const DirectoryFacts& facts) {
  if (!facts.exists) {
    return Refused(
        absl::StrCat(datadir.path, " does not exist; mount it, or make it"));
  }
  if (!facts.directory) {
    return Refused(absl::StrCat(datadir.path, " is not a directory"));
  }
  if (!facts.writable && !facts.read_only) {
    return Refused(absl::StrCat(
        datadir.path, " is not writable for the user of this process (uid ",
        geteuid(), ")"));
  }
  return absl::OkStatus();
}

}  // namespace

DirectoryFacts LookAtDirectory(const std::string& path,
                               absl::Duration timeout) {
  // Shared with a thread that may outlive this call in the kernel.
  auto promise = std::make_shared<std::promise<DirectoryFacts>>();
  std::future<DirectoryFacts> future = promise->get_future();
  std::thread([promise, path] { promise->set_value(LookNow(path)); }).detach();
  if (future.wait_for(absl::ToChronoMilliseconds(timeout)) !=
      std::future_status::ready) {
    DirectoryFacts hung;
    hung.answered = false;
    return hung;
  }
  return future.get();
}

absl::StatusOr<DirectoryReport> JudgeDirectories(
    const std::vector<Datadir>& datadirs,
    const std::vector<DirectoryFacts>& facts) {
  DirectoryReport report;
  // By device, in the order of the list.
  std::map<uint64_t, std::vector<std::string>> together;
  for (size_t i = 0; i < datadirs.size(); ++i) {
    if (!facts[i].answered) {
      report.warnings.push_back(
          absl::StrCat(datadirs[i].path,
                       " does not answer; it is served all the same and shown "
                       "as HUNG until it does"));
      continue;
    }
    if (absl::Status status = JudgeOne(datadirs[i], facts[i]); !status.ok()) {
      return status;
    }
    if (facts[i].read_only) {
      report.warnings.push_back(absl::StrCat(
          datadirs[i].path,
          " is mounted read-only (see dmesg): its images can be read, and it "
          "takes new ones once it is remounted"));
    }
    for (size_t j = 0; j < i; ++j) {
      const std::string& a = facts[i].real_path;
      const std::string& b = facts[j].real_path;
      if (!facts[j].answered || facts[i].device != facts[j].device) {
        continue;
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
    }
    together[facts[i].device].push_back(datadirs[i].path);
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
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return std::nullopt;
  }
  struct stat info {};
  const bool free = flock(fd, LOCK_EX | LOCK_NB) == 0;
  const bool known = fstat(fd, &info) == 0;
  close(fd);
  if (free) {
    return std::nullopt;
  }
  if (!known) {
    return 0;
  }
  // "1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF"
  const std::string inode = absl::StrCat(":", info.st_ino);
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
  const auto mismatch = [](absl::string_view message) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kClusterMismatch, message);
  };
  const LabelledDirectory* first = nullptr;
  for (const LabelledDirectory& directory : directories) {
    if (!directory.label.has_value()) {
      continue;
    }
    const Label& label = *directory.label;
    const std::string& path = directory.datadir.path;
    if (!label.name.empty() && label.name != directory.datadir.name) {
      return mismatch(absl::StrCat(path, " bears the name \"", label.name,
                                   "\", not \"", directory.datadir.name,
                                   "\"; write ", label.name, "=", path, ":",
                                   directory.datadir.priority));
    }
    if (label.cluster_uid.empty()) {
      continue;
    }
    if (!index_exists) {
      return mismatch(absl::StrCat(
          path, " belongs to the cluster ", label.cluster_uid,
          ", but the state directory ", state_dir,
          " holds no index: start with the --state-dir that belongs to that "
          "cluster; if the index is lost, predella index rebuild makes it anew "
          "from the directories"));
    }
    if (!cluster_uid.empty() && label.cluster_uid != cluster_uid) {
      return mismatch(absl::StrCat(
          path, " belongs to the cluster ", label.cluster_uid, ", but ",
          state_dir, " is the state directory of ", cluster_uid,
          ": start with the --state-dir that belongs to it, or take the "
          "directory out"));
    }
    if (first != nullptr && first->label->cluster_uid != label.cluster_uid) {
      return mismatch(
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
