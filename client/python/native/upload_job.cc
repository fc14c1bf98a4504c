#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "client/python/native/jobs.h"
#include "common/digest.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::native {
namespace {

// Bytes that an upload keeps for its threads beside the client's own window.
constexpr size_t kQueueBytes = size_t{8} << 20;

}  // namespace

class UploadJob::Hashing {
 public:
  Hashing(std::string name, std::unique_ptr<Digest> digest)
      : name_(std::move(name)), digest_(std::move(digest)) {}
  const std::string& name() const { return name_; }
  Digest* digest() { return digest_.get(); }

 private:
  const std::string name_;
  const std::unique_ptr<Digest> digest_;
};

absl::StatusOr<std::shared_ptr<UploadJob>> UploadJob::Start(
    std::shared_ptr<Connections> connections, const UploadOptions& upload,
    const std::vector<HashName>& hashes) {
  std::vector<std::shared_ptr<Hashing>> hashings;
  for (const HashName& hash : hashes) {
    std::unique_ptr<Digest> digest = Digest::Make(hash.openssl);
    if (digest == nullptr) {
      return absl::UnimplementedError(
          absl::StrCat("the crypto library has no ", hash.openssl));
    }
    hashings.push_back(std::make_shared<Hashing>(hash.name, std::move(digest)));
  }
  std::shared_ptr<UploadJob> job(new UploadJob(upload));
  {
    MutexLock lock(&job->mu_);
    job->next_.assign(1 + hashings.size(), 0);
    job->hashes_open_ = hashings.size();
  }
  for (size_t i = 0; i < hashings.size(); ++i) {
    if (absl::Status status = Spawn("predella-hash",
                                    [job, i, hashing = hashings[i]] {
                                      job->RunHash(i + 1, hashing.get());
                                    });
        !status.ok()) {
      job->Abort();  // ends those that did start
      return status;
    }
  }
  absl::Status status = Spawn("predella-put", [job, connections] {
    job->RunNetwork(connections.get());
  });
  if (!status.ok()) {
    job->Abort();
    return status;
  }
  return job;
}

UploadJob::~UploadJob() {
  MutexLock lock(&mu_);
  for (void* owner : retired_) {
    Bury(owner);
  }
  for (const Piece& piece : pieces_) {
    Bury(piece.owner);
  }
}

bool UploadJob::ReadyLocked() const {
  if (aborted_) {
    return network_ended_;
  }
  if (!error_.ok() && !hash_only_) {
    return true;
  }
  if (finished_) {
    return hashes_open_ == 0 && (hash_only_ || network_ended_);
  }
  return queued_bytes_ < kQueueBytes;
}

absl::StatusOr<bool> UploadJob::Append(Piece piece) {
  MutexLock lock(&mu_);
  if (finished_ || aborted_) {
    return absl::FailedPreconditionError("the upload was ended");
  }
  if (!hash_only_) {
    RETURN_IF_ERROR(error_);
  }
  if (queued_bytes_ >= kQueueBytes) {
    return false;
  }
  Piece& kept = pieces_.emplace_back(std::move(piece));
  if (kept.owner == nullptr) {
    kept.data = kept.copy;
  }
  queued_bytes_ += kept.data.size();
  Retire();  // nobody may be there to pass it
  cv_.SignalAll();
  return true;
}

absl::StatusOr<bool> UploadJob::Write(absl::string_view data, void* owner) {
  return Append({data, owner, ""});
}

absl::StatusOr<bool> UploadJob::WriteCopy(absl::string_view data) {
  return Append({{}, nullptr, std::string(data)});
}

std::vector<void*> UploadJob::TakeRetired() {
  MutexLock lock(&mu_);
  return std::exchange(retired_, {});
}

void UploadJob::Finish() {
  MutexLock lock(&mu_);
  finished_ = true;
  Changed();
}

void UploadJob::Abort() {
  MutexLock lock(&mu_);
  aborted_ = true;
  Changed();
}

void UploadJob::HashOnly() {
  MutexLock lock(&mu_);
  hash_only_ = true;
  Retire();
  Changed();
}

absl::StatusOr<std::optional<v1::Image>> UploadJob::Result() {
  MutexLock lock(&mu_);
  if (hash_only_) {
    return std::nullopt;
  }
  RETURN_IF_ERROR(error_);
  return image_;
}

std::map<std::string, std::string> UploadJob::hashes() {
  MutexLock lock(&mu_);
  return hashes_;
}

