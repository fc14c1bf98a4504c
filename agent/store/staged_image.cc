#include "agent/store/staged_image.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/publication.h"
#include "agent/store/record_codec.h"
#include "agent/store/state_codec.h"
#include "agent/store/store_core.h"
#include "agent/store/verified_read.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

absl::Status SizeMismatch(absl::string_view message) {
  return MakeError(absl::StatusCode::kOutOfRange, reason::kSizeMismatch,
                   message);
}

size_t Index(int64_t block) { return static_cast<size_t>(block); }

}  // namespace

StagedImageImpl::StagedImageImpl(StoreCore* core, StagedStart start)
    : core_(core),
      spec_(std::move(start.spec)),
      file_(std::move(start.file)),
      create_time_us_(start.create_time_us),
      serial_(start.serial),
      table_(std::move(start.table)),
      condemned_(start.condemned),
      published_(std::move(start.published)) {
  const auto begin = [](int64_t next, int64_t end) {
    Segment segment;
    segment.next = segment.safe = next;
    segment.started = segment.waited = next;
    segment.end = end;
    return segment;
  };
  prefix_ = begin(start.prefix_next, spec_.tail_start);
  tail_ = begin(start.tail_next, spec_.size_bytes.value_or(INT64_MAX));
  // Whoever opened the file cut it there.
  file_end_ = empty_from_ =
      tail_.next > spec_.tail_start ? tail_.next : prefix_.next;
}

absl::Status StagedImageImpl::Prepare() {
  RETURN_IF_ERROR(file_->SetOwnership(core_->options.file_mode, core_->group));
  RETURN_IF_ERROR(ReplaceFile(core_->fs, layout::StatePath(spec_.upload_id),
                              EncodeState(State()), Durability::kProcess));
  // Of a thin one nobody knows how much it will need; the ledger keeps its
  // promise all the same.
  if (spec_.size_bytes.value_or(0) > 0 && !core_->options.thin) {
    const absl::Status allocated = file_->Allocate(0, *spec_.size_bytes);
    if (allocated.ok()) {
      reserved_bytes_ = *spec_.size_bytes;
    } else if (!absl::IsUnimplemented(allocated)) {
      return allocated;
    }
  }
  return absl::OkStatus();
}

int64_t StagedImageImpl::allocated_bytes() const {
  return std::max(reserved_bytes_, received_bytes() - hole_bytes_);
}

absl::Status StagedImageImpl::AppendTail(
    int64_t offset, absl::Span<const absl::string_view> slices,
    std::optional<uint32_t> crc32c) {
  return Append(&tail_, offset, slices, crc32c);
}

absl::Status StagedImageImpl::AppendPrefix(
    int64_t offset, absl::Span<const absl::string_view> slices,
    std::optional<uint32_t> crc32c) {
  return Append(&prefix_, offset, slices, crc32c);
}

absl::Status StagedImageImpl::CheckWritable() const {
  if (condemned_) {
    return MakeError(
        absl::StatusCode::kUnavailable, reason::kMountFailed,
        absl::StrCat("the file of upload ", spec_.upload_id.ToString(),
                     " is condemned: a sync or write of it "
                     "failed"));
  }
  if (!published_.has_value() &&
      !core_->registry.Owns(spec_.upload_id, serial_)) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kUploadAborted,
        absl::StrCat("the bytes of upload ", spec_.upload_id.ToString(),
                     " were removed or opened again"));
  }
  return absl::OkStatus();
}

absl::Status StagedImageImpl::CheckAppend(const Segment& segment,
                                          int64_t offset,
                                          int64_t length) const {
  RETURN_IF_ERROR(CheckWritable());
  if (offset != segment.next) {
    return MakeError(absl::StatusCode::kOutOfRange, reason::kOffsetMismatch,
                     absl::StrCat("bytes at ", offset, " were sent; ",
                                  segment.next, " is expected"),
                     {{"expected_offset", absl::StrCat(segment.next)}});
  }
  if (length > segment.end - segment.next) {
    return SizeMismatch(absl::StrCat(length, " bytes at ", offset,
                                     " go beyond the announced end at ",
                                     segment.end));
  }
  if (published_.has_value() && length > 0) {
    return SizeMismatch("the upload is published already");
  }
  return absl::OkStatus();
}

