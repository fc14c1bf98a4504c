// One mount's directory: label, uploads in flight, published images with
// their records, fence and tombstone copies. docs/on-disk-format.md is the
// layout; docs/architecture.md, part "on disk", the order of its syncs.
//
// Everything here blocks on the disk and is called on the mount's disk
// threads only. Logic only: files come in through FileSystem.
#ifndef PREDELLA_AGENT_STORE_IMAGE_STORE_H_
#define PREDELLA_AGENT_STORE_IMAGE_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "agent/fs/disk_calls.h"
#include "agent/fs/file_system.h"
#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// Checksums are kept per block of this size; reads verify whole blocks.
inline constexpr int64_t kBlockBytes = int64_t{1} << 20;
// The state file of an upload is written whenever this much came.
inline constexpr int64_t kStateIntervalBytes = int64_t{16} << 20;

// An upload as the coordinator opened it.
struct UploadSpec {
  Uuid upload_id;
  Uuid image_id;
  Generation generation;
  std::string location_key;
  std::optional<int64_t> size_bytes;  // absent: unknown
  // Where this mount's part begins when the upload moved here from a mount
  // that filled up; a multiple of kBlockBytes. 0: it began here.
  int64_t tail_start = 0;
  storage::v1::Decision decision;
};

// An image that lies here, as its record says.
struct PublishedImage {
  Uuid upload_id;
  Uuid image_id;
  Generation generation;
  int64_t size_bytes = 0;
  uint32_t crc32c = 0;
  std::vector<storage::v1::Hash> hashes;
  std::string location_key;
  int64_t create_time_us = 0;
  int64_t publish_time_us = 0;
  storage::v1::Decision decision;
};

// What the client says at the end.
struct CommitRequest {
  int64_t size_bytes = 0;
  std::optional<uint32_t> crc32c;  // absent: not compared
  std::vector<storage::v1::Hash> hashes;
};

// An upload's bytes under inflight/. One task at a time.
//
// Bytes come in one or two segments: the tail from spec().tail_start on, and,
// where that is not 0, the prefix below it. Both are contiguous.
class StagedImage {
 public:
  virtual ~StagedImage() = default;

  virtual const UploadSpec& spec() const = 0;
  // First byte the segment still wants.
  virtual int64_t tail_next() const = 0;
  virtual int64_t prefix_next() const = 0;
  // Bytes of the tail below survive the agent's death (not a power cut).
  virtual int64_t tail_safe() const = 0;
  // Bytes that the file system has allocated for it, for the ledger.
  virtual int64_t allocated_bytes() const = 0;
  // Zeros among what came that were left out of the file, as far as this
  // opening knows: an earlier one's count as allocated.
  virtual int64_t hole_bytes() const = 0;
  // Whether a failed sync or write condemned it: nothing more is accepted,
  // but what was verified may still be read by ReadBack.
  virtual bool condemned() const = 0;

  // Appends to the tail / the prefix. `slices` together are the chunk;
  // `crc32c`, when present, is its checksum, and is checked before anything
  // is written (DATA_LOSS, CHECKSUM_MISMATCH). OUT_OF_RANGE, OFFSET_MISMATCH
  // (metadata: expected_offset) when `offset` is not the next;
  // RESOURCE_EXHAUSTED, MOUNT_FULL leaves the file at the last good byte, and
  // the call may be made again. Other disk errors condemn the file.
  virtual absl::Status AppendTail(int64_t offset,
                                  absl::Span<const absl::string_view> slices,
                                  std::optional<uint32_t> crc32c) = 0;
  virtual absl::Status AppendPrefix(int64_t offset,
                                    absl::Span<const absl::string_view> slices,
                                    std::optional<uint32_t> crc32c) = 0;

  // Writes the state file, so that tail_safe() reaches tail_next(). Done by
  // Append itself every kStateIntervalBytes.
  virtual absl::Status Checkpoint() = 0;
  // Checkpoint that survives a power cut as well, bytes and state: for whom
  // the only other copy is discarded next. A failed sync condemns the file.
  virtual absl::Status Sync() = 0;

  // Reads bytes received before (whole blocks are verified), for the copy of
  // a prefix to another mount. Also from a condemned file.
  virtual absl::StatusOr<std::string> ReadBack(int64_t offset,
                                               int64_t length) = 0;

