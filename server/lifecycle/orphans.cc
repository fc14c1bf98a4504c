#include "server/lifecycle/orphans.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

constexpr absl::Duration kQuarantineTimeout = absl::Seconds(10);
// How long a request waits for the bytes of a file to be read.
constexpr absl::Duration kReadWait = absl::Seconds(7);

std::string GenerationText(const Orphan& orphan) {
  return orphan.record.has_value()
             ? Generation::FromProto(orphan.record->generation()).ToString()
             : std::string();
}

}  // namespace

Orphans::Orphans(const LifecycleDeps& deps, AgentCommands* commands,
                 TrustKeeper* trust, UploadTable* uploads,
                 Tombstones* tombstones, Inventory* inventory, MountGate* gate,
                 Notifier* changed)
    : deps_(deps),
      commands_(commands),
      trust_(trust),
      uploads_(uploads),
      tombstones_(tombstones),
      inventory_(inventory),
      gate_(gate),
      changed_(changed) {}

absl::StatusOr<MountInfo> Orphans::FindMount(const std::string& name) const {
  ASSIGN_OR_RETURN(const std::string bare, ParseMountName(name));
  std::optional<MountInfo> info = deps_.registry->FindByName(bare);
  if (!info.has_value()) {
    return MakeError(absl::StatusCode::kNotFound, reason::kMountNotFound,
                     absl::StrCat("there is no ", MountName(bare)),
                     {{"mount", MountName(bare)}});
  }
  return *std::move(info);
}

v1::Orphan Orphans::ToApi(const Orphan& orphan, const MountInfo& info) const {
  v1::Orphan out;
  out.set_mount(MountName(info.row.mount_name()));
  out.set_image(ImageName(orphan.image_id));
  out.set_generation(GenerationText(orphan));
  out.set_size_bytes(orphan.size_bytes);
  out.set_detail(orphan.detail);
  return out;
}

absl::Status Orphans::AwaitRead(Answer<absl::Status>* outcome,
                                const Orphan& file,
                                absl::string_view then) const {
  const std::optional<absl::Status> read =
      outcome->Await(deps_.clock, kReadWait);
  return read.has_value()
             ? *read
             : MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                         absl::StrCat("the ", file.size_bytes, " bytes of ",
                                      ImageName(file.image_id),
                                      " are still being read: ", then));
}

v1::Orphan Orphans::Adopted(const Found& found) const {
  v1::Orphan out = ToApi(found.orphan, found.info);
  out.clear_detail();  // it says why it was none
  return out;
}

absl::StatusOr<v1::ListOrphansResponse> Orphans::List(
    const v1::ListOrphansRequest& request) {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  const std::string arguments = absl::StrCat("orphans\n", request.mount());
  ASSIGN_OR_RETURN(const std::string last,
                   DecodePageToken(arguments, request.page_token()));
  // The last key: an image's id and the name of its mount.
  const std::string last_mount = last.size() > 16 ? last.substr(16) : "";
  const Uuid last_image = Uuid::FromBytesOrNone(last.substr(0, 16));
  std::vector<MountInfo> mounts;
  if (request.mount().empty()) {
    mounts = deps_.registry->List();
  } else {
    ASSIGN_OR_RETURN(MountInfo info, FindMount(request.mount()));
    mounts.push_back(std::move(info));
  }
  v1::ListOrphansResponse response;
  std::string key;
  for (const MountInfo& info : mounts) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      continue;
    }
    if (!inventory_->WasAudited(uid)) {
      response.add_unlisted(MountName(info.row.mount_name()));
    }
    if (info.row.mount_name() < last_mount ||
        !response.next_page_token().empty()) {
      continue;
    }
    const Uuid after =
        info.row.mount_name() == last_mount ? last_image : Uuid();
    for (const Orphan& orphan :
         inventory_->ListUnnamed(uid, after, page_size + 1)) {
      if (response.orphans_size() >= page_size) {
        response.set_next_page_token(EncodePageToken(arguments, key));
        break;
      }
      *response.add_orphans() = ToApi(orphan, info);
      key = absl::StrCat(orphan.image_id.bytes(), info.row.mount_name());
    }
  }
  return response;
}