std::vector<StagedImageImpl::Piece> StagedImageImpl::Digest(
    int64_t offset, absl::Span<const absl::string_view> slices,
    uint32_t* whole) const {
  std::vector<Piece> pieces;
  *whole = 0;
  for (absl::string_view rest : slices) {
    while (!rest.empty()) {
      const int64_t block = offset / kBlockBytes;
      const int64_t room = (block + 1) * kBlockBytes - offset;
      const absl::string_view part = rest.substr(0, Index(room));
      const uint32_t crc = Crc32c(part);
      *whole = CombineCrc32c(*whole, crc, part.size());
      if (pieces.empty() || pieces.back().block != block) {
        const bool begun = offset % kBlockBytes != 0;
        pieces.push_back({block, begun ? table_[Index(block)] : 0});
      }
      pieces.back().crc = CombineCrc32c(pieces.back().crc, crc, part.size());
      rest.remove_prefix(part.size());
      offset += static_cast<int64_t>(part.size());
    }
  }
  return pieces;
}

absl::Status StagedImageImpl::Append(Segment* segment, int64_t offset,
                                     absl::Span<const absl::string_view> slices,
                                     std::optional<uint32_t> crc32c) {
  int64_t length = 0;
  for (const absl::string_view slice : slices) {
    length += static_cast<int64_t>(slice.size());
  }
  RETURN_IF_ERROR(CheckAppend(*segment, offset, length));
  uint32_t whole = 0;
  const std::vector<Piece> pieces = Digest(offset, slices, &whole);
  if (crc32c.has_value() && *crc32c != whole) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        absl::StrCat("the chunk of ", length, " bytes at ", offset,
                     " arrived with the checksum ", absl::Hex(whole), ", not ",
                     absl::Hex(*crc32c)),
        {{"offset", absl::StrCat(offset)}});
  }
  // Before the bytes are taken: when there is no room for the state either,
  // the same call can be made again.
  if (unsaved_bytes() > 0 && unsaved_bytes() + length > kStateIntervalBytes) {
    RETURN_IF_ERROR(Checkpoint());
  }
  RETURN_IF_ERROR(Write(segment, slices));
  for (const Piece& piece : pieces) {
    if (table_.size() <= Index(piece.block)) {
      table_.resize(Index(piece.block) + 1, 0);
    }
    table_[Index(piece.block)] = piece.crc;
  }
  segment->next += length;
  core_->registry.SetInflightBytes(spec_.upload_id, serial_, received_bytes());
  RETURN_IF_ERROR(WriteBack(segment));
  if (unsaved_bytes() >= kStateIntervalBytes) {
    const absl::Status saved = Checkpoint();
    if (condemned_) {
      return saved;
    }
    LogIfError(saved, "tried again, and told, at the next append");
  }
  return absl::OkStatus();
}

absl::Status StagedImageImpl::Checkpoint() {
  // Under the lock: a removal between the check and the write would leave a
  // state without bytes.
  const IdLock lock(&core_->locks, spec_.image_id);
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(CheckWritable());
  if (published_.has_value() || unsaved_bytes() == 0) {
    return absl::OkStatus();
  }
  return SaveState(Durability::kProcess);
}

absl::Status StagedImageImpl::Sync() {
  const IdLock lock(&core_->locks, spec_.image_id);
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(CheckWritable());
  if (published_.has_value()) {
    return absl::OkStatus();
  }
  // The bytes first: a state must not vouch for what a power cut took.
  if (const absl::Status synced = file_->Datasync(); !synced.ok()) {
    return Condemn(synced);
  }
  RETURN_IF_ERROR(SaveState(Durability::kPower));
  if (const absl::Status named = core_->fs->SyncDir(layout::kInflightDir);
      !named.ok()) {
    return Condemn(named);
  }
  return absl::OkStatus();
}

absl::Status StagedImageImpl::SaveState(Durability durability) {
  const absl::Status saved =
      ReplaceFile(core_->fs, layout::StatePath(spec_.upload_id),
                  EncodeState(State()), durability);
  if (!saved.ok()) {
    return HasReason(saved, reason::kMountFull) ? saved : Condemn(saved);
  }
  prefix_.safe = prefix_.next;
  tail_.safe = tail_.next;
  return absl::OkStatus();
}

absl::StatusOr<std::string> StagedImageImpl::ReadBack(int64_t offset,
                                                      int64_t length) {
  const bool in_prefix = offset < spec_.tail_start;
  const int64_t end = in_prefix ? prefix_.next : tail_.next;
  const int64_t first = std::min(length, end - offset);
  if (offset < 0 || length < 0 || offset > end) {
    return MakeError(absl::StatusCode::kOutOfRange, reason::kReadPastEnd,
                     absl::StrCat("byte ", offset, " has not been received; ",
                                  end, " is the next"));
  }
  ASSIGN_OR_RETURN(VerifiedBytes out,
                   ReadVerified(file_.get(), table_, end, offset, first));
  if (in_prefix && first < length && end == spec_.tail_start &&
      tail_.next > end) {
    ASSIGN_OR_RETURN(const VerifiedBytes rest,
                     ReadVerified(file_.get(), table_, tail_.next, end,
                                  std::min(length - first, tail_.next - end)));
    out.bytes.append(rest.bytes);
  }
  return std::move(out.bytes);
}

