// Commands of the coordinator: a part of AgentCore.
#include <algorithm>
#include <utility>

#include "agent/control/agent_core.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/rpc_status.h"
#include "common/status_macros.h"

namespace predella::agent {

void AgentCore::Answer(uint64_t session, control::v1::CommandResult result) {
  MutexLock lock(&mu_);
  *result.mutable_space() = SpaceProto(ledger_.Take(), command_number_);
  control::v1::AgentMessage message;
  *message.mutable_command_result() = std::move(result);
  session_.Send(session, std::move(message));
}

void AgentCore::AnswerStatus(uint64_t session, int64_t number,
                             const absl::Status& status) {
  control::v1::CommandResult result;
  result.set_number(number);
  if (!status.ok()) {
    *result.mutable_error() = ToRpcStatus(status);
  }
  Answer(session, std::move(result));
}

void AgentCore::OnCommand(uint64_t session,
                          const control::v1::Command& command) {
  {
    MutexLock lock(&mu_);
    if (!session_.Is(session)) {
      return;
    }
    if (!session_.attached()) {
      early_.push_back(command);
      return;
    }
    // Promises are made in this order and at once, so the number stands for
    // every promise up to it.
    command_number_ = std::max(command_number_, command.number());
  }
  const int64_t number = command.number();
  if (const MountView view = machine_.View(); view.health == v1::HEALTH_HUNG) {
    // At once: behind what is stuck it would wait for nobody knows how long.
    AnswerStatus(session, number, NotServing(view));
    return;
  }
  switch (command.command_case()) {
    case control::v1::Command::kPrepareUpload:
      RunPrepareCommand(session, command);
      break;
    case control::v1::Command::kCloseIfIdle:
      table_.CloseIfIdle(
          command.close_if_idle(),
          [this, session, number](control::v1::CloseIfIdleResult closed) {
            control::v1::CommandResult result;
            result.set_number(number);
            *result.mutable_close_if_idle() = std::move(closed);
            Answer(session, std::move(result));
          });
      break;
    case control::v1::Command::kRemove:
      RunRemoveCommand(session, command);
      break;
    case control::v1::Command::kStoreTombstone:
    case control::v1::Command::kDropTombstones:
    case control::v1::Command::kStoreRoster:
      PostStoreCommand(session, command);
      break;
    case control::v1::Command::kListMount:
      PostListCommand(session, command);
      break;
    case control::v1::Command::kStartScrub:
    case control::v1::Command::kStopScrub:
    case control::v1::Command::kCheckCopy:
      RunScrubCommand(session, command);
      break;
    case control::v1::Command::kAdoptFile:
    case control::v1::Command::kQuarantineFile:
      PostOrphanCommand(session, command);
      break;
    case control::v1::Command::kCollectGarbage:
      PostGarbageCommand(session, command);
      break;
    default:
      AnswerStatus(
          session, number,
          MakeError(absl::StatusCode::kUnimplemented, reason::kInvalidArgument,
                    "this agent does not know the command"));
      break;
  }
}

void AgentCore::RunPrepareCommand(uint64_t session,
                                  const control::v1::Command& command) {
  const control::v1::PrepareUpload& prepare = command.prepare_upload();
  const int64_t number = command.number();
  bool stopping = false;
  {
    MutexLock lock(&mu_);
    stopping = draining_ || stopped_;
    if (prepare.has_heard()) {
      HearLocked(prepare.heard());
    }
  }
  if (stopping) {
    // Its stream would find nobody: a new upload goes to the next mount, one
    // that has bytes here waits for the agent to come back.
    AnswerStatus(session, number,
                 MakeError(absl::StatusCode::kUnavailable,
                           reason::kAgentUnreachable, "the agent is stopping"));
    return;
  }
  table_.Prepare(prepare.upload(),
                 [this, session, number](const absl::Status& status) {
                   if (!HasReason(status, reason::kNameTaken)) {
                     AnswerStatus(session, number, status);
                     return;
                   }
                   control::v1::CommandResult result;
                   result.set_number(number);
                   control::v1::NameTaken* taken = result.mutable_name_taken();
                   const absl::StatusOr<Generation> by =
                       Generation::Parse(MetadataOf(status)["generation"]);
                   if (by.ok()) {
                     *taken->mutable_generation() = by->ToProto();
                   }
                   Answer(session, std::move(result));
                 });
}

void AgentCore::PostStoreCommand(uint64_t session,
                                 const control::v1::Command& command) {
  MutexLock lock(&mu_);
  session_strand_.Post([this, session, command, store = store_] {
    absl::Status status;
    if (store == nullptr) {
      status = MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                         "the mount's directory is not open");
    } else {
      status = RunStoreCommand(store.get(), command);
      CallDone(store.get(), status);
    }
    AnswerStatus(session, command.number(), status);
  });
}

absl::Status AgentCore::RunStoreCommand(ImageStore* store,
                                        const control::v1::Command& command) {
  if (command.has_store_tombstone()) {
    const control::v1::StoreTombstone& request = command.store_tombstone();
    if (request.has_heard()) {
      RETURN_IF_ERROR(store->Hear(Generation::FromProto(request.heard())));
    }
    return store->StoreTombstone(request.tombstone());
  }
  if (command.has_drop_tombstones()) {
    const auto& all = command.drop_tombstones().tombstones();
    return store->DropTombstones(
        std::vector<storage::v1::Tombstone>(all.begin(), all.end()));
  }
  const auto& roster = command.store_roster().roster();
  return store->StoreRoster(
      std::vector<storage::v1::RosterEntry>(roster.begin(), roster.end()));
}

void AgentCore::MeasureSpace() {
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    store = store_;
  }
  if (store == nullptr) {
    return;
  }
  StatDone(store.get(), ReadSpace(store.get()).status());
}

void AgentCore::RunRemoveCommand(uint64_t session,
                                 const control::v1::Command& command) {
  const int64_t number = command.number();
  table_.Remove(
      command.remove(),
      // Not begun, it dies with its session: the next one asks again, if the
      // coordinator still wants it.
      [this, session] { return session_.Is(session); },
      [this, session, number](absl::StatusOr<RemoveOutcome> outcome) {
        if (!outcome.ok()) {
          AnswerStatus(session, number, outcome.status());
          return;
        }
        control::v1::CommandResult result;
        result.set_number(number);
        control::v1::RemoveResult* remove = result.mutable_remove();
        remove->set_removed(outcome->removed);
        remove->set_other_present(outcome->other_present);
        if (!outcome->other.none()) {
          *remove->mutable_other_generation() = outcome->other.ToProto();
        }
        if (outcome->removed) {
          // Whoever waits for the room hears of it with this answer.
          MeasureSpace();
        }
        Answer(session, std::move(result));
      });
}

}  // namespace predella::agent
