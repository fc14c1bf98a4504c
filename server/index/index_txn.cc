// IndexTxn: rows to keys.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/index_keys.h"
#include "server/index/placement_index.h"

namespace predella::server {
namespace {

std::string UploadKey(const storage::v1::UploadRow& row) {
  return keys::Upload(Uuid::FromBytesOrNone(row.upload_id()));
}

std::string ConflictKey(const storage::v1::ConflictRow& row) {
  return keys::Conflict(Uuid::FromBytesOrNone(row.image().image_id()),
                        Generation::FromProto(row.image().generation()));
}

std::string MountKey(const storage::v1::MountRow& row) {
  return keys::Mount(Uuid::FromBytesOrNone(row.mount_uid()));
}

std::string TombstoneKey(const storage::v1::TombstoneRow& row) {
  return keys::Tombstone(Uuid::FromBytesOrNone(row.image_id()),
                         Generation::FromProto(row.generation()));
}

}  // namespace

IndexTxn::ImageChange* IndexTxn::Change(absl::string_view image_id) {
  const Uuid id = Uuid::FromBytesOrNone(image_id);
  for (ImageChange& change : images_) {
    if (change.id == id) {
      return &change;
    }
  }
  images_.emplace_back();
  images_.back().id = id;
  return &images_.back();
}

void IndexTxn::Require(std::string key, std::optional<std::string> value) {
  kv_.conditions.push_back({std::move(key), std::move(value)});
}

void IndexTxn::Put(std::string key, std::string value) {
  for (auto& [present, bytes] : kv_.puts) {
    if (present == key) {
      bytes = std::move(value);
      return;
    }
  }
  kv_.puts.emplace_back(std::move(key), std::move(value));
}

void IndexTxn::Delete(std::string key) {
  kv_.puts.erase(
      std::remove_if(kv_.puts.begin(), kv_.puts.end(),
                     [&](const auto& put) { return put.first == key; }),
      kv_.puts.end());
  kv_.deletes.push_back(std::move(key));
}

void IndexTxn::RequireNoImage(const Uuid& image_id) {
  Change(image_id.bytes())->required_none = true;
  Require(keys::Image(image_id), std::nullopt);
}

void IndexTxn::RequireImage(const storage::v1::ImageRow& row) {
  ImageChange* const change = Change(row.image_id());
  change->old = row;
  Require(keys::Image(change->id), SerializeRow(row));
}

void IndexTxn::RequireNoUpload(const Uuid& upload_id) {
  Require(keys::Upload(upload_id), std::nullopt);
}

void IndexTxn::RequireUpload(const storage::v1::UploadRow& row) {
  Require(UploadKey(row), SerializeRow(row));
}

void IndexTxn::RequireMount(const storage::v1::MountRow& row) {
  Require(MountKey(row), SerializeRow(row));
}

void IndexTxn::RequireNoMount(const Uuid& mount_uid) {
  Require(keys::Mount(mount_uid), std::nullopt);
}

void IndexTxn::RequireTombstone(const storage::v1::TombstoneRow& row) {
  Require(TombstoneKey(row), SerializeRow(row));
}

void IndexTxn::PutImage(const storage::v1::ImageRow& row) {
  Change(row.image_id())->put = row;
}

void IndexTxn::DeleteImage(const storage::v1::ImageRow& row) {
  ImageChange* const change = Change(row.image_id());
  change->old = row;
  change->deleted = true;
  change->put.reset();
  Require(keys::Image(change->id), SerializeRow(row));
}

void IndexTxn::PutUpload(const storage::v1::UploadRow& row) {
  Put(UploadKey(row), SerializeRow(row));
}

void IndexTxn::DeleteUpload(const storage::v1::UploadRow& row) {
  Delete(UploadKey(row));
}

void IndexTxn::PutTombstone(const storage::v1::TombstoneRow& row) {
  Put(TombstoneKey(row), SerializeRow(row));
}

void IndexTxn::DeleteTombstone(const storage::v1::TombstoneRow& row) {
  Delete(TombstoneKey(row));
}

void IndexTxn::PutConflict(const storage::v1::ConflictRow& row) {
  Put(ConflictKey(row), SerializeRow(row));
  puts_conflict_ = true;
}

void IndexTxn::DeleteConflict(const storage::v1::ConflictRow& row) {
  Delete(ConflictKey(row));
}

void IndexTxn::RequireConflict(const storage::v1::ConflictRow& row) {
  Require(ConflictKey(row), SerializeRow(row));
}

void IndexTxn::PutFault(const storage::v1::FaultRow& row) {
  const Uuid mount = Uuid::FromBytesOrNone(row.mount_uid());
  const Uuid image = Uuid::FromBytesOrNone(row.image_id());
  Put(keys::Fault(mount, image), SerializeRow(row));
  faults_.push_back({mount, image, row});
}

void IndexTxn::DeleteFault(const Uuid& mount_uid, const Uuid& image_id) {
  Delete(keys::Fault(mount_uid, image_id));
  faults_.push_back({mount_uid, image_id, std::nullopt});
}

void IndexTxn::PutUnadopted(const storage::v1::ImageRow& file) {
  Put(keys::Unadopted(Uuid::FromBytesOrNone(file.image_id()),
                      Uuid::FromBytesOrNone(file.copies(0).mount_uid())),
      SerializeRow(file));
}

void IndexTxn::DeleteUnadopted(const Uuid& image_id, const Uuid& mount_uid) {
  Delete(keys::Unadopted(image_id, mount_uid));
}

void IndexTxn::PutMount(const storage::v1::MountRow& row) {
  Put(MountKey(row), SerializeRow(row));
}

void IndexTxn::PutScrub(const storage::v1::ScrubRow& row) {
  Put(keys::Scrub(Uuid::FromBytesOrNone(row.mount_uid())), SerializeRow(row));
}

void IndexTxn::PutEvent(const storage::v1::EventRow& row) {
  events_.push_back(row);  // its key is made of the pair the commit takes
}

void IndexTxn::PutRecovering(const storage::v1::RecoveringRow& row) {
  Put(std::string(keys::kRecovering), SerializeRow(row));
}

void IndexTxn::DeleteRecovering() { Delete(std::string(keys::kRecovering)); }

void IndexTxn::AddTotals(const storage::v1::ImageRow& row, int sign) {
  if (row.copies_size() == 0) {
    return;
  }
  const Generation generation = Generation::FromProto(row.generation());
  totals_.push_back({Uuid(), sign, sign * row.size_bytes(), generation});
  for (const storage::v1::CopyRow& copy : row.copies()) {
    totals_.push_back({Uuid::FromBytesOrNone(copy.mount_uid()), sign,
                       sign * row.size_bytes(), generation});
  }
}

void IndexTxn::Resolve(const ImageChange& change) {
  if (change.old.has_value()) {
    for (const storage::v1::CopyRow& copy : change.old->copies()) {
      Delete(
          keys::MountImage(Uuid::FromBytesOrNone(copy.mount_uid()), change.id));
    }
    AddTotals(*change.old, -1);
  }
  if (!change.put.has_value()) {
    Delete(keys::Image(change.id));
    return;
  }
  Put(keys::Image(change.id), SerializeRow(*change.put));
  storage::v1::MountImageRow by_mount;
  *by_mount.mutable_generation() = change.put->generation();
  by_mount.set_size_bytes(change.put->size_bytes());
  for (const storage::v1::CopyRow& copy : change.put->copies()) {
    Put(keys::MountImage(Uuid::FromBytesOrNone(copy.mount_uid()), change.id),
        SerializeRow(by_mount));
  }
  AddTotals(*change.put, 1);
}

}  // namespace predella::server
