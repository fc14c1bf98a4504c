// How an agent registers: Hello, MountReport, Attach, AttachDone.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/capability.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/session_manager.h"
#include "server/lifecycle/session_state.h"

namespace predella::server {
namespace {

constexpr int kProtocolVersion = 1;

absl::Status IdentityMismatch(const std::string& name, const Uuid& bound,
                              const Uuid& got) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
      absl::StrCat(MountName(name), " is bound to the mount ", bound.ToString(),
                   ", this directory is ", got.ToString(),
                   ": start the agent on the right directory, or give it "
                   "another name; a new disk in the place of the old one gets "
                   "the name by predella mount replace ",
                   name),
      {{"mount", MountName(name)},
       {"bound_uid", bound.ToString()},
       {"uid", got.ToString()}});
}

absl::Status NameMismatch(const std::string& name, const std::string& bound,
                          const Uuid& uid) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
      absl::StrCat("the mount ", uid.ToString(), " is known as ",
                   MountName(bound), ", its agent calls it ", MountName(name),
                   ": start it with the name ", bound),
      {{"mount", MountName(name)}, {"bound_mount", MountName(bound)}});
}

// Whether a name and an identity may go together.
absl::Status CheckBinding(const MountRegistry& registry,
                          const std::string& name, const Uuid& uid) {
  const std::optional<MountInfo> known =
      uid.none() ? std::nullopt : registry.Find(uid);
  if (known.has_value() &&
      known->row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
    return RetiredError(MountName(known->row.mount_name()));
  }
  const std::optional<MountInfo> named = registry.FindByName(name);
  if (named.has_value()) {
    const Uuid bound = Uuid::FromBytesOrNone(named->row.mount_uid());
    if (named->row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      if (uid.none()) {
        return RetiredError(MountName(name));  // it has not yet looked
      }
      return MakeError(
          absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
          absl::StrCat(MountName(name),
                       " was retired, its name stays taken: take it out of "
                       "the configuration; the directory can be emptied "
                       "(.predella too) and made a mount under another name, "
                       "or have this one by predella mount replace"),
          {{"mount", MountName(name)}, {"uid", uid.ToString()}});
    }
    if (!uid.none() && bound != uid) {
      return IdentityMismatch(name, bound, uid);
    }
  }
  if (known.has_value() && known->row.mount_name() != name) {
    return NameMismatch(name, known->row.mount_name(), uid);
  }
  return absl::OkStatus();
}

bool TakesNoWrites(const absl::Status& status) {
  return HasReason(status, reason::kIndexReadOnly) ||
         HasReason(status, reason::kIndexUnavailable);
}

}  // namespace

absl::Status SessionManager::CheckHello(const SessionPtr& session,
                                        const control::v1::Hello& hello) {
  {
    MutexLock lock(&session->mu);
    if (session->state != State::kNew) {
      return absl::InvalidArgumentError("Hello comes once, and first");
    }
  }
  if (hello.protocol_version() != kProtocolVersion) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kInvalidArgument,
        absl::StrCat("the agent speaks version ", hello.protocol_version(),
                     " of the session protocol, this coordinator version ",
                     kProtocolVersion, ": install the same release on both"));
  }
  RETURN_IF_ERROR(ValidateMountName(hello.mount_name()));
  RETURN_IF_ERROR(CheckBinding(*deps_.registry, hello.mount_name(),
                               Uuid::FromBytesOrNone(hello.mount_uid())));
  return TakeName(session, hello);
}

