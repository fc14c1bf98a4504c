#include "agent/scrub/scrubber.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "agent/scrub/scrub_job.h"
#include "common/errors.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

// Of the rate: what may be caught up at once after a pause.
constexpr double kBurstSeconds = 0.5;
constexpr size_t kMostKnown = 100'000;

}  // namespace

Scrubber::Scrubber(ScrubSeams seams, const ScrubOptions& options)
    : seams_(std::move(seams)),
      options_(options),
      rate_(options.bytes_per_second) {}

void Scrubber::LetGoLocked(JobPtr job) {
  if (job != nullptr) {
    job->finished = true;
    seams_.disk->Post([job = std::move(job)] {});
  }
}

void Scrubber::EndLocked() {
  ++turn_;
  posted_ = false;
  LetGoLocked(std::exchange(scrub_, nullptr));
  for (JobPtr& job : checks_) {
    LetGoLocked(std::move(job));
  }
  checks_.clear();
  for (JobPtr& job : failed_reads_) {
    LetGoLocked(std::move(job));
  }
  failed_reads_.clear();
  not_before_ = absl::ZeroDuration();
}

void Scrubber::End() {
  MutexLock lock(&mu_);
  EndLocked();
}

void Scrubber::Start(uint64_t session, std::shared_ptr<ImageStore> store,
                     const control::v1::StartScrub& request) {
  auto job = std::make_shared<Job>();
  job->session = session;
  job->store = std::move(store);
  job->scrub_id = request.scrub_id();
  job->progress.set_scrub_id(request.scrub_id());
  job->progress.set_last_image_id(request.after_image_id());
  MutexLock lock(&mu_);
  LetGoLocked(std::exchange(scrub_, std::move(job)));
  rate_ = request.bytes_per_second() > 0 ? request.bytes_per_second()
                                         : options_.bytes_per_second;
  tokens_ = 0;
  tokens_at_ = seams_.clock->Boot();
  not_before_ = absl::ZeroDuration();
}

void Scrubber::Stop(const std::string& scrub_id) {
  MutexLock lock(&mu_);
  if (scrub_ != nullptr && scrub_->scrub_id == scrub_id) {
    LetGoLocked(std::exchange(scrub_, nullptr));
  }
}

void Scrubber::Check(uint64_t session, std::shared_ptr<ImageStore> store,
                     const control::v1::CheckCopy& request, Done done) {
  auto job = std::make_shared<Job>();
  job->session = session;
  job->store = std::move(store);
  job->single = true;
  job->asked = Generation::FromProto(request.generation());
  job->done = std::move(done);
  job->listed = true;
  job->ids.push_back(Uuid::FromBytesOrNone(request.image_id()));
  MutexLock lock(&mu_);
  checks_.push_back(std::move(job));
}

std::optional<control::v1::ScrubProgress> Scrubber::Progress(uint64_t session) {
  MutexLock lock(&mu_);
  if (scrub_ == nullptr || scrub_->session != session) {
    return std::nullopt;
  }
  return scrub_->progress;
}

storage::v1::CopyFault Scrubber::FaultOf(const absl::Status& status) {
  return HasReason(status, reason::kReplicaMissing) ||
                 HasReason(status, reason::kMountPermission)
             ? storage::v1::COPY_FAULT_MISSING
             : storage::v1::COPY_FAULT_DAMAGED;
}

bool Scrubber::NoteFault(const Uuid& image_id, const Generation& generation) {
  MutexLock lock(&mu_);
  if (known_.size() >= kMostKnown) {
    known_.clear();
  }
  const auto [it, added] = known_.emplace(image_id, generation);
  return added || std::exchange(it->second, generation) != generation;
}

bool Scrubber::KnowsFault(const Uuid& image_id) {
  MutexLock lock(&mu_);
  return known_.contains(image_id);
}

Scrubber::JobPtr Scrubber::CurrentLocked() {
  if (JobPtr job = DueFailedReadLocked(); job != nullptr) {
    return job;
  }
  return checks_.empty() ? scrub_ : checks_.front();
}

void Scrubber::RefillLocked() {
  const absl::Duration now = seams_.clock->Boot();
  const double rate = static_cast<double>(rate_);
  tokens_ = std::min(tokens_ + rate * absl::ToDoubleSeconds(now - tokens_at_),
                     rate * kBurstSeconds);
  tokens_at_ = now;
}

