#include "server/index/index_check.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "common/generation.h"
#include "common/status_macros.h"
#include "server/index/index_keys.h"

namespace predella::server {
namespace {

// Looks at a row that others keep changing.
constexpr int kLooks = 8;
// A page ends at so many findings, so that it fits one message.
constexpr size_t kPageFindings = 1000;

bool HasCopyOn(const storage::v1::ImageRow& row, absl::string_view mount_uid) {
  return std::any_of(row.copies().begin(), row.copies().end(),
                     [&](const storage::v1::CopyRow& copy) {
                       return copy.mount_uid() == mount_uid;
                     });
}

std::string GenerationOf(const storage::v1::ImageRow& row) {
  return Generation::FromProto(row.generation()).ToString();
}

bool SameGeneration(const storage::v1::Generation& a,
                    const storage::v1::Generation& b) {
  return Generation::FromProto(a) == Generation::FromProto(b);
}

}  // namespace

absl::StatusOr<IndexCheck::Page> IndexCheck::Check(IndexSection section,
                                                   absl::string_view after,
                                                   int64_t limit) {
  using Method = absl::Status (IndexCheck::*)(
      absl::string_view, absl::string_view, Findings*) const;
  const auto rows = [&](absl::string_view prefix, Method method) {
    return CheckRows(
        prefix, after, limit,
        [this, method](absl::string_view key, absl::string_view value,
                       Findings* findings) {
          return (this->*method)(key, value, findings);
        });
  };
  switch (section) {
    case IndexSection::kMounts:
      return rows(keys::kMounts, &IndexCheck::LookAtMount);
    case IndexSection::kImages:
      return rows(keys::kImages, &IndexCheck::LookAtImage);
    case IndexSection::kByMount:
      return rows(keys::kByMount, &IndexCheck::LookAtMountImage);
    case IndexSection::kUploads:
      return rows(keys::kUploads, &IndexCheck::LookAtUpload);
    case IndexSection::kTombstones:
      return rows(keys::kTombstones, &IndexCheck::LookAtTombstone);
    case IndexSection::kConflicts:
      return rows(keys::kConflicts, &IndexCheck::LookAtConflict);
    case IndexSection::kScrubs:
      return rows(keys::kScrubs, &IndexCheck::LookAtScrub);
    case IndexSection::kUnadopted:
      return rows(keys::kUnadopted, &IndexCheck::LookAtUnadopted);
    case IndexSection::kUnknown:
      return CheckUnknown(after, limit);
    case IndexSection::kEvents:
      return CheckRows(keys::kEvents, after, limit,
                       [](absl::string_view key, absl::string_view value,
                          Findings* findings) {
                         storage::v1::EventRow row;
                         ParsedOrFound(key, value, &row, findings);
                         return absl::OkStatus();
                       });
    case IndexSection::kMeta:
      return CheckMeta();
    case IndexSection::kTotals:
      return CheckTotals();
    case IndexSection::kFaults:
      return rows(keys::kFaults, &IndexCheck::LookAtFault);
  }
  return absl::InternalError("a section that nobody checks");
}

absl::StatusOr<IndexCheck::Page> IndexCheck::CheckRows(absl::string_view prefix,
                                                       absl::string_view after,
                                                       int64_t limit,
                                                       const Look& look) const {
  // Not looked at inside the scan: what it must agree with is read later.
  std::vector<std::pair<std::string, std::string>> rows;
  RETURN_IF_ERROR(
      index_->kv_->Scan(prefix, after, limit,
                        [&](absl::string_view key, absl::string_view value) {
                          rows.emplace_back(key, value);
                          return true;
                        }));
  Page page;
  for (auto& [key, value] : rows) {
    if (page.findings.size() >= kPageFindings) {
      break;
    }
    ++page.rows;
    for (int i = 0; i < kLooks; ++i) {
      Findings findings;
      RETURN_IF_ERROR(look(key, value, &findings));
      if (findings.empty()) {
        break;
      }
      ASSIGN_OR_RETURN(std::optional<std::string> now, index_->kv_->Get(key));
      if (!now.has_value()) {
        break;
      }
      if (*now == value) {
        std::move(findings.begin(), findings.end(),
                  std::back_inserter(page.findings));
        break;
      }
      value = *std::move(now);
    }
  }
  const bool all = page.rows == static_cast<int64_t>(rows.size());
  if (page.rows > 0 && (!all || page.rows >= limit)) {
    page.last = rows[static_cast<size_t>(page.rows) - 1].first;
  }
  return page;
}

absl::StatusOr<bool> IndexCheck::MountIsKnown(
    absl::string_view mount_uid) const {
  ASSIGN_OR_RETURN(
      const std::optional<std::string> row,
      index_->kv_->Get(keys::Mount(Uuid::FromBytesOrNone(mount_uid))));
  return row.has_value();
}

bool IndexCheck::IsAhead(const storage::v1::Generation& generation) const {
  MutexLock lock(&index_->mu_);
  return generation.epoch() == index_->current_.epoch &&
         generation.nonce() == index_->current_.nonce &&
         generation.n() >= index_->next_n_;
}

absl::StatusOr<std::optional<storage::v1::ImageRow>> IndexCheck::ImageOf(
    const Uuid& image_id) const {
  const std::string key = keys::Image(image_id);
  ASSIGN_OR_RETURN(const std::optional<std::string> value,
                   index_->kv_->Get(key));
  storage::v1::ImageRow row;
  if (!value.has_value() || !ParseRow(key, *value, &row).ok()) {
    return std::optional<storage::v1::ImageRow>();
  }
  return std::make_optional(std::move(row));
}

absl::Status IndexCheck::LookAtMount(absl::string_view key,
                                     absl::string_view value,
                                     Findings* findings) const {
  storage::v1::MountRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid uid = Uuid::FromBytesOrNone(row.mount_uid());
  if (key != keys::Mount(uid)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  if (row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<storage::v1::MountRow> mounts,
                   index_->ListMounts());
  for (const storage::v1::MountRow& other : mounts) {
    if (other.mount_name() == row.mount_name() &&
        other.mount_uid() < row.mount_uid() &&
        other.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
      Finding finding = RowFinding(
          FindingClass::kFatalRepairable, "MOUNT_NAME_TWICE", key,
          absl::StrCat("the name ", row.mount_name(),
                       " is also that of the mount with the UUID ",
                       Uuid::FromBytesOrNone(other.mount_uid()).ToString()),
          kRebuildStep);
      finding.mount_uid = uid;
      findings->push_back(std::move(finding));
    }
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtCopies(const storage::v1::ImageRow& row,
                                      absl::string_view key,
                                      Findings* findings) const {
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  absl::flat_hash_set<std::string> seen;
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(copy.mount_uid());
    ASSIGN_OR_RETURN(const bool known, MountIsKnown(copy.mount_uid()));
    Finding finding;
    if (!known) {
      finding = RowFinding(
          FindingClass::kFatalRepairable, "COPY_ON_UNKNOWN_MOUNT", key,
          absl::StrCat("it names a copy on the mount with the UUID ",
                       mount_uid.ToString(), ", which the index does not know"),
          kRebuildStep);
    } else if (!seen.insert(copy.mount_uid()).second) {
      finding = RowFinding(FindingClass::kErrorRepairable, "COPY_TWICE", key,
                           "it names two copies on one mount", kRebuildStep);
      finding.mount_uid = mount_uid;
    } else {
      continue;
    }
    finding.image_id = image_id;
    findings->push_back(std::move(finding));
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtImage(absl::string_view key,
                                     absl::string_view value,
                                     Findings* findings) const {
  storage::v1::ImageRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  if (key != keys::Image(image_id)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  const auto add = [&](Finding finding) {
    finding.image_id = image_id;
    findings->push_back(std::move(finding));
  };
  if (IsAhead(row.generation())) {
    add(RowFinding(
        FindingClass::kFatalRepairable, "GENERATION_AHEAD", key,
        absl::StrCat("its generation ", GenerationOf(row),
                     " was not given out yet: another image may get it"),
        kRebuildStep));
  }
  if (row.copies().empty()) {
    add(RowFinding(
        FindingClass::kFatal, "IMAGE_WITHOUT_COPY", key,
        "the row names no copy: the image can not be read",
        "predella image rm, or predella index rebuild where a mount may "
        "have its file"));
  }
  RETURN_IF_ERROR(LookAtCopies(row, key, findings));
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const std::string by_mount = keys::MountImage(mount_uid, image_id);
    ASSIGN_OR_RETURN(const std::optional<std::string> other,
                     index_->kv_->Get(by_mount));
    storage::v1::MountImageRow there;
    if (other.has_value() && ParseRow(by_mount, *other, &there).ok() &&
        SameGeneration(there.generation(), row.generation()) &&
        there.size_bytes() == row.size_bytes()) {
      continue;
    }
    Finding finding = RowFinding(
        FindingClass::kFatalRepairable, "COPY_NOT_LISTED", key,
        absl::StrCat(other.has_value()
                         ? "another generation or size of it is listed"
                         : "it is not listed",
                     " among the images of the mount that bears it: what a "
                     "failure of that mount costs is shown wrong"),
        kRebuildStep);
    finding.mount_uid = mount_uid;
    add(std::move(finding));
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtMountImage(absl::string_view key,
                                          absl::string_view value,
                                          Findings* findings) const {
  storage::v1::MountImageRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid mount_uid = keys::MountOfMountImage(key);
  const Uuid image_id = keys::ImageOfMountImage(key);
  if (key != keys::MountImage(mount_uid, image_id)) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   ImageOf(image_id));
  // One that differs is named with its image.
  if (!image.has_value() || !HasCopyOn(*image, mount_uid.bytes())) {
    Finding finding = RowFinding(
        FindingClass::kErrorRepairable, "LISTED_WITHOUT_IMAGE", key,
        "the mount's list has an image that is not there, or not on this "
        "mount: counts and capacity are shown wrong",
        kRebuildStep);
    finding.mount_uid = mount_uid;
    finding.image_id = image_id;
    findings->push_back(std::move(finding));
  }
  return absl::OkStatus();
}

}  // namespace predella::server