UploadJob::Turn UploadJob::Next(size_t consumer, absl::string_view* data) {
  MutexLock lock(&mu_);
  while (true) {
    if (aborted_) {
      return Turn::kAbort;
    }
    if (next_[consumer] < first_ + pieces_.size()) {
      *data = pieces_[next_[consumer] - first_].data;
      return Turn::kData;
    }
    if (finished_) {
      return Turn::kEnd;
    }
    cv_.Wait(&mu_);
  }
}

void UploadJob::Pass(size_t consumer) {
  MutexLock lock(&mu_);
  ++next_[consumer];
  Retire();
}

void UploadJob::Retire() {
  uint64_t least = first_ + pieces_.size();
  for (size_t i = 0; i < next_.size(); ++i) {
    // The network's thread takes nothing after it has failed.
    if (i > 0 || error_.ok()) {
      least = std::min(least, next_[i]);
    }
  }
  bool any = false;
  while (first_ < least) {
    Piece& front = pieces_.front();
    queued_bytes_ -= front.data.size();
    if (front.owner != nullptr) {
      retired_.push_back(front.owner);
    }
    pieces_.pop_front();
    ++first_;
    any = true;
  }
  if (any) {
    Changed();
  }
}

void UploadJob::Fail(const absl::Status& status) {
  MutexLock lock(&mu_);
  if (error_.ok()) {
    error_ = status;
    Changed();
  }
}

void UploadJob::RunNetwork(Connections* connections) {
  const absl::Status status = Transfer(connections);
  MutexLock lock(&mu_);
  if (!status.ok() && error_.ok()) {
    error_ = status;
  }
  network_ended_ = true;
  Retire();
  Changed();
}

absl::Status UploadJob::Transfer(Connections* connections) {
  ASSIGN_OR_RETURN(Client client, connections->Get());
  ASSIGN_OR_RETURN(std::unique_ptr<ImageWriter> writer,
                   client.StartUpload(upload_));
  absl::Status status;
  Turn turn = Turn::kData;
  while (status.ok() && turn == Turn::kData) {
    absl::string_view data;
    turn = Next(0, &data);
    if (turn == Turn::kData) {
      status = writer->Write(data);
    }
    if (turn == Turn::kData && status.ok()) {
      Pass(0);
    }
  }
  if (turn == Turn::kEnd) {
    status = Commit(writer.get(), connections->options().retry_for);
  }
  if (turn == Turn::kAbort || !status.ok()) {
    if (status.ok()) {
      status = MakeError(absl::StatusCode::kAborted, reason::kUploadAborted,
                         "the upload was given up");
    }
    Fail(status);  // known before the rest of it is removed
    // The coordinator ends what this does not reach when it expires.
    writer->Abort().IgnoreError();
  }
  return status;
}

absl::Status UploadJob::Commit(ImageWriter* writer, absl::Duration limit) {
  std::vector<v1::Hash> hashes;
  {
    MutexLock lock(&mu_);
    while (hashes_open_ > 0) {
      if (aborted_) {
        return absl::CancelledError("the upload was given up");
      }
      cv_.Wait(&mu_);
    }
    if (aborted_) {
      return absl::CancelledError("the upload was given up");
    }
    for (const auto& [name, hex] : hashes_) {
      v1::Hash& hash = hashes.emplace_back();
      hash.set_algorithm(name);
      hash.set_hex(hex);
    }
  }
  // An agent that has the whole image waits for its coordinator for as long as
  // the upload lives; the caller does not.
  const WaitingScope scope(
      [this, limit](const absl::Status& why, absl::Duration waited) {
        if (waited > limit) {
          Fail(Annotate(why, absl::StrCat("what came of ", upload_.image,
                                          " is not known after ",
                                          absl::FormatDuration(limit))));
        }
      });
  ASSIGN_OR_RETURN(v1::Image image, writer->Commit(hashes));
  MutexLock lock(&mu_);
  image_ = std::move(image);
  return absl::OkStatus();
}

void UploadJob::RunHash(size_t consumer, Hashing* hashing) {
  while (true) {
    absl::string_view data;
    const Turn turn = Next(consumer, &data);
    if (turn == Turn::kData) {
      hashing->digest()->Update(data);
      Pass(consumer);
      continue;
    }
    MutexLock lock(&mu_);
    if (turn == Turn::kEnd) {
      hashes_[hashing->name()] =
          absl::BytesToHexString(hashing->digest()->Finish());
    }
    --hashes_open_;
    Changed();
    return;
  }
}

}  // namespace predella::native