bool Scrubber::MayReadLocked(Job* job) {
  if (seams_.clock->Boot() < not_before_) {
    return false;
  }
  const MountView view = seams_.machine->View();
  if (!view.serves_reads || view.health == v1::HEALTH_FAILED) {
    job->progress.set_detail(absl::StrCat(
        "it waits for the mount: ",
        view.detail.empty() ? "it can not be read now" : view.detail));
    return false;
  }
  job->progress.clear_detail();
  return true;
}

void Scrubber::Tick() {
  MutexLock lock(&mu_);
  RefillLocked();
  PostLocked();
}

void Scrubber::PostLocked() {
  const JobPtr job = CurrentLocked();
  if (posted_ || job == nullptr || job->finished || tokens_ <= 0 ||
      !MayReadLocked(job.get())) {
    return;
  }
  posted_ = true;
  seams_.disk->Post([this, job, turn = turn_] { Run(job, turn); });
}

void Scrubber::Run(const JobPtr& job, uint64_t turn) {
  bool wanted = false;
  {
    MutexLock lock(&mu_);
    wanted = !job->finished;
  }
  if (wanted && job->failed_offset.has_value()) {
    ReadAgain(job.get());
  } else if (wanted) {
    seams_.idle_io(true);
    Step(job.get());
    seams_.idle_io(false);
  }
  MutexLock lock(&mu_);
  if (turn == turn_) {
    posted_ = false;
    PostLocked();
  }
}

void Scrubber::Step(Job* job) {
  if (!job->listed) {
    List(job);
  } else if (job->check != nullptr) {
    ReadBlock(job);
  } else if (job->next < job->ids.size()) {
    OpenNext(job);
  } else {
    Finish(job, job->verdict);
  }
}

void Scrubber::CallDone(const Job& job, const absl::Status& status) {
  MutexLock lock(&mu_);
  if (!job.finished) {
    seams_.machine->CallDone(status);
  }
}

void Scrubber::DamageSeen(const Job& job, const absl::Status& status) {
  MutexLock lock(&mu_);
  if (!job.finished) {
    seams_.machine->DamageSeen(absl::StrCat("the scrub found image ",
                                            job.ids[job.next].ToString(),
                                            " damaged: ", status.message()));
  }
}

void Scrubber::List(Job* job) {
  absl::StatusOr<std::vector<Uuid>> ids = job->store->ListIds();
  CallDone(*job, ids.status());
  if (!ids.ok()) {
    ReadFailed(job, ids.status());
    return;
  }
  Uuid after;
  {
    MutexLock lock(&mu_);
    after = Uuid::FromBytesOrNone(job->progress.last_image_id());
  }
  job->ids = *std::move(ids);
  job->next =
      after.none()
          ? 0
          : static_cast<size_t>(
                std::upper_bound(job->ids.begin(), job->ids.end(), after) -
                job->ids.begin());
  job->listed = true;
}

void Scrubber::OpenNext(Job* job) {
  absl::StatusOr<std::unique_ptr<ImageCheck>> check =
      job->store->OpenCheck(job->ids[job->next]);
  job->charged = 0;
  if (!check.ok()) {
    Charge(options_.least_image_bytes);
    Judge(job, check.status());
    return;
  }
  if (job->single && (*check)->generation() != job->asked) {
    Judge(job, absl::NotFoundError("another generation is here"));
    return;
  }
  job->check = *std::move(check);
  job->charged = job->check->record_bytes();
}

void Scrubber::ReadBlock(Job* job) {
  const absl::StatusOr<int64_t> read = job->check->Next();
  if (!read.ok()) {
    Charge(kBlockBytes);
    Judge(job, read.status());
    return;
  }
  if (*read > 0) {
    CallDone(*job, absl::OkStatus());
    job->charged += *read;
    Charge(*read);
    MutexLock lock(&mu_);
    job->progress.set_bytes(job->progress.bytes() + *read);
    return;
  }
  Charge(std::max<int64_t>(0, options_.least_image_bytes - job->charged));
  const Uuid id = job->ids[job->next];
  bool known = false;
  {
    MutexLock lock(&mu_);
    known = known_.erase(id) > 0;
  }
  if (known || job->single) {
    Found(job, storage::v1::COPY_FAULT_UNSPECIFIED, job->check->generation(),
          "");
  }
  NextImage(job);
}

