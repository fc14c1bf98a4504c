// A pre-allocated file of equal slots that are overwritten in turn: the last
// complete content survives a torn write, and no write needs space.
#ifndef PREDELLA_AGENT_STORE_SLOT_FILE_H_
#define PREDELLA_AGENT_STORE_SLOT_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "agent/store/file_place.h"

namespace predella::agent {

// Bytes in front of each slot's content.
inline constexpr int64_t kSlotHeaderBytes = 24;

std::string EncodeSlot(uint64_t sequence, absl::string_view content);

struct DecodedSlot {
  uint64_t sequence = 0;
  std::string content;
};
// Absent unless every byte of header and content is as it was written.
std::optional<DecodedSlot> DecodeSlot(absl::string_view slot);

// Not thread-safe.
class SlotFile {
 public:
  // Reads the newest complete slot. What the page cache held was synced and
  // is read from the disk: an earlier process may have failed to sync it.
  static absl::StatusOr<std::unique_ptr<SlotFile>> Open(FileSystem* fs,
                                                        absl::string_view path,
                                                        int slots,
                                                        int64_t slot_bytes);

  // Empty when no slot was ever written.
  const std::string& content() const { return content_; }
  bool empty() const { return sequence_ == 0; }
  int64_t capacity() const { return slot_bytes_ - kSlotHeaderBytes; }

  // Overwrites a slot that is neither the last written nor the last synced.
  // RESOURCE_EXHAUSTED, MOUNT_FULL when `content` exceeds capacity().
  absl::Status Write(absl::string_view content);
  // After a failure what the disk holds is unknown: the next Write opens the
  // file again and reads what is really there. As FilePlace::Check, when the
  // file is no longer at its path.
  absl::Status Sync();
  std::shared_ptr<const FilePlace> place() const { return place_; }
  bool synced() const { return synced_slot_ == written_slot_; }

 private:
  SlotFile(FileSystem* fs, std::string path, int slots, int64_t slot_bytes)
      : fs_(fs),
        path_(std::move(path)),
        place_(std::make_shared<FilePlace>(fs, path_)),
        slots_(slots),
        slot_bytes_(slot_bytes),
        written_slot_(slots - 1),
        synced_slot_(slots) {}
  absl::Status Load();
  absl::StatusOr<bool> IsBlank(int index);
  absl::StatusOr<std::optional<DecodedSlot>> ReadSlot(int index);

  FileSystem* const fs_;  // must outlive this
  const std::string path_;
  const std::shared_ptr<FilePlace> place_;
  const int slots_;
  const int64_t slot_bytes_;
  std::unique_ptr<File> file_;
  std::string content_;
  uint64_t sequence_ = 0;
  int written_slot_;
  int synced_slot_;  // slots_: none
  absl::Status broken_;
  bool read_only_ = false;  // the file system was, when it was opened
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_SLOT_FILE_H_