// One session holds a name. A newer one of the same agent process follows one
// whose end has not been noticed yet; any other is a second agent.
absl::Status SessionManager::TakeName(const SessionPtr& session,
                                      const control::v1::Hello& hello) {
  SessionPtr old;
  {
    MutexLock lock(&mu_);
    const auto it = by_name_.find(hello.mount_name());
    old = it == by_name_.end() ? nullptr : it->second;
  }
  if (old != nullptr && old != session) {
    control::v1::Hello holder;
    {
      MutexLock lock(&old->mu);
      holder = old->hello;
    }
    if (hello.incarnation().empty() ||
        holder.incarnation() != hello.incarnation()) {
      const std::string name = MountName(hello.mount_name());
      return MakeError(
          absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
          absl::StrCat(name, " is served by the agent on ", holder.host(),
                       " with pid ", holder.pid(), ", path ", holder.path(),
                       ": two agents never share a mount"),
          {{"mount", name},
           {"host", holder.host()},
           {"pid", absl::StrCat(holder.pid())}});
    }
    old->session->Close(absl::AbortedError("the agent opened a newer session"));
    Closed(old->number());
  }
  {
    MutexLock lock(&session->mu);
    if (session->state == State::kClosed) {
      return absl::CancelledError("the session has ended");
    }
    session->hello = hello;
  }
  MutexLock lock(&mu_);
  const auto [it, inserted] = by_name_.try_emplace(hello.mount_name(), session);
  if (!inserted && it->second != session) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
                     absl::StrCat(MountName(hello.mount_name()),
                                  " was taken by another agent just now"));
  }
  if (sessions_.count(session->number()) == 0) {
    by_name_.erase(hello.mount_name());
    return absl::CancelledError("the session has ended");
  }
  return absl::OkStatus();
}

// A session that ended while it was being registered must not stay open in the
// registry.
void SessionManager::ForgetIfClosed(const SessionPtr& session,
                                    const Uuid& mount_uid) {
  bool closed = false;
  {
    MutexLock lock(&session->mu);
    closed = session->state == State::kClosed;
  }
  if (closed) {
    deps_.registry->SessionClosed(mount_uid, session->number());
  }
}

void SessionManager::HandleHello(const SessionPtr& session,
                                 const control::v1::Hello& hello) {
  const absl::Status status = CheckHello(session, hello);
  if (!status.ok()) {
    watch_->Refused(hello, status, deps_.clock->Boot());
    Refuse(session.get(), status);
    return;
  }
  // A mount that hangs when its agent starts is known by its name alone.
  Uuid uid = Uuid::FromBytesOrNone(hello.mount_uid());
  const std::optional<MountInfo> named =
      deps_.registry->FindByName(hello.mount_name());
  if (uid.none() && named.has_value()) {
    uid = Uuid::FromBytesOrNone(named->row.mount_uid());
  }
  const bool known = !uid.none() && deps_.registry->Find(uid).has_value();
  {
    MutexLock lock(&session->mu);
    if (session->state == State::kClosed) {
      return;
    }
    session->state = State::kWelcomed;
    session->mount_uid = known ? uid : Uuid();
  }
  if (known) {
    deps_.registry->SessionOpened(uid, session->number(), hello);
    ForgetIfClosed(session, uid);
  }
  control::v1::CoordinatorMessage message;
  control::v1::Welcome* welcome = message.mutable_welcome();
  welcome->set_protocol_version(kProtocolVersion);
  welcome->set_coordinator_version(deps_.options.version);
  welcome->set_cluster_uid(deps_.index->cluster().cluster_uid());
  welcome->set_epoch(deps_.index->epoch());
  welcome->set_epoch_nonce(deps_.index->epoch_nonce());
  welcome->set_heartbeat_interval_ms(
      absl::ToInt64Milliseconds(deps_.options.heartbeat_interval));
  welcome->set_coordinator_time_us(deps_.clock->NowMicros());
  Send(session.get(), std::move(message));
}

absl::Status SessionManager::CheckReport(
    const SessionPtr& session, const control::v1::MountReport& report) {
  std::string name;
  Uuid said;
  {
    MutexLock lock(&session->mu);
    if (session->state != State::kWelcomed) {
      return absl::InvalidArgumentError(
          "MountReport comes after Welcome, and once");
    }
    name = session->hello.mount_name();
    said = session->mount_uid;
  }
  ASSIGN_OR_RETURN(const Uuid uid, Uuid::FromBytes(report.label().mount_uid()));
  if (!said.none() && said != uid) {
    return IdentityMismatch(name, said, uid);
  }
  RETURN_IF_ERROR(CheckBinding(*deps_.registry, name, uid));
  const std::string& ours = deps_.index->cluster().cluster_uid();
  if (!report.label().cluster_uid().empty() &&
      report.label().cluster_uid() != ours) {
    const std::string theirs =
        Uuid::FromBytesOrNone(report.label().cluster_uid()).ToString();
    const std::string here = Uuid::FromBytesOrNone(ours).ToString();
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kClusterMismatch,
        absl::StrCat("mount ", name, " belongs to cluster ", theirs,
                     ", this coordinator is ", here,
                     "; start it with the --state-dir that belongs to ",
                     theirs),
        {{"mount", MountName(name)}, {"cluster", theirs}, {"ours", here}});
  }
  return absl::OkStatus();
}

