#include "server/lifecycle/trust_keeper.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

std::string MountText(const MountRegistry& registry, const Uuid& uid) {
  const std::optional<MountInfo> info = registry.Find(uid);
  return info.has_value() ? info->row.mount_name() : uid.ToString();
}

// The highest pair in `known` that the table does not have, for the row.
storage::v1::Generation HighestOf(
    absl::Span<const storage::v1::FenceEntry> known) {
  storage::v1::Generation out;
  for (const storage::v1::FenceEntry& entry : known) {
    if (entry.epoch() >= out.epoch()) {
      out.set_epoch(entry.epoch());
      out.set_n(entry.max_n());
      out.set_nonce(entry.nonce());
    }
  }
  return out;
}

}  // namespace

TrustKeeper::TrustKeeper(const LifecycleDeps& deps) : deps_(deps) {}

absl::Status TrustKeeper::Load() {
  ASSIGN_OR_RETURN(const std::optional<storage::v1::RecoveringRow> row,
                   deps_.index->GetRecovering());
  if (!row.has_value()) {
    return absl::OkStatus();
  }
  storage::v1::EventRow event;
  {
    MutexLock lock(&mu_);
    recovering_ = true;
    by_command_ = row->by_command();
    cause_ = row->cause_mount_uid().empty()
                 ? ""
                 : MountText(*deps_.registry,
                             Uuid::FromBytesOrNone(row->cause_mount_uid()));
    event.set_mount_name(cause_);
  }
  // Whatever began it, a rebuild or a restore while no coordinator ran too.
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind("recovering");
  event.set_detail(absl::StrCat("since this start: ", why()));
  IndexTxn txn = deps_.index->Begin();
  txn.PutEvent(event);
  LogIfError(deps_.index->Commit(std::move(txn)), "cluster status says it");
  return absl::OkStatus();
}

absl::Status TrustKeeper::Compare(
    const Uuid& mount_uid, absl::Span<const storage::v1::FenceEntry> known) {
  // While an earlier finding is not synced nobody is told a pair: not even a
  // mount that knows nothing more.
  RETURN_IF_ERROR(WriteRow());
  if (Absent(mount_uid, known)) {
    return absl::OkStatus();
  }
  const bool stranger =
      !known.empty() && !deps_.registry->Find(mount_uid).has_value();
  if (deps_.index->Covers(known) && !stranger) {
    const auto& clean = deps_.index->clean_start();
    for (const storage::v1::FenceEntry& entry : known) {
      if (clean.has_value() && entry.epoch() == clean->last().epoch() &&
          entry.nonce() == clean->last().nonce() &&
          entry.max_n() >= clean->last().n()) {
        MutexLock lock(&mu_);
        clean_confirmed_ = true;
      }
    }
    return absl::OkStatus();
  }
  {
    MutexLock lock(&mu_);
    if (recovering_) {
      return absl::OkStatus();  // written above, or at an earlier start
    }
    recovering_ = true;
    by_command_ = false;
    cause_ = MountText(*deps_.registry, mount_uid);
    unwritten_.emplace();
    unwritten_->set_since_us(deps_.clock->NowMicros());
    *unwritten_->mutable_cause() = HighestOf(known);
    unwritten_->set_cause_mount_uid(mount_uid.bytes());
  }
  Distrust();
  return WriteRow();
}

absl::Status TrustKeeper::WriteRow() {
  storage::v1::RecoveringRow row;
  storage::v1::EventRow event;
  {
    MutexLock lock(&mu_);
    if (!unwritten_.has_value()) {
      return absl::OkStatus();
    }
    row = *unwritten_;
    event.set_mount_name(cause_);
  }
  event.set_time_us(row.since_us());
  event.set_kind("recovering");
  event.set_detail(absl::StrCat(
      "the mount knows generation ",
      Generation::FromProto(row.cause()).ToString(),
      ", which this index never gave, or gave to no such mount: the index was "
      "put back from an older copy"));
  LogError("recovering",
           {{"mount", event.mount_name()}, {"detail", event.detail()}});
  IndexTxn txn = deps_.index->Begin();
  txn.PutRecovering(row);
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  MutexLock lock(&mu_);
  unwritten_.reset();
  return absl::OkStatus();
}

