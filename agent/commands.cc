#include "agent/commands.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "agent/fs/posix_file_system.h"
#include "agent/store/describe.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/config/config.h"
#include "common/ids.h"
#include "common/mount_description.h"
#include "common/resource_name.h"

namespace predella::agent {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "predella-agent: %s\n",
               std::string(status.message()).c_str());
  // The numbers of the exit codes of `predella`: docs/api.md.
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 5;
    default:
      return 1;
  }
}

std::string UidOrEmpty(const std::string& bytes) {
  return bytes.empty() ? "" : Uuid::FromBytesOrNone(bytes).ToString();
}

// Names are of a set that needs no escapes.
void PrintLabel(const storage::v1::MountLabel& label) {
  std::printf(
      "%s\n",
      absl::StrCat("{\"name\":\"", label.mount_name(), "\",\"mount_uid\":\"",
                   UidOrEmpty(label.mount_uid()), "\",\"cluster_uid\":\"",
                   UidOrEmpty(label.cluster_uid()), "\"}")
          .c_str());
}

std::string LastPart(absl::string_view path) {
  while (path.size() > 1 && absl::ConsumeSuffix(&path, "/")) {
  }
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path
                                                      : path.substr(slash + 1));
}

absl::StatusOr<storage::v1::MountLabel> Init(FileSystem* fs,
                                             const std::string& path,
                                             std::string name, InitInto into) {
  if (name.empty()) {
    name = LastPart(path);
  }
  const absl::Status valid = ValidateMountName(name);
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(valid.message(), "; give one with --name"));
  }
  return InitMount(fs, RealClock(), RandomIds(), name, into);
}

}  // namespace

std::optional<int> RunSubCommand(int argc, const char* const* argv) {
  const absl::string_view command = argc > 1 ? argv[1] : "";
  if (command != "init" && command != "label" && command != "describe") {
    return std::nullopt;
  }
  const bool init = command == "init";
  const bool describe = command == "describe";
  std::string path;
  std::string name;
  bool with_images = false;
  Config config(absl::StrCat("predella-agent ", command),
                init       ? "Labels an empty directory as a mount of Predella."
                : describe ? "Prints what a mount knows of its cluster, for "
                             "predella index rebuild --descriptions; reads "
                             "only."
                           : "Prints the label of a directory.",
                "");
  config.Add("path", &path, "The directory");
  if (init) {
    config.Add("name", &name,
               "Name of the mount; default: the directory's last part");
    config.Add("with-images", &with_images,
               "The directory may hold files of Glance's own store; they stay");
  }
  std::vector<const char*> rest(argv, argv + argc);
  rest.erase(rest.begin() + 1);
  const absl::StatusOr<Config::Outcome> parsed =
      config.Parse(static_cast<int>(rest.size()), rest.data());
  if (!parsed.ok()) {
    std::fprintf(stderr, "predella-agent: %s\n",
                 std::string(parsed.status().message()).c_str());
    return 2;
  }
  if (!parsed->run) {
    return parsed->exit_code;
  }
  if (path.empty()) {
    std::fprintf(stderr, "predella-agent: --path DIR is needed\n");
    return 2;
  }
  absl::StatusOr<std::unique_ptr<FileSystem>> fs = PosixFileSystem::Open(path);
  if (!fs.ok()) {
    std::fprintf(stderr, "predella-agent: %s\n",
                 std::string(fs.status().message()).c_str());
    return 1;
  }
  if (describe) {
    const absl::StatusOr<MountDescription> description =
        DescribeMount(fs->get());
    if (!description.ok()) {
      return Fail(description.status());
    }
    std::fputs(EncodeDescription(*description).c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  absl::StatusOr<storage::v1::MountLabel> label =
      init ? Init(fs->get(), path, std::move(name),
                  with_images ? InitInto::kImages : InitInto::kEmpty)
           : ReadLabel(fs->get());
  if (!label.ok()) {
    return Fail(label.status());
  }
  PrintLabel(*label);
  return 0;
}

}  // namespace predella::agent