// The agent refuses an older epoch too; here somebody sees it.
absl::Status SessionManager::CheckEpoch(const control::v1::MountReport& report,
                                        const std::string& name) const {
  int64_t highest = 0;
  bool another_start = false;
  for (const storage::v1::FenceEntry& entry : report.known()) {
    highest = std::max(highest, entry.epoch());
    another_start =
        another_start || (entry.epoch() == deps_.index->epoch() &&
                          entry.nonce() != deps_.index->epoch_nonce());
  }
  if (highest < deps_.index->epoch() ||
      (highest == deps_.index->epoch() && !another_start)) {
    return absl::OkStatus();
  }
  // One that could not write has no epoch of its own.
  const std::string help =
      deps_.index->read_only()
          ? "its index takes no writes, so it could not begin a new epoch: "
            "free space where the state directory lies, and start it again"
          : absl::StrCat(
                "its state directory is an older copy, the epoch file in it "
                "too: stop it, and put back the newest one; where there is "
                "none, start it once with --epoch-above ",
                highest,
                ", and what was stored since is taken in from the mounts");
  return MakeError(
      absl::StatusCode::kAborted, reason::kStaleEpoch,
      absl::StrCat("mount ", name, " has heard of epoch ", highest,
                   highest == deps_.index->epoch() ? " of another start" : "",
                   ", this coordinator is at ", deps_.index->epoch(), ": ",
                   help),
      {{"mount", MountName(name)},
       {"epoch", absl::StrCat(highest)},
       {"ours", absl::StrCat(deps_.index->epoch())}});
}

void SessionManager::HandleReport(const SessionPtr& session,
                                  const control::v1::MountReport& report) {
  const absl::Status checked = CheckReport(session, report);
  if (!checked.ok()) {
    Refuse(session.get(), checked);
    return;
  }
  control::v1::Hello hello;
  {
    MutexLock lock(&session->mu);
    hello = session->hello;
  }
  const Uuid uid = Uuid::FromBytesOrNone(report.label().mount_uid());
  const absl::Status epoch = CheckEpoch(report, hello.mount_name());
  if (!epoch.ok()) {
    Refuse(session.get(), epoch);
    return;
  }
  const std::vector<storage::v1::FenceEntry> known(report.known().begin(),
                                                   report.known().end());
  const absl::Status stale = stale_->Check(uid, hello.mount_name(), known);
  if (!stale.ok()) {
    deps_.registry->Refused(uid, session->number(),
                            std::string(stale.message()));
    Refuse(session.get(), stale);
    changed_->Notify();
    return;
  }
  // Compared before the mount is told any pair, and before its row is written:
  // a first row of a mount that knows more belongs to RECOVERING too.
  const absl::Status compared = trust_->Compare(uid, known);
  if (!compared.ok()) {
    Refuse(session.get(),
           Annotate(compared, "RECOVERING could not be written"));
    return;
  }
  const auto row =
      EnsureMountRow(uid, hello.mount_name(), trust_->Absent(uid, known),
                     /*remembered=*/false);
  if (!row.ok()) {
    Refuse(session.get(), row.status());
    return;
  }
  {
    // Kept before RECOVERING is looked for: whoever begins it reads this.
    MutexLock lock(&session->mu);
    session->remembered.assign(report.roster().begin(), report.roster().end());
  }
  if (trust_->recovering()) {
    // Also those of mounts that registered before it began; before this one can
    // be the last that RECOVERING waited for.
    const absl::Status taken = TakeInRosters();
    if (!taken.ok() && !TakesNoWrites(taken)) {
      Refuse(session.get(), taken);
      return;
    }
    LogIfError(taken, "RECOVERING goes on at the next start");
  }
  {
    MutexLock lock(&session->mu);
    if (session->state == State::kClosed) {
      return;
    }
    session->mount_uid = uid;
  }
  watch_->Registered(hello.mount_name());
  deps_.registry->SessionOpened(uid, session->number(), hello);
  deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
  deps_.registry->Reported(uid, session->number(), report);
  ForgetIfClosed(session, uid);
  const std::vector<storage::v1::Tombstone> brought(report.tombstones().begin(),
                                                    report.tombstones().end());
  absl::Status merged = tombstones_->Merge(uid, brought);
  if (merged.ok()) {
    merged = tombstones_->TakeOutLost(uid, brought);
  }
  if (!merged.ok() && !TakesNoWrites(merged)) {
    Refuse(session.get(), merged);
    return;
  }
  // While the index takes no writes the mount is read from all the same; what
  // its tombstones say is written at the next start.
  LogIfError(merged, "the index is read-only and answers reads only");
  SendAttach(session, report.label().cluster_uid().empty());
}

