#include "agent/store/tombstone_file.h"

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/layout.h"
#include "agent/store/slot_file.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

using storage::v1::RosterEntry;
using storage::v1::Tombstone;
using storage::v1::TombstoneSlot;

}  // namespace

TombstoneFile::Key TombstoneFile::KeyOf(const Tombstone& t) {
  return {t.image_id(), t.generation().epoch(), t.generation().n(),
          t.generation().nonce()};
}

absl::StatusOr<std::unique_ptr<TombstoneFile>> TombstoneFile::Open(
    FileSystem* fs) {
  ASSIGN_OR_RETURN(auto slots, SlotFile::Open(fs, layout::kTombstones,
                                              layout::kTombstoneSlots,
                                              layout::kTombstoneSlotBytes));
  std::unique_ptr<TombstoneFile> out(new TombstoneFile(std::move(slots)));
  if (!out->content_.ParseFromString(out->slots_->content())) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     "the tombstones can't be parsed although their checksum "
                     "is right: they were written by another version");
  }
  out->Index();
  return out;
}

absl::Status TombstoneFile::Store(const Tombstone& tombstone) {
  if (!keys_.insert(KeyOf(tombstone)).second) {
    return absl::OkStatus();
  }
  // In place: with tens of thousands of them a copy takes longer than the disk.
  *content_.add_tombstones() = tombstone;
  absl::Status status = Write(content_);
  if (!status.ok()) {
    content_.mutable_tombstones()->RemoveLast();
    keys_.erase(KeyOf(tombstone));
  }
  return status;
}

absl::Status TombstoneFile::Drop(absl::Span<const Tombstone> tombstones) {
  absl::flat_hash_set<Key> gone;
  for (const Tombstone& t : tombstones) {
    gone.insert(KeyOf(t));
  }
  TombstoneSlot next;
  *next.mutable_roster() = content_.roster();
  for (const Tombstone& there : content_.tombstones()) {
    if (!gone.contains(KeyOf(there))) {
      *next.add_tombstones() = there;
    }
  }
  if (next.tombstones_size() == content_.tombstones_size()) {
    return absl::OkStatus();
  }
  return Replace(std::move(next));
}

absl::Status TombstoneFile::StoreRoster(absl::Span<const RosterEntry> roster) {
  TombstoneSlot next;
  *next.mutable_tombstones() = content_.tombstones();
  for (const RosterEntry& entry : roster) {
    *next.add_roster() = entry;
  }
  if (next.SerializeAsString() == content_.SerializeAsString()) {
    return absl::OkStatus();
  }
  return Replace(std::move(next));
}

// The content is taken over only when it is durable: what is answered as
// stored is.
absl::Status TombstoneFile::Replace(TombstoneSlot content) {
  RETURN_IF_ERROR(Write(content));
  content_ = std::move(content);
  Index();
  return absl::OkStatus();
}

absl::Status TombstoneFile::Write(const TombstoneSlot& content) {
  RETURN_IF_ERROR(slots_->Write(content.SerializeAsString()));
  return slots_->Sync();
}

void TombstoneFile::Index() {
  keys_.clear();
  for (const Tombstone& there : content_.tombstones()) {
    keys_.insert(KeyOf(there));
  }
}

}  // namespace predella::agent