bool TrustKeeper::Absent(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::FenceEntry> known) const {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  return info.has_value() ? info->row.unconfirmed()
                          : deps_.index->rebuilt() && !known.empty();
}

int64_t TrustKeeper::taken_in() const {
  MutexLock lock(&mu_);
  return taken_in_;
}

absl::StatusOr<storage::v1::MountRow> TrustKeeper::TakeIn(
    const storage::v1::MountRow& old) {
  MutexLock change(&change_mu_);
  RETURN_IF_ERROR(WriteRow());
  storage::v1::MountRow row = old;
  row.set_unconfirmed(false);
  row.set_update_time_us(deps_.clock->NowMicros());
  storage::v1::EventRow event;
  event.set_time_us(row.update_time_us());
  event.set_kind("mount_confirmed");
  event.set_mount_name(row.mount_name());
  event.set_detail("it was away when the index was rebuilt");
  IndexTxn txn = deps_.index->Begin();
  txn.RequireMount(old);
  txn.PutMount(row);
  txn.PutEvent(event);
  if (!recovering()) {
    storage::v1::RecoveringRow recovering;
    recovering.set_since_us(row.update_time_us());
    recovering.set_cause_mount_uid(row.mount_uid());
    recovering.set_by_command(true);
    txn.PutRecovering(recovering);
  }
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  {
    MutexLock lock(&mu_);
    ++taken_in_;
    if (!recovering_) {
      recovering_ = true;
      by_command_ = true;
      cause_ = row.mount_name();
    }
  }
  Distrust();
  deps_.registry->SetRow(row);
  LogInfo("mount_confirmed", {{"mount", row.mount_name()}});
  return row;
}

absl::Status TrustKeeper::End(absl::Span<const storage::v1::FenceEntry> known,
                              int64_t taken_in, const std::string& detail) {
  MutexLock change(&change_mu_);
  if (taken_in != this->taken_in()) {
    return absl::AbortedError("a mount was taken in, and is listed first");
  }
  RETURN_IF_ERROR(WriteRow());
  RETURN_IF_ERROR(deps_.index->RaiseTo(known));
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind("recovered");
  event.set_mount_name(cause());
  event.set_detail(detail);
  IndexTxn txn = deps_.index->Begin();
  txn.DeleteRecovering();
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  LogInfo("recovered", {{"detail", detail}});
  MutexLock lock(&mu_);
  recovering_ = false;
  cause_.clear();
  return absl::OkStatus();
}

bool TrustKeeper::MayTrust(const MountInfo& info) const {
  return !info.row.unconfirmed() && !recovering() &&
         deps_.index->Covers(info.known);
}

// Removals that wait are looked up anew at each send, so taking the trust
// withdraws them.
void TrustKeeper::Distrust() {
  for (const MountInfo& info : deps_.registry->List()) {
    deps_.registry->SetTrusted(Uuid::FromBytesOrNone(info.row.mount_uid()),
                               false);
  }
}

bool TrustKeeper::recovering() const {
  MutexLock lock(&mu_);
  return recovering_;
}

std::string TrustKeeper::cause() const {
  MutexLock lock(&mu_);
  return cause_;
}

std::string TrustKeeper::why() const {
  MutexLock lock(&mu_);
  if (!by_command_) {
    return absl::StrCat("mount ", cause_,
                        " knows of commits that the index does not have: the "
                        "index was put back from an older copy");
  }
  return cause_.empty()
             ? "the index was made anew from the mounts, or put back from a "
               "backup"
             : absl::StrCat("mount ", cause_,
                            ", which was away when the index was made anew, "
                            "is taken in");
}

bool TrustKeeper::clean_start_counts() const {
  MutexLock lock(&mu_);
  return clean_confirmed_ && !recovering_;
}

}  // namespace predella::server
