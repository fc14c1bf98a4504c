// StagedImage over a file under inflight/ and its state file.
#ifndef PREDELLA_AGENT_STORE_STAGED_IMAGE_H_
#define PREDELLA_AGENT_STORE_STAGED_IMAGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/store_core.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// What an upload starts from.
struct StagedStart {
  UploadSpec spec;
  std::unique_ptr<File> file;
  int64_t create_time_us = 0;
  // CRC32C of each block, of what there is of it.
  std::vector<uint32_t> table;
  int64_t prefix_next = 0;
  int64_t tail_next = 0;
  bool condemned = false;
  std::optional<PublishedImage> published;
  uint64_t serial = 0;  // the registry's
};

class StagedImageImpl final : public StagedImage {
 public:
  // `core` must outlive this.
  StagedImageImpl(StoreCore* core, StagedStart start);

  const UploadSpec& spec() const override { return spec_; }
  int64_t tail_next() const override { return tail_.next; }
  int64_t prefix_next() const override { return prefix_.next; }
  int64_t tail_safe() const override { return tail_.safe; }
  int64_t allocated_bytes() const override;
  int64_t hole_bytes() const override { return hole_bytes_; }
  bool condemned() const override { return condemned_; }
  absl::Status AppendTail(int64_t offset,
                          absl::Span<const absl::string_view> slices,
                          std::optional<uint32_t> crc32c) override;
  absl::Status AppendPrefix(int64_t offset,
                            absl::Span<const absl::string_view> slices,
                            std::optional<uint32_t> crc32c) override;
  absl::Status Checkpoint() override;
  absl::Status Sync() override;
  absl::StatusOr<std::string> ReadBack(int64_t offset, int64_t length) override;
  absl::StatusOr<PublishedImage> Publish(const CommitRequest& request) override;

  // Prepares the file: ownership, first state, room for a known size.
  absl::Status Prepare();

 private:
  // A contiguous run of bytes that grows at `next`.
  struct Segment {
    int64_t next = 0;
    int64_t safe = 0;         // in the state file
    int64_t started = 0;      // write-back begun below
    int64_t waited = 0;       // written back below
    int64_t end = INT64_MAX;  // bytes from here on are refused
  };
  struct Piece {
    int64_t block;
    uint32_t crc;  // of the block up to the piece's end
  };

  absl::Status Append(Segment* segment, int64_t offset,
                      absl::Span<const absl::string_view> slices,
                      std::optional<uint32_t> crc32c);
  absl::Status CheckAppend(const Segment& segment, int64_t offset,
                           int64_t length) const;
  absl::Status CheckWritable() const;
  // Checksums of the blocks once `slices` are appended; `whole` is the
  // chunk's own.
  std::vector<Piece> Digest(int64_t offset,
                            absl::Span<const absl::string_view> slices,
                            uint32_t* whole) const;
  absl::Status Write(Segment* segment,
                     absl::Span<const absl::string_view> slices);
  // The bytes alone; after an error part of them may lie there.
  absl::Status Put(int64_t offset, absl::Span<const absl::string_view> slices,
                   int64_t* hole_bytes);
  // Keeps the dirty pages of the segment within the window.
  absl::Status WriteBack(Segment* segment);
  // Writes the state file; the caller holds the image's lock.
  absl::Status SaveState(Durability durability);
  absl::Status CheckCommit(const CommitRequest& request) const;
  // Condemns the file and returns why.
  absl::Status Condemn(const absl::Status& status);
  void MarkCondemned();
  int64_t unsaved_bytes() const {
    return tail_.next - tail_.safe + prefix_.next - prefix_.safe;
  }
  int64_t received_bytes() const {
    return prefix_.next + tail_.next - spec_.tail_start;
  }
  storage::v1::InflightState State() const;
  storage::v1::ReplicaRecord Record(const CommitRequest& request) const;
  uint32_t WholeCrc() const;

  StoreCore* const core_;
  const UploadSpec spec_;
  const std::unique_ptr<File> file_;
  const int64_t create_time_us_;
  const uint64_t serial_;
  std::vector<uint32_t> table_;
  Segment prefix_;
  Segment tail_;
  int64_t reserved_bytes_ = 0;  // given by Allocate
  int64_t hole_bytes_ = 0;      // left out by this opening
  int64_t file_end_ = 0;        // nothing that counts lies above
  int64_t empty_from_ = 0;      // what was not written above is a hole
  bool range_sync_ = true;      // the file system can write back ranges
  bool condemned_ = false;
  std::optional<PublishedImage> published_;
};

// Opens or makes the upload's file; the caller holds the image's lock.
absl::StatusOr<std::unique_ptr<StagedImage>> OpenStagedImage(
    StoreCore* core, const UploadSpec& spec);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_STAGED_IMAGE_H_
