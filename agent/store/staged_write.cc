// How an upload's bytes reach its file: whole or sparse, never with more dirty
// pages than the window.
#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/sparse_write.h"
#include "agent/store/staged_image.h"
#include "agent/store/store_core.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// Dirty pages of an upload, and the ranges they are written back in.
constexpr int64_t kDirtyWindow = int64_t{16} << 20;
constexpr int64_t kWritebackUnit = int64_t{4} << 20;

int64_t LengthOf(absl::Span<const absl::string_view> slices) {
  int64_t length = 0;
  for (const absl::string_view slice : slices) {
    length += static_cast<int64_t>(slice.size());
  }
  return length;
}

}  // namespace

absl::Status StagedImageImpl::Put(int64_t offset,
                                  absl::Span<const absl::string_view> slices,
                                  int64_t* hole_bytes) {
  // Below empty_from_ something else may lie, which a hole would show.
  const bool sparse = core_->options.thin && offset >= empty_from_;
  int64_t at = offset;
  int64_t written = offset;
  for (const absl::string_view slice : slices) {
    const int64_t end = at + static_cast<int64_t>(slice.size());
    if (sparse) {
      ASSIGN_OR_RETURN(const SparseWrite done,
                       WriteSparse(file_.get(), at, slice));
      written = done.end > at ? done.end : written;
      *hole_bytes += done.hole_bytes;
    } else {
      RETURN_IF_ERROR(file_->Pwrite(at, slice));
      written = end;
    }
    at = end;
  }
  // A hole at the end of a file is the file's size and nothing else.
  return at > std::max(written, file_end_) ? file_->Truncate(at)
                                           : absl::OkStatus();
}

absl::Status StagedImageImpl::Write(
    Segment* segment, absl::Span<const absl::string_view> slices) {
  const int64_t end = segment->next + LengthOf(slices);
  int64_t hole_bytes = 0;
  const absl::Status written = Put(segment->next, slices, &hole_bytes);
  if (written.ok()) {
    hole_bytes_ += hole_bytes;
    file_end_ = std::max(file_end_, end);
    return absl::OkStatus();
  }
  if (!HasReason(written, reason::kMountFull)) {
    return Condemn(written);
  }
  if (segment == &tail_) {
    if (const absl::Status cut = file_->Truncate(segment->next); !cut.ok()) {
      return Condemn(cut);
    }
    reserved_bytes_ = 0;  // the cut gave it back
    file_end_ = segment->next;
  } else {
    // Part of it may lie there, and the tail above it.
    empty_from_ = std::max(empty_from_, end);
  }
  const auto space = core_->fs->Space();
  const int64_t left = space.ok() ? space->available_bytes : 0;
  return MakeError(
      absl::StatusCode::kResourceExhausted, reason::kMountFull,
      absl::StrCat(core_->fs->root(), " is full: ", left,
                   " bytes are available; upload ", spec_.upload_id.ToString(),
                   " stands at byte ", segment->next),
      {{"available_bytes", absl::StrCat(left)},
       {"offset", absl::StrCat(segment->next)}});
}

absl::Status StagedImageImpl::WriteBack(Segment* segment) {
  while (range_sync_ && segment->next - segment->started >= kWritebackUnit) {
    const absl::Status begun =
        file_->StartWriteback(segment->started, kWritebackUnit);
    if (absl::IsUnimplemented(begun)) {
      range_sync_ = false;
      break;
    }
    if (!begun.ok()) {
      return Condemn(begun);
    }
    segment->started += kWritebackUnit;
  }
  while (segment->next - segment->waited > kDirtyWindow) {
    if (!range_sync_) {
      if (const absl::Status synced = file_->Datasync(); !synced.ok()) {
        return Condemn(synced);
      }
      segment->waited = segment->next;
      break;
    }
    if (const absl::Status waited =
            file_->WaitWriteback(segment->waited, kWritebackUnit);
        !waited.ok()) {
      return Condemn(waited);
    }
    segment->waited += kWritebackUnit;
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
