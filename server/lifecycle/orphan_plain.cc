// Files without a record, as another store wrote them, made images in their
// place: a part of Orphans.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/digest.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/wait.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/orphans.h"

namespace predella::server {
namespace {

constexpr int kMaxHashes = 8;
constexpr size_t kPlainKeyBytes = 16;

absl::Status BadPlain(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   what);
}

absl::StatusOr<uint32_t> ParseCrc32c(const std::string& hex) {
  uint32_t value = 0;
  if (hex.size() != 8 || !absl::SimpleHexAtoi(hex, &value)) {
    return BadPlain(absl::StrCat("plain.crc32c_hex \"", hex,
                                 "\" is not eight hexadecimal digits"));
  }
  return value;
}

absl::StatusOr<storage::v1::Hash> ToStored(const v1::Hash& hash) {
  storage::v1::Hash stored;
  stored.set_algorithm(hash.algorithm());
  ASSIGN_OR_RETURN(*stored.mutable_value(), FromHex(hash.hex()));
  const std::unique_ptr<Digest> digest = Digest::Make(hash.algorithm());
  if (digest == nullptr || digest->size() != stored.value().size()) {
    return BadPlain(absl::StrCat(
        "\"", hash.algorithm(), "\" is no hash that this service knows, or ",
        stored.value().size(), " bytes are not what it has"));
  }
  return stored;
}

absl::Status CheckPlain(const v1::PlainFile& plain) {
  if (plain.size_bytes() < 0 || plain.hashes_size() > kMaxHashes) {
    return BadPlain(absl::StrCat(
        "plain has ", plain.size_bytes(), " bytes and ", plain.hashes_size(),
        " hashes: not negative, and at most ", kMaxHashes));
  }
  RETURN_IF_ERROR(ParseCrc32c(plain.crc32c_hex()).status());
  for (const v1::Hash& hash : plain.hashes()) {
    RETURN_IF_ERROR(ToStored(hash).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<storage::v1::ReplicaRecord> Orphans::RecordOfPlain(
    const Uuid& image_id, const v1::PlainFile& plain) {
  storage::v1::ReplicaRecord record;
  record.set_image_id(image_id.bytes());
  record.set_upload_id(deps_.ids->NextUuid().bytes());
  record.set_location_key(deps_.ids->RandomBytes(kPlainKeyBytes));
  record.set_size_bytes(plain.size_bytes());
  ASSIGN_OR_RETURN(const uint32_t crc32c, ParseCrc32c(plain.crc32c_hex()));
  record.set_crc32c(crc32c);
  for (const v1::Hash& hash : plain.hashes()) {
    ASSIGN_OR_RETURN(*record.add_hashes(), ToStored(hash));
  }
  record.set_create_time_us(deps_.clock->NowMicros());
  record.set_publish_time_us(record.create_time_us());
  record.mutable_decision()->set_rule(
      "it lay here as a plain file and was adopted");
  record.mutable_decision()->set_decide_time_us(record.create_time_us());
  // No agent hears of a pair whose commit is not synced.
  IndexTxn txn = deps_.index->Begin();
  *record.mutable_generation() = txn.pair().ToProto();
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  return record;
}

absl::StatusOr<std::optional<v1::Orphan>> Orphans::TakenIn(
    const v1::AdoptOrphanRequest& request) {
  ASSIGN_OR_RETURN(const MountInfo info, FindMount(request.mount()));
  ASSIGN_OR_RETURN(const Uuid image_id, ParseImageName(request.image()));
  const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  ASSIGN_OR_RETURN(const uint32_t crc32c,
                   ParseCrc32c(request.plain().crc32c_hex()));
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  if (!row.has_value() || !HoldsCopy(*row, mount_uid) ||
      row->size_bytes() != request.plain().size_bytes() ||
      row->crc32c() != crc32c) {
    return std::optional<v1::Orphan>();
  }
  RETURN_IF_ERROR(CheckTouchable(info));
  ASSIGN_OR_RETURN(v1::Orphan answer,
                   Mend(info, *row, request.validate_only()));
  return std::make_optional(std::move(answer));
}

absl::StatusOr<v1::Orphan> Orphans::AdoptPlain(const Found& found,
                                               const v1::PlainFile& plain,
                                               bool validate_only) {
  const Uuid image_id = found.orphan.image_id;
  const Uuid mount_uid = found.orphan.mount_uid;
  RETURN_IF_ERROR(CheckPlain(plain));
  const auto work = std::make_shared<Work>(this, image_id);
  if (!work->held()) {
    return Work::Refused(image_id);
  }
  // Newer than what was deleted of the id before.
  RETURN_IF_ERROR(CheckFree(image_id, deps_.index->Begin().pair()));
  if (validate_only) {
    return Adopted(found);
  }
  ASSIGN_OR_RETURN(const storage::v1::ReplicaRecord record,
                   RecordOfPlain(image_id, plain));
  const auto outcome = std::make_shared<Answer<absl::Status>>();
  control::v1::Command command;
  *command.mutable_adopt_file()->mutable_record() = record;
  *command.mutable_adopt_file()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  command.mutable_adopt_file()->set_keep_mode_and_group(true);
  // The answer may not block the thread that delivers it.
  commands_->CallAsync(
      mount_uid, std::move(command),
      [this, found, record, work,
       outcome](const absl::StatusOr<control::v1::CommandResult>& result) {
        deps_.pool->Post(
            [this, found, record, work, outcome, looked = result.status()] {
              outcome->Set(FinishPlain(found, record, looked, work.get()));
            });
      });
  RETURN_IF_ERROR(AwaitRead(outcome.get(), found.orphan,
                            "the same request again says what came of it"));
  v1::Orphan answer = Adopted(found);
  answer.set_generation(Generation::FromProto(record.generation()).ToString());
  answer.set_size_bytes(record.size_bytes());
  return answer;
}

absl::Status Orphans::FinishPlain(const Found& found,
                                  const storage::v1::ReplicaRecord& record,
                                  const absl::Status& looked, Work* work) {
  const Uuid mount_uid = found.orphan.mount_uid;
  const absl::Status done =
      looked.ok() ? CommitAdoption(mount_uid, record) : looked;
  if (done.ok()) {
    inventory_->ForgetOrphan(mount_uid, found.orphan.image_id);
    Record("orphan_adopted", found);
  } else {
    LogIfError(done, "the file stays an orphan");
  }
  // Whoever hears of it may ask again at once.
  work->Release();
  return done;
}

}  // namespace predella::server