void Scrubber::Judge(Job* job, const absl::Status& status) {
  Generation of;
  if (job->check != nullptr) {
    of = job->check->generation();
  } else if (const auto told =
                 Generation::Parse(MetadataOf(status)["generation"]);
             told.ok()) {
    of = *told;
  }
  if (absl::IsDataLoss(status)) {
    const bool missing = HasReason(status, reason::kReplicaMissing);
    const bool news = NoteFault(job->ids[job->next], of);
    Found(job, FaultOf(status), of, std::string(status.message()));
    // After the finding, by which the coordinator knows whose word it is. A
    // single one is looked at because it knows already.
    if (news && !missing && !job->single &&
        MetadataOf(status)["bytes"] != kBytesAsWritten) {
      DamageSeen(*job, status);
    }
    NextImage(job);
  } else if (absl::IsNotFound(status)) {
    if (job->single) {
      Found(job, storage::v1::COPY_FAULT_MISSING, job->asked,
            std::string(status.message()));
    }
    NextImage(job);
  } else {
    ReadFailed(job, status);
  }
}

void Scrubber::ReadFailed(Job* job, const absl::Status& status) {
  const Uuid id = job->listed ? job->ids[job->next] : Uuid();
  // A sector that is known to be bad says nothing new about the mount.
  bool known = false;
  Generation of;
  if (job->check != nullptr) {
    of = job->check->generation();
  }
  {
    MutexLock lock(&mu_);
    known = known_.contains(id);
  }
  if (!known) {
    CallDone(*job, status);
  }
  job->check.reset();
  const bool of_the_file = HasReason(status, reason::kMountFailed) ||
                           HasReason(status, reason::kMountPermission);
  if (job->listed && of_the_file && job->failed_once == id) {
    NoteFault(id, of);
    Found(job, FaultOf(status), of,
          absl::StrCat("it can not be read: ", status.message()));
    NextImage(job);
    return;
  }
  job->failed_once = id;
  MutexLock lock(&mu_);
  not_before_ = seams_.clock->Boot() + options_.retry_after;
  job->progress.set_detail(absl::StrCat("it tries again: ", status.message()));
}

void Scrubber::Found(Job* job, storage::v1::CopyFault fault,
                     const Generation& of, const std::string& detail) {
  const Uuid id = job->ids[job->next];
  control::v1::AgentMessage message;
  control::v1::CopyFinding* const finding =
      message.mutable_copy_faults()->add_findings();
  finding->set_image_id(id.bytes());
  const Generation generation = of.none() ? job->asked : of;
  if (!generation.none()) {
    *finding->mutable_generation() = generation.ToProto();
  }
  finding->set_fault(fault);
  finding->set_detail(detail);
  if (fault != storage::v1::COPY_FAULT_UNSPECIFIED) {
    job->verdict = fault == storage::v1::COPY_FAULT_MISSING
                       ? absl::NotFoundError(detail)
                       : absl::DataLossError(detail);
    LogWarning("copy_fault", {{"image", id.ToString()},
                              {"generation", generation.ToString()},
                              {"detail", detail}});
  }
  seams_.send(job->session, std::move(message));
}

void Scrubber::NextImage(Job* job) {
  job->check.reset();
  job->failed_once = Uuid();
  const Uuid id = job->ids[job->next++];
  MutexLock lock(&mu_);
  job->progress.set_last_image_id(id.bytes());
  job->progress.set_images(job->progress.images() + 1);
}

void Scrubber::Finish(Job* job, const absl::Status& status) {
  job->ids = {};
  job->next = 0;
  Done done;
  {
    MutexLock lock(&mu_);
    if (job->finished) {
      return;  // ended meanwhile: nobody waits for an answer
    }
    job->finished = true;
    job->progress.set_done(true);
    if (job->single) {
      checks_.pop_front();
      done = std::move(job->done);
    }
  }
  if (done) {
    done(status);
  }
}

void Scrubber::Charge(int64_t bytes) {
  MutexLock lock(&mu_);
  tokens_ -= static_cast<double>(bytes);
}

}  // namespace predella::agent
