#include "client/cli/local_mount.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

#include "client/cli/aside.h"

namespace predella::cli {
namespace {

// System calls only: see LookAside.
void Look(const char* path, const char* label, LocalMount* facts) {
  struct stat info {};
  if (stat(path, &info) != 0) {
    facts->error = errno;
    return;
  }
  facts->directory = S_ISDIR(info.st_mode);
  if (!facts->directory) {
    return;
  }
  if (stat(label, &info) == 0) {
    facts->label = LocalMount::Labelled::kYes;
  } else if (errno == ENOENT) {
    facts->label = LocalMount::Labelled::kNo;
  } else if (errno != EACCES) {
    facts->error = errno;
  }
  struct statvfs space {};
  facts->read_only =
      statvfs(path, &space) == 0 &&
      (space.f_flag & static_cast<unsigned long>(ST_RDONLY)) != 0;
}

}  // namespace

LocalMount LookAtMount(const std::string& path, absl::Duration timeout) {
  const std::string label = absl::StrCat(path, "/.predella/mount.id");
  LocalMount facts;
  const Aside aside = LookAside(
      [&] { Look(path.c_str(), label.c_str(), &facts); }, &facts, timeout);
  facts.answered = aside.answered;
  facts.left = aside.left;
  return facts;
}

}  // namespace predella::cli
