#include "server/lifecycle/index_audit.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

constexpr int64_t kMostRows = 10'000;
// So that a page of them fits one message.
constexpr int64_t kMostOrphans = 1000;

bool MayBeListed(const MountInfo& info) {
  return info.attached && info.trusted && !info.row.unconfirmed() &&
         !IsRetired(info) && !CountsAsDegraded(info.health);
}

std::string CheckArguments(const v1::CheckIndexRequest& request) {
  return absl::StrCat("check\n", request.index_only() ? "index" : "all");
}

// In the order of the uids: it does not change while a check runs.
std::vector<MountInfo> InOrder(std::vector<MountInfo> mounts) {
  std::sort(mounts.begin(), mounts.end(),
            [](const MountInfo& a, const MountInfo& b) {
              return a.row.mount_uid() < b.row.mount_uid();
            });
  return mounts;
}

}  // namespace

std::string IndexAudit::Encode(const v1::CheckIndexRequest& request,
                               const Position& position) const {
  return EncodePageToken(
      CheckArguments(request),
      absl::StrCat(deps_.index->epoch(), "-", deps_.index->epoch_nonce(), "/",
                   static_cast<int>(position.phase), "/",
                   static_cast<int>(position.section), "/", position.after, "/",
                   position.last));
}

absl::StatusOr<IndexAudit::Position> IndexAudit::Decode(
    const v1::CheckIndexRequest& request) {
  ASSIGN_OR_RETURN(
      const std::string token,
      DecodePageToken(CheckArguments(request), request.page_token()));
  Position position;
  if (token.empty()) {
    if (!request.index_only()) {
      position.after = inventory_->ListAllAgain();
    }
    return position;
  }
  // Its checksum held: what is in it was written by Encode.
  const std::vector<std::string> parts =
      absl::StrSplit(token, absl::MaxSplits('/', 4));
  int phase = 0;
  int section = 0;
  if (parts.size() != 5 || !absl::SimpleAtoi(parts[1], &phase) ||
      !absl::SimpleAtoi(parts[2], &section) ||
      !absl::SimpleAtoi(parts[3], &position.after) || phase < 0 ||
      phase > static_cast<int>(Position::Phase::kMounts) || section < 0 ||
      section > static_cast<int>(IndexSection::kFaults)) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     "page_token is not from a check of the index");
  }
  if (parts[0] !=
      absl::StrCat(deps_.index->epoch(), "-", deps_.index->epoch_nonce())) {
    return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                     "the coordinator started again since the check began: "
                     "begin it anew");
  }
  position.phase = static_cast<Position::Phase>(phase);
  position.section = static_cast<IndexSection>(section);
  position.last = parts[4];
  return position;
}

absl::StatusOr<v1::CheckIndexResponse> IndexAudit::Check(
    const v1::CheckIndexRequest& request) {
  if (request.page_size() < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     absl::StrCat("page_size is ", request.page_size(),
                                  ": it cannot be negative"));
  }
  const int64_t limit = request.page_size() == 0
                            ? kMostRows
                            : std::min<int64_t>(request.page_size(), kMostRows);
  ASSIGN_OR_RETURN(Position position, Decode(request));
  v1::CheckIndexResponse response;
  bool done = false;
  switch (position.phase) {
    case Position::Phase::kTables:
      RETURN_IF_ERROR(CheckTables(limit, &position, &response, &done));
      if (done) {
        done = false;
        position.phase = request.index_only() ? Position::Phase::kFaults
                                              : Position::Phase::kListings;
        position.section = IndexSection::kFaults;
      }
      break;
    case Position::Phase::kListings:
      AwaitListings(position, &response);
      if (response.awaited().empty()) {
        position.phase = Position::Phase::kFaults;
      }
      break;
    case Position::Phase::kFaults:
      RETURN_IF_ERROR(CheckTables(limit, &position, &response, &done));
      if (done && !request.index_only()) {
        done = false;
        position.phase = Position::Phase::kMounts;
      }
      break;
    case Position::Phase::kMounts:
      RETURN_IF_ERROR(CheckMount(limit, &position, &response, &done));
      break;
  }
  if (!done) {
    response.set_next_page_token(Encode(request, position));
  }
  return response;
}

absl::Status IndexAudit::CheckTables(int64_t limit, Position* position,
                                     v1::CheckIndexResponse* response,
                                     bool* done) {
  IndexCheck check(deps_.index);
  ASSIGN_OR_RETURN(const IndexCheck::Page page,
                   check.Check(position->section, position->last, limit));
  for (const Finding& finding : page.findings) {
    Add(finding, response);
  }
  response->set_row_count(page.rows);
  position->last = page.last;
  if (!page.last.empty()) {
    return absl::OkStatus();
  }
  // Faults come when the listings have been taken in.
  const int next = static_cast<int>(position->section) + 1;
  *done = next >= static_cast<int>(IndexSection::kFaults);
  if (!*done) {
    position->section = static_cast<IndexSection>(next);
  }
  return absl::OkStatus();
}