absl::StatusOr<Orphans::Found> Orphans::Find(
    const std::string& mount, const std::string& image,
    const std::string& generation) const {
  ASSIGN_OR_RETURN(const MountInfo info, FindMount(mount));
  ASSIGN_OR_RETURN(const Uuid image_id, ParseImageName(image));
  const std::optional<Orphan> orphan = inventory_->FindOrphan(
      Uuid::FromBytesOrNone(info.row.mount_uid()), image_id);
  if (!orphan.has_value()) {
    return MakeError(absl::StatusCode::kNotFound, reason::kImageNotFound,
                     absl::StrCat("no listing of ", mount, " showed ", image,
                                  " as a file that the index does not name; "
                                  "predella index check lists all mounts"),
                     {{"mount", mount}, {"image", image}});
  }
  if (GenerationText(*orphan) != generation) {
    const std::string is = GenerationText(*orphan);
    return MakeError(
        absl::StatusCode::kAborted, reason::kGenerationMismatch,
        absl::StrCat(image, " on ", mount, " is ",
                     is.empty() ? "a file without a record"
                                : absl::StrCat("generation ", is),
                     ", not ",
                     generation.empty() ? "a file without one" : generation),
        {{"generation", is}});
  }
  return Found{info, *orphan};
}

void Orphans::Record(const std::string& kind, const Found& found) {
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind(kind);
  event.set_mount_name(found.info.row.mount_name());
  event.set_image_id(found.orphan.image_id.bytes());
  event.set_detail(found.orphan.detail);
  IndexTxn txn = deps_.index->Begin();
  txn.PutEvent(event);
  LogIfError(deps_.index->Commit(std::move(txn)), "the log has it");
  LogInfo(kind, {{"image", found.orphan.image_id.ToString()},
                 {"mount", found.info.row.mount_name()}});
}

absl::Status Orphans::CheckTouchable(const MountInfo& info) const {
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  const std::string name = MountName(info.row.mount_name());
  if (trust_->recovering()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kRecovering,
                     "in RECOVERING nothing is moved on any mount",
                     {{"mount", name}});
  }
  if (!info.trusted) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kNotReady,
        absl::StrCat(name, " is away or not trusted: nothing on it is moved"),
        {{"mount", name}});
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Orphan> Orphans::Remove(
    const v1::RemoveOrphanRequest& request) {
  ASSIGN_OR_RETURN(const Found found, Find(request.mount(), request.image(),
                                           request.generation()));
  RETURN_IF_ERROR(CheckTouchable(found.info));
  const Uuid mount_uid = found.orphan.mount_uid;
  const Uuid image_id = found.orphan.image_id;
  const Work work(this, image_id);
  if (!work.held()) {
    return Work::Refused(image_id);
  }
  RETURN_IF_ERROR(CheckUnwanted(found.orphan, found.info));
  if (request.validate_only()) {
    return ToApi(found.orphan, found.info);
  }
  control::v1::Command command;
  control::v1::QuarantineFile* file = command.mutable_quarantine_file();
  file->set_image_id(image_id.bytes());
  if (found.orphan.record.has_value()) {
    *file->mutable_generation() = found.orphan.record->generation();
  }
  *file->mutable_heard() = deps_.index->synced_pair().ToProto();
  const absl::Status done =
      commands_->Call(mount_uid, std::move(command), kQuarantineTimeout, {})
          .status();
  if (done.ok() || absl::IsNotFound(done)) {
    LogIfError(inventory_->DropOrphan(mount_uid, image_id),
               "it is named until the mount was listed again");
  }
  RETURN_IF_ERROR(done);
  Record("orphan_quarantined", found);
  return ToApi(found.orphan, found.info);
}

bool Orphans::MayBe(const Orphan& orphan, const storage::v1::ImageRow& row) {
  return row.size_bytes() == orphan.size_bytes &&
         (!orphan.record.has_value() ||
          Generation::FromProto(orphan.record->generation()) ==
              Generation::FromProto(row.generation()));
}

absl::Status Orphans::CheckUnwanted(const Orphan& orphan,
                                    const MountInfo& info) const {
  const std::string image = ImageName(orphan.image_id);
  const std::string mount = MountName(info.row.mount_name());
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(orphan.image_id));
  if (row.has_value() && HoldsCopy(*row, orphan.mount_uid)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kImageExists,
                     absl::StrCat("the index names a copy of ", image, " on ",
                                  mount, " by now"));
  }
  if (row.has_value() && !orphan.refused && MayBe(orphan, *row) &&
      !HasReadableCopy(*row, *deps_.index, *deps_.registry)) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kImageExists,
        absl::StrCat(image,
                     " can not be read where the index names it, and "
                     "this may be the only copy: its row follows when the "
                     "file is whole, at once by predella orphan adopt"));
  }
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(orphan.image_id));
  for (const storage::v1::ConflictRow& conflict : conflicts) {
    if (orphan.record.has_value() &&
        Generation::FromProto(conflict.image().generation()) ==
            Generation::FromProto(orphan.record->generation())) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, reason::kImageConflict,
          absl::StrCat(image,
                       " waits for a choice between generations, of "
                       "which this is one: predella image choose"));
    }
  }
  return absl::OkStatus();
}