  // Makes the image durable under its final name, in the order of design
  // part 4. OUT_OF_RANGE, SIZE_MISMATCH and DATA_LOSS, CHECKSUM_MISMATCH when
  // the request disagrees with the bytes; ALREADY_EXISTS, NAME_TAKEN
  // (metadata: generation, or foreign=true) when the final name is another
  // generation's. Published before by this very upload: OK, the same answer.
  // A failed sync condemns the file (UNAVAILABLE, MOUNT_FAILED) for ever.
  virtual absl::StatusOr<PublishedImage> Publish(
      const CommitRequest& request) = 0;
};

struct VerifiedBytes {
  std::string bytes;
  uint32_t crc32c = 0;  // of `bytes`
};

// Reads one published image. Thread-safe.
class ImageReader {
 public:
  virtual ~ImageReader() = default;
  virtual const PublishedImage& image() const = 0;
  // Bytes [offset, offset + length), length cut at the end of the image.
  // Every block touched was read whole and agrees with the record, else
  // DATA_LOSS, CHECKSUM_MISMATCH (metadata: offset). OUT_OF_RANGE,
  // READ_PAST_END when offset is beyond the end.
  virtual absl::StatusOr<VerifiedBytes> Read(int64_t offset,
                                             int64_t length) = 0;
  // For who reads the file himself: the CRC32C of each block.
  virtual absl::Span<const uint32_t> block_crc32c() const = 0;
  // As File::ReadDescriptor, on a disk thread.
  virtual std::optional<int> ReadDescriptor() = 0;
};

// Metadata "bytes" of a finding: the file is not the image, and no sign of a
// disk that changes bytes.
inline constexpr absl::string_view kBytesAsWritten = "as-written";

// Reads one image cold, block by block, and checks it. One thread at a time.
class ImageCheck {
 public:
  virtual ~ImageCheck() = default;
  // Of its record.
  virtual const Generation& generation() const = 0;
  virtual int64_t record_bytes() const = 0;
  // Reads and checks the next block; the bytes read. 0: all of it was read,
  // and is what its record says. DATA_LOSS, CHECKSUM_MISMATCH says what is
  // wrong; NOT_FOUND when it was removed or replaced meanwhile.
  virtual absl::StatusOr<int64_t> Next() = 0;
};

struct RemoveOutcome {
  bool removed = false;        // a file of that generation was here
  bool other_present = false;  // the name is another's (generation none:
  Generation other;            // a file without record)
};

// What lies under a final name, or is left of something.
struct ListEntry {
  enum class Kind {
    kImage,    // name and record agree
    kForeign,  // name without record: not ours
    kRecordOnly,
    kInflight,
    // A directory of records that can not be listed. What lies in it is told by
    // its names all the same, as far as its records can be read.
    kDirectory,
  };
  Kind kind = Kind::kImage;
  Uuid image_id;  // none for an inflight without state
  Uuid upload_id;
  std::optional<PublishedImage> image;  // kImage, kRecordOnly
  int64_t size_bytes = 0;
  // kForeign: why its record, or the file, could not be read ("EACCES: ...");
  // empty where it could.
  std::string read_error;
  // Of the name or the record, and of the disk: MOUNT_FAILED. Also of a
  // kRecordOnly, which is nothing but its id then.
  absl::Status disk_error;
  std::string directory;  // kDirectory
};

// A listing under way, in steps: between two of them the disk thread may serve
// others. One thread at a time; must not outlive its store.
class MountListing {
 public:
  virtual ~MountListing() = default;
  // Looks at up to `most` names more, or one directory, and tells what is
  // there. False: that was all. After an error it is over; an error of the disk
  // at one file, or at one directory of records, is told with it, unless the
  // mount itself is gone.
  virtual absl::StatusOr<bool> Next(
      int most, const std::function<void(const ListEntry&)>& entry) = 0;
};

// What is known of a mount from when it was open last.
struct MountMemory {
  std::string mount_uid;
  std::string cluster_uid;  // empty: it had none
  // The highest pair that was synced in its fence.
  Generation fence;
};