void SessionManager::SendAttach(const SessionPtr& session, bool claim_label) {
  Uuid uid;
  {
    MutexLock lock(&session->mu);
    if (session->state == State::kClosed) {
      return;
    }
    session->state = State::kAttaching;
    uid = session->mount_uid;
  }
  control::v1::CoordinatorMessage message;
  control::v1::Attach* attach = message.mutable_attach();
  attach->set_claim_label(claim_label);
  attach->set_mount_key(
      DeriveMountKey(deps_.index->cluster().cluster_key(), uid));
  *attach->mutable_heard() = deps_.index->synced_pair().ToProto();
  for (control::v1::OpenUpload& open : uploads_->OpenUploadsOn(uid)) {
    *attach->add_open_uploads() = std::move(open);
  }
  const std::optional<MountInfo> info = deps_.registry->Find(uid);
  attach->set_may_collect(info.has_value() && trust_->MayTrust(*info));
  const control::v1::StoreRoster roster = Roster();
  *attach->mutable_roster() = roster.roster();
  {
    MutexLock lock(&session->mu);
    session->roster = roster.SerializeAsString();
    session->may_collect = attach->may_collect();
  }
  Send(session.get(), std::move(message));
}

void SessionManager::HandleAttachDone(const SessionPtr& session,
                                      const control::v1::AttachDone& done) {
  Uuid uid;
  bool late = false;
  {
    MutexLock lock(&session->mu);
    // Again: of uploads that the first one left out, since a call was stuck.
    late = session->state == State::kAttached;
    if (!late && session->state != State::kAttaching) {
      return;
    }
    session->state = State::kAttached;
    uid = session->mount_uid;
  }
  // Uploads first: while one is undecided, no NOT_FOUND may pass.
  for (const control::v1::UploadStatus& status : done.uploads()) {
    if (status.has_published()) {
      HandlePublished(session, status.published());
    }
  }
  bool current = false;
  {
    MutexLock lock(&mu_);
    current = sessions_.count(session->number()) != 0;
    if (current && !late) {
      attached_[uid] = session;
    }
  }
  if (!current) {
    return;
  }
  for (const control::v1::UploadStatus& status : done.uploads()) {
    uploads_->OnStatus(uid, status);
  }
  if (late) {
    changed_->Notify();
    return;
  }
  stale_->Attached(uid);
  const std::optional<MountInfo> info = deps_.registry->Find(uid);
  const bool trusted = info.has_value() && trust_->MayTrust(*info);
  deps_.registry->Attached(uid, session->number(), trusted);
  ForgetIfClosed(session, uid);
  LogInfo("mount_attached", {{"mount", info.has_value() ? info->row.mount_name()
                                                        : uid.ToString()},
                             {"session", session->number()},
                             {"trusted", trusted ? 1 : 0}});
  changed_->Notify();
  if (trusted && trusted_) {
    trusted_(uid);
  }
}

}  // namespace predella::server
