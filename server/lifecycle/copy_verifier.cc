#include "server/lifecycle/copy_verifier.h"

#include <iterator>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/wait.h"
#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::server {

bool CopyVerifier::Begin(const Key& key) {
  MutexLock lock(&mu_);
  const absl::Duration now = clock_->Boot();
  for (auto it = results_.begin(); it != results_.end();) {
    const bool old =
        it->second.status.has_value() && now - it->second.time > kKept;
    it = old ? results_.erase(it) : std::next(it);
  }
  return results_.try_emplace(key).second;
}

absl::Status CopyVerifier::Verify(const Uuid& mount_uid, const Uuid& image_id,
                                  const Generation& generation,
                                  absl::Duration wait) {
  const Key key(mount_uid.bytes(), image_id.bytes(), generation.ToString());
  if (Begin(key)) {
    control::v1::Command command;
    command.mutable_check_copy()->set_image_id(image_id.bytes());
    *command.mutable_check_copy()->mutable_generation() = generation.ToProto();
    commands_->CallAsync(
        mount_uid, std::move(command),
        [this, key](const absl::StatusOr<control::v1::CommandResult>& answer) {
          MutexLock lock(&mu_);
          results_[key] = {answer.status(), clock_->Boot()};
          answered_.SignalAll();
        });
  }
  const Deadline deadline(clock_, wait);
  MutexLock lock(&mu_);
  while (true) {
    const auto it = results_.find(key);
    if (it == results_.end()) {
      break;  // another caller was told
    }
    if (it->second.status.has_value()) {
      const absl::Status result = *it->second.status;
      results_.erase(it);
      return result;
    }
    if (!deadline.WaitOn(&answered_, &mu_)) {
      break;
    }
  }
  return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                   absl::StrCat("generation ", generation.ToString(), " of ",
                                ImageName(image_id),
                                " is still being read, to know that it is "
                                "whole: ask again in a while"));
}

}  // namespace predella::server
