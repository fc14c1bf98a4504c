// IndexCheck: uploads, files that were not adopted, and rows of no table.
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/generation.h"
#include "common/status_macros.h"
#include "server/index/index_check.h"
#include "server/index/index_keys.h"

namespace predella::server {
namespace {

constexpr absl::string_view kTables[] = {
    "meta/",           keys::kImages,    keys::kByMount, keys::kUploads,
    keys::kTombstones, keys::kConflicts, keys::kFaults,  keys::kUnadopted,
    keys::kScrubs,     keys::kMounts,    keys::kEvents,  keys::kSequence};
// Longer than any key behind a table's name.
constexpr size_t kPastAnyKey = 128;

// The table of a key; empty: none that is known.
absl::string_view TableOf(absl::string_view key) {
  for (const absl::string_view table : kTables) {
    if (absl::StartsWith(key, table)) {
      return table;
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<bool> IndexCheck::IsAccountedFor(const Uuid& image_id) const {
  // Whichever comes in the place of another is written with its end: looked at
  // in this order, one of them is seen.
  ASSIGN_OR_RETURN(const std::optional<std::string> image,
                   index_->kv_->Get(keys::Image(image_id)));
  if (image.has_value()) {
    return true;
  }
  bool found = false;
  for (const std::string& prefix :
       {keys::ConflictsOf(image_id), keys::TombstonesOf(image_id)}) {
    RETURN_IF_ERROR(index_->kv_->Scan(
        prefix, "", 1, [&found](absl::string_view, absl::string_view) {
          found = true;
          return true;
        }));
  }
  return found;
}

absl::Status IndexCheck::LookAtUpload(absl::string_view key,
                                      absl::string_view value,
                                      Findings* findings) const {
  storage::v1::UploadRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  if (key != keys::Upload(Uuid::FromBytesOrNone(row.upload_id())) ||
      Uuid::FromBytesOrNone(row.image_id()).none()) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  const bool open = row.outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
  const auto add = [&](Finding finding) {
    finding.image_id = Uuid::FromBytesOrNone(row.image_id());
    findings->push_back(std::move(finding));
  };
  for (const storage::v1::UploadTargetRow& target : row.targets()) {
    ASSIGN_OR_RETURN(const bool known, MountIsKnown(target.mount_uid()));
    if (!known) {
      add(RowFinding(
          FindingClass::kErrorRepairable, "UPLOAD_ON_UNKNOWN_MOUNT", key,
          absl::StrCat(open ? "an open upload" : "an upload that ended",
                       " names the mount with the UUID ",
                       Uuid::FromBytesOrNone(target.mount_uid()).ToString(),
                       ", which the index does not know"),
          open ? "predella upload abort, then upload it again"
               : "nothing: it is dropped after --outcome-ttl"));
    }
  }
  if (row.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED) {
    ASSIGN_OR_RETURN(const bool accounted,
                     IsAccountedFor(Uuid::FromBytesOrNone(row.image_id())));
    if (!accounted) {
      add(RowFinding(
          FindingClass::kFatalRepairable, "UPLOAD_WITHOUT_IMAGE", key,
          absl::StrCat("its client was told that generation ",
                       Generation::FromProto(row.generation()).ToString(),
                       " is stored, and there is neither an image nor a "
                       "delete of it"),
          "predella orphan ls: adopt its file where a mount has it; or "
          "predella index rebuild"));
    }
  }
  if (IsAhead(row.generation())) {
    add(RowFinding(
        FindingClass::kFatalRepairable, "GENERATION_AHEAD", key,
        "the upload's generation was not given out yet: another may get it",
        kRebuildStep));
  }
  return absl::OkStatus();
}

absl::Status IndexCheck::LookAtUnadopted(absl::string_view key,
                                         absl::string_view value,
                                         Findings* findings) const {
  storage::v1::ImageRow row;
  if (!ParsedOrFound(key, value, &row, findings)) {
    return absl::OkStatus();
  }
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  if (row.copies_size() != 1 ||
      key != keys::Unadopted(
                 image_id, Uuid::FromBytesOrNone(row.copies(0).mount_uid()))) {
    findings->push_back(MisplacedRow(key));
    return absl::OkStatus();
  }
  return LookAtCopies(row, key, findings);
}

absl::StatusOr<IndexCheck::Page> IndexCheck::CheckUnknown(
    absl::string_view after, int64_t limit) const {
  Page page;
  std::string last(after);
  while (page.rows < limit) {
    std::string key;
    RETURN_IF_ERROR(index_->kv_->Scan(
        "", last, 1, [&key](absl::string_view next, absl::string_view) {
          key = std::string(next);
          return true;
        }));
    if (key.empty()) {
      return page;
    }
    const absl::string_view table = TableOf(key);
    const std::string past =
        absl::StrCat(table, std::string(kPastAnyKey, '\xff'));
    if (!table.empty() && past > key) {
      last = past;
      continue;
    }
    last = key;
    if (!table.empty()) {
      continue;  // a finding of its table
    }
    ++page.rows;
    page.findings.push_back(RowFinding(
        FindingClass::kErrorRepairable, "ROW_UNKNOWN", key,
        "it is of no table that this release knows: a newer one wrote it, or "
        "something else did",
        "use the release that wrote it, or predella index rebuild"));
  }
  page.last = last;
  return page;
}

}  // namespace predella::server
