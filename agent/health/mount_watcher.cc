#include "agent/health/mount_watcher.h"

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/errors.h"

namespace predella::agent {
namespace {

// Of a table that changed unseen nobody has heard; a look costs microseconds.
constexpr absl::Duration kLookEvery = absl::Seconds(1);

}  // namespace

MountWatcher::MountWatcher(std::unique_ptr<MountTable> table, std::string path,
                           Seen seen)
    : table_(std::move(table)),
      path_(std::move(path)),
      canonical_(path_),
      seen_(std::move(seen)) {}

void MountWatcher::Run() {
  while (!stopped_.load()) {
    Look();
    table_->Wait(kLookEvery);
  }
}

void MountWatcher::Stop() {
  stopped_.store(true);
  table_->Wake();
  MutexLock lock(&mu_);
  seen_ = nullptr;
}

uint64_t MountWatcher::LookAgain() { return asked_.fetch_add(1) + 1; }

void MountWatcher::Wake() { table_->Wake(); }

void MountWatcher::Look() {
  MountSighting sighting;
  sighting.ticket = asked_.load();
  if (absl::StatusOr<std::string> found = table_->Canonical(path_);
      found.ok()) {
    canonical_ = *std::move(found);
  }
  const absl::StatusOr<std::string> text = table_->Read();
  LogIfError(text.status(), "the mount table is read again in a second");
  if (text.ok()) {
    if (const std::optional<MountEntry> entry =
            MountAt(ParseMountTable(*text), canonical_)) {
      sighting.mount_id = entry->id;
      sighting.what =
          absl::StrCat(entry->type, " ", entry->source, " on ", entry->point);
    }
  }
  MutexLock lock(&mu_);
  if (seen_) {
    seen_(sighting);
  }
}

}  // namespace predella::agent
