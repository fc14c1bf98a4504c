// Scrubs, and what reads find out about copies: a part of AgentCore.
#include <memory>
#include <string>
#include <utility>

#include "agent/control/agent_core.h"
#include "agent/fs/errno_status.h"
#include "common/errors.h"

namespace predella::agent {

ScrubSeams AgentCore::ScrubSeamsOf() {
  ScrubSeams seams;
  seams.disk = seams_.disk;
  seams.clock = seams_.clock;
  seams.machine = &machine_;
  seams.send = [this](uint64_t session, control::v1::AgentMessage message) {
    session_.Send(session, std::move(message));
  };
  seams.idle_io = seams_.idle_io;
  return seams;
}

void AgentCore::RunScrubCommand(uint64_t session,
                                const control::v1::Command& command) {
  const int64_t number = command.number();
  if (command.has_stop_scrub()) {
    scrubber_.Stop(command.stop_scrub().scrub_id());
    AnswerStatus(session, number, absl::OkStatus());
    return;
  }
  absl::Status status;
  {
    MutexLock lock(&mu_);
    if (store_ == nullptr) {
      status = MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                         "the mount's directory is not open");
    } else if (command.has_start_scrub()) {
      scrubber_.Start(session, store_, command.start_scrub());
    } else {
      scrubber_.Check(session, store_, command.check_copy(),
                      [this, session, number](const absl::Status& checked) {
                        AnswerStatus(session, number, checked);
                      });
      return;
    }
  }
  AnswerStatus(session, number, status);
}

void AgentCore::ReadDone(const ReadGrant& grant, int64_t offset,
                         const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    if (store_ != grant.store) {
      return;
    }
  }
  // A bad sector that is read again and again would keep the mount SUSPECT, and
  // the scrub that it needs would wait for ever.
  const bool known =
      HasReason(status, reason::kMountFailed) && !MeansGone(status) &&
      !scrubber_.NoteReadError(session_.attached() ? session_.current() : 0,
                               grant.store, grant.image_id, grant.generation,
                               offset);
  machine_.CallDone(known ? absl::OkStatus() : status);
  if (!absl::IsDataLoss(status)) {
    return;
  }
  const bool news = scrubber_.NoteFault(grant.image_id, grant.generation);
  // A file that is gone may have been removed: the coordinator knows. One that
  // may not be read is no sign of bytes that change.
  if (news && HasReason(status, reason::kChecksumMismatch)) {
    machine_.DamageSeen(status.message());
  }
  control::v1::AgentMessage message;
  control::v1::CopyFinding* const finding =
      message.mutable_copy_faults()->add_findings();
  finding->set_image_id(grant.image_id.bytes());
  *finding->mutable_generation() = grant.generation.ToProto();
  finding->set_fault(Scrubber::FaultOf(status));
  finding->set_detail(std::string(status.message()));
  session_.SendAttached(std::move(message));
}

}  // namespace predella::agent
