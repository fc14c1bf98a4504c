// What a Scrubber works on. For its own sources.
#ifndef PREDELLA_AGENT_SCRUB_SCRUB_JOB_H_
#define PREDELLA_AGENT_SCRUB_SCRUB_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "agent/scrub/scrubber.h"
#include "agent/store/image_store.h"
#include "common/generation.h"
#include "common/ids.h"
#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::agent {

struct Scrubber::Job {
  // Constant.
  uint64_t session = 0;
  std::shared_ptr<ImageStore> store;  // shared with the agent's core
  std::string scrub_id;
  bool single = false;
  Generation asked;  // of a single one
  Done done;
  // A read by a client failed there; it is all that is read again. Of that
  // moment, on the clock that runs since boot.
  std::optional<int64_t> failed_offset;
  absl::Duration failed_at;

  // Of the one task.
  bool listed = false;
  std::vector<Uuid> ids;
  size_t next = 0;
  std::unique_ptr<ImageCheck> check;
  int64_t charged = 0;  // of the present image
  Uuid failed_once;
  absl::Status verdict;  // of a single one

  // Under Scrubber::mu_.
  control::v1::ScrubProgress progress;
  bool finished = false;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SCRUB_SCRUB_JOB_H_