std::string IndexAudit::WhyNot(const MountInfo& info, int64_t after) const {
  if (trust_->recovering()) {
    return "the cluster is RECOVERING: every mount is being listed, and the "
           "index is not one to judge by";
  }
  if (const std::string error = deps_.index->write_error(); !error.empty()) {
    return absl::StrCat("nothing is listed while the index takes no writes: ",
                        error);
  }
  if (info.row.unconfirmed()) {
    return "it is UNCONFIRMED";
  }
  if (CountsAsDegraded(info.health)) {
    return absl::StrCat(
        "it is ", absl::StripPrefix(v1::Health_Name(info.health), "HEALTH_"),
        info.health_detail.empty() ? "" : ": ", info.health_detail);
  }
  if (!info.attached) {
    return "its agent is not connected";
  }
  if (!info.trusted) {
    return "it is not trusted: it knows more than the index";
  }
  const Inventory::Relisted listed = inventory_->RelistedSince(
      Uuid::FromBytesOrNone(info.row.mount_uid()), after);
  return listed.error.ok()
             ? std::string()
             : absl::StrCat("its listing failed: ", listed.error.message());
}

void IndexAudit::AwaitListings(const Position& position,
                               v1::CheckIndexResponse* response) const {
  if (trust_->recovering() || !deps_.index->write_error().empty()) {
    return;  // nothing is listed meanwhile
  }
  for (const MountInfo& info : deps_.registry->List()) {
    const Inventory::Relisted listed = inventory_->RelistedSince(
        Uuid::FromBytesOrNone(info.row.mount_uid()), position.after);
    if (MayBeListed(info) && !listed.compared && listed.error.ok()) {
      response->add_awaited(MountName(info.row.mount_name()));
    }
  }
}

absl::Status IndexAudit::CheckMount(int64_t limit, Position* position,
                                    v1::CheckIndexResponse* response,
                                    bool* done) const {
  // The mount, and the last of its files.
  const Uuid last_mount = Uuid::FromBytesOrNone(position->last.substr(0, 16));
  const Uuid last_image = Uuid::FromBytesOrNone(
      position->last.size() > 16 ? position->last.substr(16) : "");
  for (const MountInfo& info : InOrder(deps_.registry->List())) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    const bool goes_on = uid == last_mount && !last_image.none();
    if ((!goes_on && !last_mount.none() && uid <= last_mount) ||
        (goes_on && uid < last_mount) || IsRetired(info)) {
      continue;
    }
    position->last = uid.bytes();
    if (!inventory_->RelistedSince(uid, position->after).compared) {
      Finding finding;
      finding.finding_class = FindingClass::kErrorRepairable;
      finding.code = "MOUNT_NOT_COMPARED";
      finding.mount_uid = uid;
      const std::string why = WhyNot(info, position->after);
      finding.detail =
          absl::StrCat("nothing is said of what lies on it: ",
                       why.empty() ? "it was not listed in time" : why);
      finding.next_step =
          absl::StrCat("predella mount stat ", info.row.mount_name(),
                       "; when it is back, check again");
      Add(finding, response);
      return absl::OkStatus();
    }
    if (!goes_on) {
      response->add_compared(MountName(info.row.mount_name()));
      const auto suspicion = inventory_->SuspicionOf(uid);
      if (suspicion.has_value()) {
        Finding finding;
        finding.finding_class = FindingClass::kFatal;
        finding.code = "INVENTORY_SUSPICIOUS";
        finding.mount_uid = uid;
        finding.detail =
            absl::StrCat("it lacks ", suspicion->missing, " of ",
                         suspicion->expected, " images at once; the first ",
                         ListingAudit::kMostFaults, " are named one by one");
        finding.next_step =
            "look whether the right file system is mounted there, before "
            "anything else";
        Add(finding, response);
      }
    }
    limit = std::min(limit, kMostOrphans);
    const std::vector<Orphan> page =
        inventory_->ListOrphans(uid, last_image, limit);
    for (const Orphan& orphan : page) {
      Add(OrphanFinding(orphan, info), response);
    }
    if (static_cast<int64_t>(page.size()) >= limit) {
      absl::StrAppend(&position->last, page.back().image_id.bytes());
    }
    return absl::OkStatus();
  }
  *done = true;
  return absl::OkStatus();
}

bool IndexAudit::CanBeReadElsewhere(const Orphan& orphan,
                                    const storage::v1::ImageRow& row) const {
  return std::any_of(
      row.copies().begin(), row.copies().end(),
      [&](const storage::v1::CopyRow& copy) {
        const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
        const std::optional<MountInfo> info = deps_.registry->Find(uid);
        return uid != orphan.mount_uid && info.has_value() && Readable(*info) &&
               !deps_.index->FaultOf(row, uid).has_value();
      });
}

