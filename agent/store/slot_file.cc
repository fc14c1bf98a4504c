#include "agent/store/slot_file.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/store/bytes.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr absl::string_view kSlotMagic = "PRDLSLT1";
constexpr size_t kSequenceAt = 8;
constexpr size_t kLengthAt = 16;
constexpr size_t kSlotCrcAt = 20;
constexpr size_t kSlotHeader = static_cast<size_t>(kSlotHeaderBytes);

}  // namespace

std::string EncodeSlot(uint64_t sequence, absl::string_view content) {
  std::string out(kSlotMagic);
  PutU64(&out, sequence);
  PutU32(&out, static_cast<uint32_t>(content.size()));
  PutU32(&out, ExtendCrc32c(Crc32c(out), content));
  out.append(content.data(), content.size());
  return out;
}

std::optional<DecodedSlot> DecodeSlot(absl::string_view slot) {
  if (slot.size() < kSlotHeader ||
      slot.substr(0, kSlotMagic.size()) != kSlotMagic) {
    return std::nullopt;
  }
  const size_t length = GetU32(slot, kLengthAt);
  if (length > slot.size() - kSlotHeader) {
    return std::nullopt;
  }
  const absl::string_view content = slot.substr(kSlotHeader, length);
  if (ExtendCrc32c(Crc32c(slot.substr(0, kSlotCrcAt)), content) !=
      GetU32(slot, kSlotCrcAt)) {
    return std::nullopt;
  }
  return DecodedSlot{GetU64(slot, kSequenceAt), std::string(content)};
}

absl::StatusOr<std::unique_ptr<SlotFile>> SlotFile::Open(FileSystem* fs,
                                                         absl::string_view path,
                                                         int slots,
                                                         int64_t slot_bytes) {
  std::unique_ptr<SlotFile> out(
      new SlotFile(fs, std::string(path), slots, slot_bytes));
  RETURN_IF_ERROR(out->Load());
  return out;
}

absl::Status SlotFile::Load() {
  auto opened = fs_->Open(path_, OpenMode::kReadWrite);
  read_only_ = HasReason(opened.status(), reason::kMountReadOnly);
  if (read_only_) {  // reads of a mount that became read-only go on
    opened = fs_->Open(path_, OpenMode::kRead);
  }
  ASSIGN_OR_RETURN(file_, std::move(opened));
  ASSIGN_OR_RETURN(const FileInfo info, file_->Stat());
  place_->Opened(info);
  if (!read_only_) {
    RETURN_IF_ERROR(file_->Datasync());
  }
  LogIfError(file_->DropCache(0, slots_ * slot_bytes_),
             "the content is checked by its checksum as well");
  uint64_t newest = 0;
  bool written = false;
  for (int i = 0; i < slots_; ++i) {
    ASSIGN_OR_RETURN(const bool blank, IsBlank(i));
    written = written || !blank;
    ASSIGN_OR_RETURN(auto decoded, ReadSlot(i));
    if (decoded.has_value() && decoded->sequence > newest) {
      newest = decoded->sequence;
      content_ = std::move(decoded->content);
      written_slot_ = synced_slot_ = i;
    }
  }
  if (written && newest == 0) {
    // The first write of all may have been torn; anything else is damage. What
    // it held is gone either way, and must not be missed silently.
    LogError("slots_damaged",
             {{"file", path_},
              {"meaning",
               "none of its slots is whole: what it held (the fence, "
               "or tombstones and roster) is lost and begins anew"}});
  }
  // Never below what was written before: a torn slot may bear that number.
  sequence_ = std::max(sequence_, newest);
  return absl::OkStatus();
}

// As mount init leaves it. One that the file is too short for is not.
absl::StatusOr<bool> SlotFile::IsBlank(int index) {
  std::string header(kSlotHeader, '\0');
  ASSIGN_OR_RETURN(const size_t got, file_->Pread(index * slot_bytes_,
                                                  kSlotHeader, header.data()));
  return got == kSlotHeader && header == std::string(kSlotHeader, '\0');
}

absl::StatusOr<std::optional<DecodedSlot>> SlotFile::ReadSlot(int index) {
  std::string slot(kSlotHeader, '\0');
  const int64_t at = index * slot_bytes_;
  ASSIGN_OR_RETURN(size_t got, file_->Pread(at, kSlotHeader, slot.data()));
  // Only as much as is in use: most slots are nearly empty.
  const size_t length = got == kSlotHeader ? GetU32(slot, kLengthAt) : 0;
  if (length > static_cast<size_t>(capacity())) {
    return std::optional<DecodedSlot>();
  }
  slot.resize(kSlotHeader + length);
  ASSIGN_OR_RETURN(got, file_->Pread(at, slot.size(), slot.data()));
  return DecodeSlot(absl::string_view(slot.data(), got));
}

absl::Status SlotFile::Write(absl::string_view content) {
  if (static_cast<int64_t>(content.size()) > capacity()) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kMountFull,
        absl::StrCat(path_, " holds at most ", capacity(), " bytes, and ",
                     content.size(), " are to be kept"));
  }
  if (!broken_.ok() || read_only_) {
    written_slot_ = slots_ - 1;
    synced_slot_ = slots_;
    RETURN_IF_ERROR(Load());
    broken_ = absl::OkStatus();
  }
  if (read_only_) {  // still
    return ErrnoStatus(EROFS, absl::StrCat("write ", path_));
  }
  int next = (written_slot_ + 1) % slots_;
  if (next == synced_slot_) {
    next = (next + 1) % slots_;
  }
  const absl::Status written =
      file_->Pwrite(next * slot_bytes_, EncodeSlot(sequence_ + 1, content));
  if (!written.ok()) {
    broken_ = written;
    return written;
  }
  ++sequence_;
  written_slot_ = next;
  content_ = std::string(content);
  return absl::OkStatus();
}

absl::Status SlotFile::Sync() {
  RETURN_IF_ERROR(broken_);
  if (synced()) {
    return absl::OkStatus();
  }
  broken_ = file_->Datasync();
  if (broken_.ok()) {
    // Once it is synced: a removal before that took it along.
    broken_ = place_->Check();
  }
  if (broken_.ok()) {
    synced_slot_ = written_slot_;
  }
  return broken_;
}

}  // namespace predella::agent
