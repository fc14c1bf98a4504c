#include "client/cli/local_mount.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"

namespace predella::cli {
namespace {

LocalMount Look(const std::string& path) {
  LocalMount facts;
  struct stat info {};
  facts.directory = stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  if (!facts.directory) {
    return facts;
  }
  if (stat(absl::StrCat(path, "/.predella/mount.id").c_str(), &info) == 0) {
    facts.label = LocalMount::Labelled::kYes;
  } else if (errno == ENOENT) {
    facts.label = LocalMount::Labelled::kNo;
  }
  struct statvfs space {};
  facts.read_only = statvfs(path.c_str(), &space) == 0 &&
                    (space.f_flag & static_cast<unsigned long>(ST_RDONLY)) != 0;
  return facts;
}

}  // namespace

LocalMount LookAtMount(const std::string& path, absl::Duration timeout) {
  // Shared with a thread that may outlive this call in the kernel.
  auto promise = std::make_shared<std::promise<LocalMount>>();
  std::future<LocalMount> future = promise->get_future();
  std::thread([promise, path] { promise->set_value(Look(path)); }).detach();
  if (future.wait_for(absl::ToChronoMilliseconds(timeout)) !=
      std::future_status::ready) {
    LocalMount hung;
    hung.answered = false;
    return hung;
  }
  return future.get();
}

}  // namespace predella::cli
