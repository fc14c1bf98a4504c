// Files that no row of the index names: a part of AgentCore.
#include <memory>
#include <optional>
#include <utility>

#include "agent/control/agent_core.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kQuarantineKeep = absl::Hours(24 * 7);
constexpr absl::Duration kExpireEvery = absl::Hours(1);
// Whatever deletes stops at more in one pass, and says so.
constexpr int kMostExpired = 100;

}  // namespace

void AgentCore::PostOrphanCommand(uint64_t session,
                                  const control::v1::Command& command) {
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    store = store_;
  }
  if (store == nullptr) {
    AnswerStatus(session, command.number(),
                 MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                           "the mount's directory is not open"));
    return;
  }
  // Not on the strand of the session: all of a file may have to be read.
  seams_.disk->Post([this, session, command, store = std::move(store)] {
    absl::Status status;
    if (!session_.Is(session)) {
      return;  // not begun, it dies with its session
    }
    if (command.has_adopt_file()) {
      const control::v1::AdoptFile& adopt = command.adopt_file();
      status = store->Hear(Generation::FromProto(adopt.heard()));
      if (status.ok()) {
        status = store->AdoptFile(adopt.record(), adopt.keep_mode_and_group()
                                                      ? AdoptedMode::kKept
                                                      : AdoptedMode::kOfImages);
      }
    } else {
      const control::v1::QuarantineFile& file = command.quarantine_file();
      status = store->Hear(Generation::FromProto(file.heard()));
      if (status.ok()) {
        status = store->Quarantine(
            Uuid::FromBytesOrNone(file.image_id()),
            file.has_generation()
                ? std::make_optional(Generation::FromProto(file.generation()))
                : std::nullopt);
      }
    }
    // What the file is says nothing about the disk.
    CallDone(store.get(),
             absl::IsDataLoss(status) || absl::IsNotFound(status) ||
                     absl::IsPermissionDenied(status) || absl::IsAborted(status)
                 ? absl::OkStatus()
                 : status);
    AnswerStatus(session, command.number(), status);
  });
}

void AgentCore::ExpireQuarantineLocked() {
  const absl::Duration now = seams_.clock->Boot();
  // As everything else that deletes: only on a mount that is trusted.
  if (store_ == nullptr || !may_collect_ || now < next_expiry_) {
    return;
  }
  next_expiry_ = now + kExpireEvery;
  seams_.disk->Post([this, store = store_] {
    const absl::StatusOr<int> expired =
        store->ExpireQuarantine(kQuarantineKeep, kMostExpired);
    if (HasReason(expired.status(), reason::kMountNotEmpty)) {
      LogError("quarantine_not_expired",
               {{"mount", identity_.mount_name},
                {"why", std::string(expired.status().message())}});
      return;
    }
    CallDone(store.get(), expired.status());
    LogIfError(expired.status(), "the quarantine is looked at in an hour");
  });
}

}  // namespace predella::agent