struct StoreOptions {
  // Whose label the directory has to bear; empty: anybody's.
  std::string mount_name;
  uint32_t file_mode = 0640;
  // Group of image files; absent: the directory's.
  std::optional<uint32_t> file_group;
  // Runs of zeros in what is uploaded become holes, and no room is taken
  // before the bytes come.
  bool thin = false;
  // A directory that is not the one remembered, or an earlier copy of it, is
  // refused (MOUNT_IDENTITY_MISMATCH) before anything of it is touched.
  MountMemory memory;
  // Whom the sentence names when the directory is in use.
  std::string holder = "predella-agent";
  // Where the calls of its FileSystem are watched, so that nobody waits for a
  // stuck one: it must outlive the store. Null: they are not.
  DiskCalls* calls = nullptr;
};

// The halves of a probe: full, read-only and dying disks differ in them.
struct ProbeOutcome {
  absl::Status write;  // overwritten and synced
  absl::Status read;   // read cold; DATA_LOSS: not what was synced
  bool ok() const { return write.ok() && read.ok(); }
};

// Of a file that is adopted: it gets mode and group of image files where that
// can be, or nothing of it is changed.
enum class AdoptedMode { kOfImages, kKept };

// Thread-safe, per image id in the order of design part 4: publish and
// removal of one id exclude each other. A call that would wait for one that is
// stuck ends with UNAVAILABLE, MOUNT_STALLED, and has done nothing.
class ImageStore {
 public:
  // Opens a labelled directory: checks the label (FAILED_PRECONDITION,
  // MOUNT_IDENTITY_MISMATCH when it is missing or damaged: says `mount init`;
  // or when it is another's, of which nothing is then touched),
  // takes the lock (FAILED_PRECONDITION, MOUNT_IN_USE names the process; a
  // shared one where the mount takes no writes and gives no other: then nothing
  // is written, whatever the mount takes later),
  // syncs every directory before anything is said about what lies in it,
  // finds out what the file system can do, and reads fence, tombstones,
  // records and inflight states once. `fs`, `clock`, `ids` must outlive it.
  static absl::StatusOr<std::unique_ptr<ImageStore>> Open(
      FileSystem* fs, Clock* clock, IdGenerator* ids,
      const StoreOptions& options);

  virtual ~ImageStore() = default;

  virtual storage::v1::MountLabel label() = 0;
  // Writes the cluster's uid into a label that has none. FAILED_PRECONDITION,
  // CLUSTER_MISMATCH when it has another.
  virtual absl::Status ClaimLabel(absl::string_view cluster_uid) = 0;
  // Reads the label again by path; MOUNT_IDENTITY_MISMATCH when it is not the
  // one that was opened.
  virtual absl::Status CheckIdentity() = 0;

  // Everything this mount knows of the cluster's history: fence, records and
  // inflight states, the highest n of each epoch.
  virtual std::vector<storage::v1::FenceEntry> Known() = 0;
  // Raises the fence; written, not synced.
  virtual absl::Status Hear(const Generation& pair) = 0;
  virtual absl::Status SyncFence() = 0;

  virtual std::vector<storage::v1::Tombstone> Tombstones() = 0;
  // Durable on return. Idempotent.
  virtual absl::Status StoreTombstone(
      const storage::v1::Tombstone& tombstone) = 0;
  virtual absl::Status DropTombstones(
      absl::Span<const storage::v1::Tombstone> tombstones) = 0;
  virtual std::vector<storage::v1::RosterEntry> Roster() = 0;
  virtual absl::Status StoreRoster(
      absl::Span<const storage::v1::RosterEntry> roster) = 0;

  // Opens an upload's bytes: new, or what an earlier stream or process left,
  // cut at the last good block. If a power cut left less than the client
  // kept, tail_next() shows it. FAILED_PRECONDITION when the bytes belong to
  // another image or generation.
  virtual absl::StatusOr<std::unique_ptr<StagedImage>> OpenStaged(
      const UploadSpec& spec) = 0;
  // Received bytes of an upload in flight; absent: nothing is here.
  virtual std::optional<int64_t> InflightBytes(const Uuid& upload_id) = 0;
  // Bytes that the file system has allocated for them: more than that, where
  // a process ended before it had written down what came.
  virtual int64_t InflightAllocated(const Uuid& upload_id) = 0;
  // Removes an upload's inflight bytes and state. Idempotent.
  virtual absl::Status Discard(const Uuid& upload_id) = 0;

