#include "agent/store/image_check.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

absl::Status Finding(absl::string_view why, absl::string_view reason,
                     const Generation& generation) {
  ErrorMetadata metadata;
  if (!generation.none()) {
    metadata["generation"] = generation.ToString();
  }
  return MakeError(absl::StatusCode::kDataLoss, reason, why,
                   std::move(metadata));
}

// Not what the image is, and no sign that the disk changes bytes.
absl::Status AsWritten(const absl::Status& finding) {
  ErrorMetadata metadata = MetadataOf(finding);
  metadata["bytes"] = std::string(kBytesAsWritten);
  return MakeError(finding.code(), ReasonOf(finding), finding.message(),
                   std::move(metadata));
}

absl::Status Nothing(const Uuid& image_id) {
  return absl::NotFoundError(
      absl::StrCat("image ", image_id.ToString(), " is not, or not yet, here"));
}

// The record as the disk has it, not as the cache does.
absl::Status DropRecord(StoreCore* core, const Uuid& image_id) {
  auto file = core->fs->Open(layout::RecordPath(image_id), OpenMode::kRead);
  if (!file.ok()) {
    // Look says what that means.
    return absl::OkStatus();
  }
  return (*file)->DropCache(0, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageCheck>> ImageCheckImpl::Open(
    StoreCore* core, const Uuid& image_id) {
  const IdLock lock(&core->locks, image_id);
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(DropRecord(core, image_id));
  ASSIGN_OR_RETURN(const NameState state, Look(core, image_id));
  if (state.unsure || (!state.name && !state.record)) {
    return Nothing(image_id);
  }
  const absl::Status& refused =
      state.record_refused.ok() ? state.name_refused : state.record_refused;
  if (!refused.ok()) {
    const absl::Status why = RefusedError(
        state.record_refused.ok() ? "its file" : "its record", refused);
    return AsWritten(
        Finding(why.message(), reason::kReplicaMissing, state.generation()));
  }
  if (!state.record || state.damaged) {
    // Nobody can say which generation it was.
    if (!state.name) {
      return Nothing(image_id);
    }
    return state.record
               ? Finding("its record is damaged", reason::kChecksumMismatch,
                         Generation())
               : AsWritten(Finding("it is a file without a record",
                                   reason::kChecksumMismatch, Generation()));
  }
  if (!state.image &&
      core->registry.FindInflight(state.upload_id()).has_value()) {
    return Nothing(image_id);  // its publication has not ended
  }
  if (!state.name) {
    return Finding("its record is here and its file is not",
                   reason::kReplicaMissing, state.generation());
  }
  if (!state.image) {
    return Finding("what bears its name is not a regular file",
                   reason::kChecksumMismatch, state.generation());
  }
  PublishedImage image = ImageOf(state.header);
  auto table = ReadTable(core, image);
  if (absl::IsDataLoss(table.status())) {
    return Finding(table.status().message(), reason::kChecksumMismatch,
                   image.generation);
  }
  RETURN_IF_ERROR(table.status());
  auto file = core->fs->Open(layout::ImagePath(image_id), OpenMode::kRead);
  if (absl::IsPermissionDenied(file.status())) {
    return AsWritten(Finding(RefusedError("its file", file.status()).message(),
                             reason::kReplicaMissing, image.generation));
  }
  RETURN_IF_ERROR(file.status());
  std::unique_ptr<ImageCheckImpl> check(new ImageCheckImpl(
      core, std::move(image), *std::move(table), *std::move(file)));
  RETURN_IF_ERROR(check->CheckSize());
  // All of it at once: a page that straddles two ranges is dropped with
  // neither. What a reader brings in from here on comes from the disk too.
  RETURN_IF_ERROR(check->file_->DropCache(0, 0));
  check->StartDigests();
  return std::unique_ptr<ImageCheck>(std::move(check));
}

ImageCheckImpl::~ImageCheckImpl() {
  // Nobody asked for these bytes: the room is for those that are read.
  LogIfError(file_->DropCache(0, 0), "the cache gives them up by itself");
}

int64_t ImageCheckImpl::record_bytes() const {
  return RecordBytes(static_cast<int64_t>(table_.size()));
}

absl::Status ImageCheckImpl::Damaged(absl::string_view why) const {
  return Finding(why, reason::kChecksumMismatch, image_.generation);
}

void ImageCheckImpl::StartDigests() {
  for (const storage::v1::Hash& hash : image_.hashes) {
    std::unique_ptr<Digest> digest = Digest::Make(hash.algorithm());
    // One that this library can not compute says nothing of the bytes.
    if (digest != nullptr && digest->size() == hash.value().size()) {
      digests_.push_back({std::move(digest), &hash});
    }
  }
}

absl::Status ImageCheckImpl::CheckSize() {
  ASSIGN_OR_RETURN(const FileInfo info, file_->Stat());
  if (info.size_bytes != image_.size_bytes) {
    return Damaged(absl::StrCat("the file has ", info.size_bytes,
                                " bytes; its record says ", image_.size_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ImageCheckImpl::Next() {
  absl::StatusOr<int64_t> read = ReadBlock();
  if (absl::IsDataLoss(read.status())) {
    return IfStillHere(read.status());
  }
  return read;
}

absl::StatusOr<int64_t> ImageCheckImpl::ReadBlock() {
  if (offset_ >= image_.size_bytes) {
    RETURN_IF_ERROR(CheckWhole());
    return 0;
  }
  const int64_t size = std::min(kBlockBytes, image_.size_bytes - offset_);
  block_.resize(static_cast<size_t>(size));
  ASSIGN_OR_RETURN(const size_t got,
                   file_->Pread(offset_, block_.size(), block_.data()));
  if (got != block_.size()) {
    return Damaged(absl::StrCat("the file ends at ",
                                offset_ + static_cast<int64_t>(got),
                                "; its record says ", image_.size_bytes));
  }
  const uint32_t crc = Crc32c(block_);
  const uint32_t want = table_[static_cast<size_t>(offset_ / kBlockBytes)];
  if (crc != want) {
    return Damaged(absl::StrFormat(
        "the block at %d has the CRC32C %08x; its record says %08x", offset_,
        crc, want));
  }
  crc32c_ = CombineCrc32c(crc32c_, crc, static_cast<uint64_t>(size));
  for (const Given& given : digests_) {
    given.digest->Update(block_);
  }
  RETURN_IF_ERROR(file_->DropCache(offset_, size));
  offset_ += size;
  return size;
}

absl::Status ImageCheckImpl::CheckWhole() {
  if (crc32c_ != image_.crc32c) {
    return Damaged(
        absl::StrFormat("its bytes have the CRC32C %08x; its record says %08x",
                        crc32c_, image_.crc32c));
  }
  std::vector<Given> digests = std::move(digests_);
  digests_.clear();
  for (const Given& given : digests) {
    if (given.digest->Finish() != given.hash->value()) {
      return AsWritten(Damaged(absl::StrCat(
          "its bytes agree with their checksums, and not with the ",
          given.hash->algorithm(), " that was given with them")));
    }
  }
  return CheckSize();
}

absl::Status ImageCheckImpl::IfStillHere(const absl::Status& found) {
  const IdLock lock(&core_->locks, image_.image_id);
  RETURN_IF_ERROR(lock.status());
  ASSIGN_OR_RETURN(const NameState state, Look(core_, image_.image_id));
  const bool here = state.name && state.record && !state.damaged &&
                    state.generation() == image_.generation;
  return here ? found : Nothing(image_.image_id);
}

}  // namespace predella::agent