Orphans::Work::Work(Orphans* orphans, const Uuid& image_id)
    : orphans_(orphans), image_id_(image_id) {
  MutexLock lock(&orphans_->mu_);
  held_ = orphans_->busy_.insert(image_id_).second;
}

Orphans::Work::~Work() { Release(); }

void Orphans::Work::Release() {
  if (held_) {
    MutexLock lock(&orphans_->mu_);
    orphans_->busy_.erase(image_id_);
    held_ = false;
  }
}

absl::Status Orphans::Work::Refused(const Uuid& image_id) {
  return MakeError(
      absl::StatusCode::kAborted, reason::kCommitConflict,
      absl::StrCat("a file of ", ImageName(image_id),
                   " is being taken in or put away at this moment: look at "
                   "predella orphan ls, and try again"));
}

absl::Status Orphans::CheckFree(const Uuid& image_id,
                                const Generation& generation) {
  RETURN_IF_ERROR(CheckNoConflict(*deps_.index, image_id));
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  const std::string name = ImageName(image_id);
  if (row.has_value()) {
    return MakeError(
        absl::StatusCode::kAlreadyExists, reason::kImageExists,
        absl::StrCat("the index has ", name, " in generation ",
                     Generation::FromProto(row->generation()).ToString()));
  }
  if (tombstones_->Covers(image_id, generation)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kUploadDeleted,
                     absl::StrCat(name, " was deleted"));
  }
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (entry.open()) {
      return MakeError(absl::StatusCode::kAborted, reason::kUploadInProgress,
                       absl::StrCat(name, " is being uploaded"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Orphan> Orphans::Adopt(
    const v1::AdoptOrphanRequest& request) {
  if (request.has_plain()) {
    ASSIGN_OR_RETURN(std::optional<v1::Orphan> taken, TakenIn(request));
    if (taken.has_value()) {
      return *std::move(taken);
    }
  }
  ASSIGN_OR_RETURN(const Found found, Find(request.mount(), request.image(),
                                           request.generation()));
  RETURN_IF_ERROR(CheckTouchable(found.info));
  if (const auto move = MoveOf(found.orphan, /*told=*/true); move.has_value()) {
    return AdoptMoved(found, *move, request.validate_only());
  }
  if (!found.orphan.record.has_value() && request.has_plain()) {
    return AdoptPlain(found, request.plain(), request.validate_only());
  }
  if (!found.orphan.record.has_value()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kReplicaMissing,
        absl::StrCat(request.image(), " on ", request.mount(),
                     " has no record that says what it is: store it again, or "
                     "say that it is what it should be (--read FILE)"));
  }
  const storage::v1::ReplicaRecord& record = *found.orphan.record;
  const Work work(this, found.orphan.image_id);
  if (!work.held()) {
    return Work::Refused(found.orphan.image_id);
  }
  RETURN_IF_ERROR(CheckFree(found.orphan.image_id,
                            Generation::FromProto(record.generation())));
  if (request.validate_only()) {
    return Adopted(found);
  }
  // The listing may be hours old: whether it is there, as its record says.
  control::v1::Command command;
  *command.mutable_adopt_file()->mutable_record() = record;
  *command.mutable_adopt_file()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  RETURN_IF_ERROR(commands_
                      ->Call(found.orphan.mount_uid, std::move(command),
                             kQuarantineTimeout, {})
                      .status());
  RETURN_IF_ERROR(CommitAdoption(found.orphan.mount_uid, record));
  inventory_->ForgetOrphan(found.orphan.mount_uid, found.orphan.image_id);
  Record("orphan_adopted", found);
  return Adopted(found);
}

absl::Status Orphans::CommitAdoption(const Uuid& mount_uid,
                                     const storage::v1::ReplicaRecord& record) {
  // The agent's answer took its time: what speaks against the file now counts,
  // and nothing is published, deleted or taken in between this look and the
  // commit. Before the mount's gate, as everywhere.
  const MountGate::Counting alone(tombstones_->adopting(), Uuid());
  const MountGate::Adding adding(gate_, mount_uid);
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (!info.has_value() || IsRetired(*info)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountRetired,
                     "the mount was retired meanwhile: nothing is taken in "
                     "from it");
  }
  RETURN_IF_ERROR(CheckTouchable(*info));
  RETURN_IF_ERROR(CheckFree(Uuid::FromBytesOrNone(record.image_id()),
                            Generation::FromProto(record.generation())));
  return inventory_->AdoptOrphan(mount_uid, record);
}

}  // namespace predella::server