// What costs nothing comes first: the file may be the only whole copy.
Finding IndexAudit::OrphanFinding(const Orphan& orphan,
                                  const MountInfo& info) const {
  const std::string mount = info.row.mount_name();
  const std::string image = orphan.image_id.ToString();
  Finding finding;
  finding.finding_class = FindingClass::kErrorRepairable;
  finding.mount_uid = orphan.mount_uid;
  finding.image_id = orphan.image_id;
  finding.detail = !orphan.read_error.empty() && orphan.size_bytes == 0
                       ? orphan.detail  // its size is not known either
                       : absl::StrCat("a file of ", orphan.size_bytes,
                                      " bytes: ", orphan.detail);
  const std::string rm =
      absl::StrCat("predella orphan rm ", mount, " ", image, " --dry-run");
  const std::string adopt =
      absl::StrCat("predella orphan adopt ", mount, " ", image);
  const auto row = deps_.index->GetImage(orphan.image_id);
  const bool known = row.ok() && row->has_value();
  const bool same = known && orphan.record.has_value() &&
                    Generation::FromProto(orphan.record->generation()) ==
                        Generation::FromProto((*row)->generation());
  finding.code = !orphan.read_error.empty()   ? "FILE_UNREADABLE"
                 : !orphan.record.has_value() ? "FILE_WITHOUT_RECORD"
                 : same                       ? "COPY_UNKNOWN"
                 : known                      ? "GENERATION_DIFFERS"
                                              : "FILE_UNKNOWN";
  if (!orphan.read_error.empty()) {
    const bool permission = MayNotBeRead(orphan.read_error);
    finding.finding_class =
        permission ? FindingClass::kErrorRepairable : FindingClass::kError;
    finding.next_step =
        permission ? "let its agent's user read the file and its record (owner "
                     "and mode), and check again; it is not removed meanwhile"
                   : "see the kernel log of its host for the disk, and check "
                     "again; it is not removed meanwhile";
  } else if (info.row.unconfirmed()) {
    finding.next_step = absl::StrCat(
        "predella mount confirm ", mount,
        " takes in what lies there, and says what is left over then; nothing "
        "on it is adopted or removed before");
  } else if (!known) {
    finding.next_step =
        orphan.record.has_value()
            ? absl::StrCat(adopt, " where it is wanted; where it is not: ", rm)
            : absl::StrCat(
                  "look at the file, and store it again (predella "
                  "image put) where it is wanted; where it is not: ",
                  rm);
  } else if (!orphan.refusal.empty()) {
    finding.next_step = absl::StrCat(
        "when it was last read: ", orphan.refusal, "; predella image stat ",
        image, " says how the copies of the index are; ", adopt,
        " reads it again; where this file is not wanted: ", rm);
  } else if (!CanBeReadElsewhere(orphan, **row)) {
    finding.next_step = absl::StrCat(
        "keep it: no copy that the index names can be read now, and this may "
        "be the only whole one; predella image stat ",
        image, " says how they are",
        finding.code == "GENERATION_DIFFERS"
            ? ""
            : absl::StrCat("; ", adopt,
                           " takes it in if its bytes are the image's"));
  } else {
    finding.next_step = absl::StrCat(
        "predella image stat ", image,
        " shows the copy that the index has, which can be read; where this "
        "file is not wanted besides: ",
        rm);
  }
  return finding;
}

void IndexAudit::Add(const Finding& finding,
                     v1::CheckIndexResponse* response) const {
  v1::IndexFinding out = ToApi(finding);
  if (finding.code == "COPY_MISSING" || finding.code == "COPY_DAMAGED") {
    for (const Orphan& orphan : inventory_->WholeOrphansOf(finding.image_id)) {
      const std::optional<MountInfo> info =
          deps_.registry->Find(orphan.mount_uid);
      if (info.has_value() && !IsRetired(*info)) {
        const std::string& mount = info->row.mount_name();
        out.set_next_step(absl::StrCat(
            "a file of it lies on ", mount,
            ", which a delete of the image would take, too: predella orphan "
            "adopt ",
            mount, " ", finding.image_id.ToString(),
            " puts it in the place of the bad copy if it is whole"));
      }
    }
  }
  *response->add_findings() = std::move(out);
}

v1::IndexFinding IndexAudit::ToApi(const Finding& finding) const {
  v1::IndexFinding out;
  switch (finding.finding_class) {
    case FindingClass::kFatal:
      out.set_finding_class(v1::FINDING_CLASS_FATAL);
      break;
    case FindingClass::kFatalRepairable:
      out.set_finding_class(v1::FINDING_CLASS_FATAL_REPAIRABLE);
      break;
    case FindingClass::kError:
      out.set_finding_class(v1::FINDING_CLASS_ERROR);
      break;
    case FindingClass::kErrorRepairable:
      out.set_finding_class(v1::FINDING_CLASS_ERROR_REPAIRABLE);
      break;
  }
  out.set_code(finding.code);
  if (!finding.mount_uid.none()) {
    const std::optional<MountInfo> info =
        deps_.registry->Find(finding.mount_uid);
    out.set_mount(MountName(info.has_value() ? info->row.mount_name()
                                             : finding.mount_uid.ToString()));
  }
  if (!finding.image_id.none()) {
    out.set_image(ImageName(finding.image_id));
  }
  out.set_row(finding.row);
  out.set_detail(finding.detail);
  out.set_next_step(finding.next_step);
  return out;
}

}  // namespace predella::server