  // The image under that name with its record; absent if there is none.
  // NAME_TAKEN (foreign=true) for a name without record.
  virtual absl::StatusOr<std::optional<PublishedImage>> Find(
      const Uuid& image_id) = 0;
  // DATA_LOSS, REPLICA_MISSING when record or file is not here (never
  // NOT_FOUND: only the index may say that of an image), or is of another
  // generation (metadata: generation).
  virtual absl::StatusOr<std::unique_ptr<ImageReader>> OpenImage(
      const Uuid& image_id, const Generation& generation) = 0;
  // For a scrub. What is wrong already is DATA_LOSS (metadata: generation,
  // where the record tells it; bytes=kBytesAsWritten where the disk is not to
  // blame): REPLICA_MISSING for a record without its file, and where either may
  // not be read, else CHECKSUM_MISMATCH. NOT_FOUND when no image is here, or
  // its publication has not ended.
  virtual absl::StatusOr<std::unique_ptr<ImageCheck>> OpenCheck(
      const Uuid& image_id) = 0;
  // Ids of everything that bears an image's name or record, in their order; of
  // a directory of records that can not be listed those with a name.
  virtual absl::StatusOr<std::vector<Uuid>> ListIds() = 0;
  // Removes the file (name first, synced, then the record) and inflight bytes
  // of exactly this generation; anything else is left and told.
  virtual absl::StatusOr<RemoveOutcome> Remove(const Uuid& image_id,
                                               const Generation& generation,
                                               const Uuid& upload_id) = 0;

  // Moves a file that no row names into the quarantine, and its record with
  // it; `generation` absent: a file without a record that fits it. NOT_FOUND
  // without such a name; ABORTED, GENERATION_MISMATCH when it is another.
  virtual absl::Status Quarantine(
      const Uuid& image_id, const std::optional<Generation>& generation) = 0;
  // Unlinks what was put there longer than `keep` ago, and returns how many
  // files. FAILED_PRECONDITION, MOUNT_NOT_EMPTY when there are more than
  // `most`: then none is.
  virtual absl::StatusOr<int> ExpireQuarantine(absl::Duration keep,
                                               int most) = 0;
  // Makes an image of a file without record, durably, when its bytes are those
  // of `record`: DATA_LOSS when they are not, and it stays as it is. All of it
  // is read; one whose mode is kept need not be ours. An image of that
  // generation already is synced and not read.
  virtual absl::Status AdoptFile(const storage::v1::ReplicaRecord& record,
                                 AdoptedMode mode) = 0;

  // Calls `entry` for everything here, in no particular order.
  virtual absl::Status List(
      const std::function<void(const ListEntry&)>& entry) = 0;
  // The same for bytes in flight alone, at the cost of their directory.
  virtual absl::Status ListInflight(
      const std::function<void(const ListEntry&)>& entry) = 0;
  // As List, step by step.
  virtual std::unique_ptr<MountListing> BeginListing() = 0;
  // Images published here.
  virtual int64_t image_count() = 0;

  virtual absl::StatusOr<SpaceInfo> Space() = 0;
  // As FileSystem::MountId, when it was opened.
  virtual std::optional<int64_t> mount_id() const = 0;
  // As FileSystem::PassesDescriptors; never blocks.
  virtual bool passes_descriptors() const = 0;
  // It is open for reading only, without an exclusive lock, and a probe saw
  // that the mount takes writes now: it is to be opened anew. Never blocks.
  virtual bool writable_again() { return false; }
  // A real write + fdatasync + cold read of the pre-allocated probe file.
  // Where the write failed its bytes are read all the same, whatever they are.
  virtual ProbeOutcome Probe() = 0;
};

// `predella mount init`: writes label, directories and the 4 MiB of zeros for
// fence, probe and tombstones into an empty directory (lost+found aside).
// FAILED_PRECONDITION, MOUNT_NOT_EMPTY with the count of what is there;
// labelled already under the same name: OK, the label that is there. With
// kImages what is there may be files of another store, and stays.
enum class InitInto { kEmpty, kImages };
absl::StatusOr<storage::v1::MountLabel> InitMount(
    FileSystem* fs, Clock* clock, IdGenerator* ids,
    absl::string_view mount_name, InitInto into = InitInto::kEmpty);

// The label, without opening the store. NOT_FOUND when there is none.
absl::StatusOr<storage::v1::MountLabel> ReadLabel(FileSystem* fs);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_IMAGE_STORE_H_
