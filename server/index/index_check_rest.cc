// IndexCheck: what follows from images, and the counters.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/generation.h"
#include "common/status_macros.h"
#include "server/index/index_check.h"
#include "server/index/index_keys.h"

namespace predella::server {
namespace {

// Counts while commits go on.
constexpr int kCounts = 3;

constexpr char kRestartStep[] =
    "start the coordinator again: it counts anew at its start";

struct Recount {
  ImageTotals before;
  ImageTotals counted;
  ImageTotals after;

  static bool Between(int64_t n, int64_t a, int64_t b) {
    return n >= std::min(a, b) && n <= std::max(a, b);
  }
  bool Agrees() const {
    return Between(counted.count, before.count, after.count) &&
           Between(counted.bytes, before.bytes, after.bytes);
  }
};

std::string Numbers(const ImageTotals& totals) {
  return absl::StrCat(totals.count, " images, ", totals.bytes, " bytes");
}

}  // namespace

absl::Status IndexCheck::LookAtTombstone(absl::string_view key,
                                         absl::string_view value,
                                         Findings* findings) const {
  storage::v1::TombstoneRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  const Generation generation = Generation::FromProto(row.generation());
  if (key != keys::Tombstone(image_id, generation)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  const auto add = [&](Finding finding) {
    finding.image_id = image_id;
    findings->push_back(std::move(finding));
  };
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   ImageOf(image_id));
  if (image.has_value() &&
      !Generation::FromProto(image->generation()).After(generation)) {
    add(RowFinding(
        FindingClass::kFatal, "IMAGE_WAS_DELETED", key,
        absl::StrCat("the image has generation ",
                     Generation::FromProto(image->generation()).ToString(),
                     " and a tombstone of ", generation.ToString(),
                     ", which is not older: its file may be removed"),
        "save it with predella image get, then predella image rm and upload "
        "it again"));
  }
  if (row.settle_time_us() != 0 && row.pending_mount_uids_size() > 0) {
    add(RowFinding(FindingClass::kErrorRepairable, "TOMBSTONE_SETTLED_EARLY",
                   key,
                   absl::StrCat("it is marked as settled, and ",
                                row.pending_mount_uids_size(),
                                " mounts have not confirmed the removal"),
                   kRebuildStep));
  }
  for (const std::string& mount_uid : row.pending_mount_uids()) {
    ASSIGN_OR_RETURN(const bool known, MountIsKnown(mount_uid));
    if (!known) {
      add(RowFinding(
          FindingClass::kErrorRepairable, "TOMBSTONE_ON_UNKNOWN_MOUNT", key,
          absl::StrCat("it waits for the mount with the UUID ",
                       Uuid::FromBytesOrNone(mount_uid).ToString(),
                       ", which the index does not know: it is kept for ever"),
          kRebuildStep));
    }
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtConflict(absl::string_view key,
                                        absl::string_view value,
                                        Findings* findings) const {
  storage::v1::ConflictRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid image_id = Uuid::FromBytesOrNone(row.image().image_id());
  const Generation generation = Generation::FromProto(row.image().generation());
  if (key != keys::Conflict(image_id, generation)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   ImageOf(image_id));
  Finding finding = RowFinding(
      FindingClass::kFatalRepairable, "IMAGE_CONFLICT", key,
      absl::StrCat("generation ", generation.ToString(),
                   " of the image waits for a choice beside ",
                   image.has_value()
                       ? Generation::FromProto(image->generation()).ToString()
                       : "none"),
      absl::StrCat("predella image stat ", image_id.ToString(),
                   " shows both; predella image choose ", image_id.ToString(),
                   " GENERATION --yes keeps one"));
  if (image.has_value() &&
      Generation::FromProto(image->generation()) == generation) {
    finding = RowFinding(FindingClass::kErrorRepairable, "CONFLICT_WITH_ITSELF",
                         key, "the image and its conflict are one generation",
                         finding.next_step);
  }
  finding.image_id = image_id;
  findings->push_back(std::move(finding));
  return LookAtCopies(row.image(), key, findings);
}

absl::Status IndexCheck::LookAtScrub(absl::string_view key,
                                     absl::string_view value,
                                     Findings* findings) const {
  storage::v1::ScrubRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  if (key != keys::Scrub(Uuid::FromBytesOrNone(row.mount_uid()))) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const bool known, MountIsKnown(row.mount_uid()));
  if (!known) {
    findings->push_back(RowFinding(
        FindingClass::kErrorRepairable, "SCRUB_OF_UNKNOWN_MOUNT", key,
        "the state of a scrub is of a mount that the index does not know",
        kRebuildStep));
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtFault(absl::string_view key,
                                     absl::string_view value,
                                     Findings* findings) const {
  storage::v1::FaultRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid mount_uid = Uuid::FromBytesOrNone(row.mount_uid());
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  if (key != keys::Fault(mount_uid, image_id)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   ImageOf(image_id));
  bool here = false;
  bool elsewhere = false;
  if (image.has_value()) {
    for (const storage::v1::CopyRow& copy : image->copies()) {
      const bool same = copy.mount_uid() == row.mount_uid();
      here = here || same;
      elsewhere =
          elsewhere ||
          (!same &&
           !index_->FaultOf(*image, Uuid::FromBytesOrNone(copy.mount_uid()))
                .has_value());
    }
  }
  Finding finding;
  if (!here || Generation::FromProto(image->generation()) !=
                   Generation::FromProto(row.generation())) {
    finding = RowFinding(
        FindingClass::kErrorRepairable, "FAULT_WITHOUT_COPY", key,
        "a fault is written down of a copy that the index does not name: no "
        "answer uses it",
        kRebuildStep);
  } else {
    const bool missing = row.fault() == storage::v1::COPY_FAULT_MISSING;
    finding = RowFinding(
        elsewhere ? FindingClass::kError : FindingClass::kFatal,
        missing ? "COPY_MISSING" : "COPY_DAMAGED", "",
        absl::StrCat(row.detail(), elsewhere
                                       ? "; another copy is not known to be bad"
                                       : "; no other copy is known"),
        missing ? "put the file back from where it went, or make it readable "
                  "where the detail says that it is not; it is found again by "
                  "itself. Where it is there and its record is lost: predella "
                  "orphan adopt MOUNT ID --read PATH/ID. Where it is lost: "
                  "predella image rm, and upload it again"
                : "where the detail says that it can not be read: see to the "
                  "disk first, a whole file may lie there and a delete takes "
                  "it, too; a scrub that reads it whole ends this. Where it is "
                  "lost: predella image rm, and upload it again");
  }
  finding.mount_uid = mount_uid;
  finding.image_id = image_id;
  findings->push_back(std::move(finding));
  return absl::OkStatus();
}

absl::StatusOr<IndexCheck::Page> IndexCheck::CheckMeta() const {
  Page page;
  RETURN_IF_ERROR(index_->kv_->Scan(
      "meta/", "", 0, [&](absl::string_view key, absl::string_view value) {
        ++page.rows;
        if (key == keys::kCluster) {
          storage::v1::ClusterRow row;
          ParsedOrFound(key, value, &row, &page.findings);
        } else if (key == keys::kEpochs) {
          storage::v1::EpochTable row;
          if (ParsedOrFound(key, value, &row, &page.findings) &&
              row.current_epoch() < index_->epoch()) {
            page.findings.push_back(RowFinding(
                FindingClass::kFatalRepairable, "EPOCH_BEHIND", key,
                absl::StrCat("the table of epochs ends at ",
                             row.current_epoch(), ", this start is ",
                             index_->epoch(),
                             ": the next one may give an epoch twice"),
                kRebuildStep));
          }
        } else if (key == keys::kRecovering || key == keys::kRebuilt) {
          storage::v1::RecoveringRow row;
          ParsedOrFound(key, value, &row, &page.findings);
        } else if (key == keys::kClean) {
          storage::v1::CleanMarker row;
          ParsedOrFound(key, value, &row, &page.findings);
        } else {
          page.findings.push_back(RowFinding(
              FindingClass::kErrorRepairable, "ROW_UNKNOWN", key,
              "this release knows no such row: a newer one wrote it, or "
              "something else did",
              "use the release that wrote it, or predella index rebuild"));
        }
        return true;
      }));
  RETURN_IF_ERROR(
      index_->kv_->Scan(keys::kSequence, "", 0,
                        [&](absl::string_view key, absl::string_view value) {
                          ++page.rows;
                          storage::v1::Generation row;
                          ParsedOrFound(key, value, &row, &page.findings);
                          return true;
                        }));
  return page;
}

absl::StatusOr<IndexCheck::Page> IndexCheck::CheckTotals() const {
  Page page;
  const auto recount =
      [&](const std::string& prefix, const Uuid& mount_uid,
          const std::function<bool(absl::string_view, absl::string_view,
                                   int64_t*)>& counts)
      -> absl::StatusOr<Recount> {
    Recount out;
    for (int i = 0; i < kCounts; ++i) {
      const auto kept = [&] {
        return mount_uid.none() ? index_->totals()
                                : index_->mount_totals(mount_uid);
      };
      out = Recount();
      out.before = kept();
      RETURN_IF_ERROR(index_->kv_->Scan(
          prefix, "", 0, [&](absl::string_view key, absl::string_view value) {
            ++page.rows;
            int64_t bytes = 0;
            if (counts(key, value, &bytes)) {
              ++out.counted.count;
              out.counted.bytes += bytes;
            }
            return true;
          }));
      out.after = kept();
      if (out.Agrees()) {
        break;
      }
    }
    return out;
  };
  const auto judge = [&](const Recount& count, const Uuid& mount_uid,
                         absl::string_view what) {
    if (count.Agrees()) {
      return;
    }
    Finding finding = RowFinding(
        FindingClass::kErrorRepairable, "COUNTER_WRONG", "",
        absl::StrCat("the counter of ", what, " has ", Numbers(count.after),
                     ", the rows have ", Numbers(count.counted)),
        kRestartStep);
    finding.mount_uid = mount_uid;
    page.findings.push_back(std::move(finding));
  };
  // A row that can not be parsed is a finding of its own table.
  ASSIGN_OR_RETURN(const Recount all,
                   recount(std::string(keys::kImages), Uuid(),
                           [](absl::string_view key, absl::string_view value,
                              int64_t* bytes) {
                             storage::v1::ImageRow row;
                             const bool ok = ParseRow(key, value, &row).ok();
                             *bytes = row.size_bytes();
                             return ok && row.copies_size() > 0;
                           }));
  judge(all, Uuid(), "all images");
  ASSIGN_OR_RETURN(const std::vector<storage::v1::MountRow> mounts,
                   index_->ListMounts());
  for (const storage::v1::MountRow& mount : mounts) {
    const Uuid uid = Uuid::FromBytesOrNone(mount.mount_uid());
    ASSIGN_OR_RETURN(const Recount one,
                     recount(keys::MountImages(uid), uid,
                             [](absl::string_view key, absl::string_view value,
                                int64_t* bytes) {
                               storage::v1::MountImageRow row;
                               const bool ok = ParseRow(key, value, &row).ok();
                               *bytes = row.size_bytes();
                               return ok;
                             }));
    judge(one, uid, mount.mount_name());
  }
  return page;
}

}  // namespace predella::server
