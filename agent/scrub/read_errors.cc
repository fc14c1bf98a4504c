// Scrubber: reads of clients that failed, and whether it was the file.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "agent/scrub/scrub_job.h"
#include "agent/scrub/scrubber.h"
#include "common/errors.h"

namespace predella::agent {
namespace {

constexpr size_t kMostFailedReads = 100;

}  // namespace

bool Scrubber::NoteReadError(uint64_t session,
                             std::shared_ptr<ImageStore> store,
                             const Uuid& image_id, const Generation& generation,
                             int64_t offset) {
  MutexLock lock(&mu_);
  const auto known = known_.find(image_id);
  if (known != known_.end() && known->second == generation) {
    return false;
  }
  const bool waits =
      std::any_of(failed_reads_.begin(), failed_reads_.end(),
                  [&](const JobPtr& job) { return job->ids[0] == image_id; });
  if (session == 0 || waits || failed_reads_.size() >= kMostFailedReads) {
    return true;
  }
  auto job = std::make_shared<Job>();
  job->session = session;
  job->store = std::move(store);
  job->asked = generation;
  job->ids.push_back(image_id);
  job->failed_offset = offset;
  job->failed_at = seams_.clock->Boot();
  failed_reads_.push_back(std::move(job));
  return true;
}

Scrubber::JobPtr Scrubber::DueFailedReadLocked() {
  return !failed_reads_.empty() && seams_.machine->ProbeReadSince(
                                       failed_reads_.front()->failed_at)
             ? failed_reads_.front()
             : nullptr;
}

void Scrubber::ReadAgain(Job* job) {
  const Uuid id = job->ids[0];
  auto reader = job->store->OpenImage(id, job->asked);
  const absl::Status status =
      reader.ok() ? (*reader)->Read(*job->failed_offset, 1).status()
                  : reader.status();
  Charge(kBlockBytes);
  {
    MutexLock lock(&mu_);
    if (job->finished) {
      return;  // its store was let go meanwhile
    }
    job->finished = true;
    failed_reads_.pop_front();
  }
  // Anything else (a stall, a lack of memory) is not of the file.
  if (HasReason(status, reason::kMountFailed)) {
    NoteFault(id, job->asked);
    Found(job, storage::v1::COPY_FAULT_DAMAGED, job->asked,
          absl::StrCat("it can not be read: ", status.message()));
  } else if (absl::IsDataLoss(status)) {
    NoteFault(id, job->asked);
    Found(job, FaultOf(status), job->asked, std::string(status.message()));
  }
}

}  // namespace predella::agent