absl::Status StagedImageImpl::CheckCommit(const CommitRequest& request) const {
  if (prefix_.next != spec_.tail_start || tail_.next != request.size_bytes) {
    return SizeMismatch(absl::StrCat(
        "the image is said to have ", request.size_bytes, " bytes; ",
        received_bytes(), " were received (up to byte ", tail_.next, ")"));
  }
  if (spec_.size_bytes.has_value() && *spec_.size_bytes != tail_.next) {
    return SizeMismatch(absl::StrCat("the upload was announced with ",
                                     *spec_.size_bytes, " bytes; ", tail_.next,
                                     " were received"));
  }
  if (request.crc32c.has_value() && *request.crc32c != WholeCrc()) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        absl::StrCat("the ", tail_.next, " bytes received have the checksum ",
                     absl::Hex(WholeCrc()), ", not ",
                     absl::Hex(*request.crc32c)));
  }
  return absl::OkStatus();
}

absl::StatusOr<PublishedImage> StagedImageImpl::Publish(
    const CommitRequest& request) {
  RETURN_IF_ERROR(CheckCommit(request));
  const IdLock lock(&core_->locks, spec_.image_id);
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(CheckWritable());
  if (published_.has_value()) {
    return *published_;
  }
  const storage::v1::ReplicaRecord record = Record(request);
  Publication publication(core_, file_.get(), record, table_);
  auto published = publication.Run();
  if (publication.condemned()) {
    MarkCondemned();
  }
  if (published.ok()) {
    published_ = *published;
    prefix_.safe = prefix_.next;
    tail_.safe = tail_.next;
    return published;
  }
  return FailedLayout(published.status());
}

absl::Status StagedImageImpl::Condemn(const absl::Status& status) {
  MarkCondemned();
  return FailedSync(status, absl::StrCat("upload ", spec_.upload_id.ToString(),
                                         " is condemned"));
}

void StagedImageImpl::MarkCondemned() {
  condemned_ = true;
  core_->registry.Condemn(spec_.upload_id, State());
  // Without a state a later process can't take the bytes for good: the page
  // cache may show what the disk does not hold.
  LogIfError(UnlinkIfThere(core_->fs, layout::StatePath(spec_.upload_id)),
             "a later process reads the bytes cold before it trusts them");
}

storage::v1::InflightState StagedImageImpl::State() const {
  storage::v1::InflightState state;
  state.set_upload_id(spec_.upload_id.bytes());
  state.set_image_id(spec_.image_id.bytes());
  *state.mutable_generation() = spec_.generation.ToProto();
  state.set_location_key(spec_.location_key);
  if (spec_.size_bytes.has_value()) {
    state.set_size_bytes(*spec_.size_bytes);
  }
  state.set_prefix_bytes(prefix_.next);
  state.set_tail_start(spec_.tail_start);
  state.set_tail_bytes(tail_.next - spec_.tail_start);
  state.mutable_crc_table()->Add(table_.begin(), table_.end());
  state.set_create_time_us(create_time_us_);
  *state.mutable_decision() = spec_.decision;
  return state;
}

storage::v1::ReplicaRecord StagedImageImpl::Record(
    const CommitRequest& request) const {
  storage::v1::ReplicaRecord record;
  record.set_image_id(spec_.image_id.bytes());
  *record.mutable_generation() = spec_.generation.ToProto();
  record.set_upload_id(spec_.upload_id.bytes());
  record.set_location_key(spec_.location_key);
  record.set_size_bytes(tail_.next);
  record.set_crc32c(WholeCrc());
  for (const storage::v1::Hash& hash : request.hashes) {
    *record.add_hashes() = hash;
  }
  record.set_create_time_us(create_time_us_);
  record.set_publish_time_us(core_->clock->NowMicros());
  *record.mutable_decision() = spec_.decision;
  record.set_table_block_bytes(kBlockBytes);
  return record;
}

uint32_t StagedImageImpl::WholeCrc() const {
  uint32_t crc = 0;
  int64_t at = 0;
  for (const uint32_t block : table_) {
    const int64_t length = std::min(kBlockBytes, tail_.next - at);
    crc = CombineCrc32c(crc, block, static_cast<uint64_t>(length));
    at += length;
  }
  return crc;
}

}  // namespace predella::agent
