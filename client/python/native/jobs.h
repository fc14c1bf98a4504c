// Uploads, reads and calls that run on threads of their own. Whoever asks for
// one never blocks in it: Python waits until it is ready, with the GIL
// released or in the loop of an event hub. Nothing of Python is here.
#ifndef PREDELLA_CLIENT_PYTHON_NATIVE_JOBS_H_
#define PREDELLA_CLIENT_PYTHON_NATIVE_JOBS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "client/python/native/process.h"
#include "common/mutex.h"
#include "predella/client.h"

namespace predella::native {

// What a caller waits for. All members may be called from any thread.
class Job {
 public:
  Job() = default;
  virtual ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // What was asked for last is there, or has failed.
  bool Ready();
  // False when `timeout` passed first.
  bool Wait(absl::Duration timeout);
  // A descriptor that is readable when Ready() may have become true; Drain
  // makes it unreadable and is called before Ready(). Made on the first call,
  // as who waits on the condition needs none.
  absl::StatusOr<int> Descriptor();
  void Drain();

 protected:
  virtual bool ReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  void Changed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  CondVar cv_;

 private:
  int descriptor_ ABSL_GUARDED_BY(mu_) = -1;
};

// A hash under the name that Glance gives it, and under OpenSSL's.
struct HashName {
  std::string name;
  std::string openssl;
};

// An upload: a thread for the network, and one for each hash. Pieces are not
// copied: they stay with the caller's object until all threads are past them.
class UploadJob final : public Job {
 public:
  // UNIMPLEMENTED for a hash that the crypto library does not have.
  static absl::StatusOr<std::shared_ptr<UploadJob>> Start(
      std::shared_ptr<Connections> connections, const UploadOptions& upload,
      const std::vector<HashName>& hashes);
  ~UploadJob() override;

  // True when the piece was taken, with `owner`, which keeps `data` as it is;
  // false while there is no room. Afterwards Ready() means room, or failure.
  absl::StatusOr<bool> Write(absl::string_view data, void* owner);
  absl::StatusOr<bool> WriteCopy(absl::string_view data);
  // Owners of pieces that all threads are past.
  std::vector<void*> TakeRetired();
  // Nothing more comes: commit. Ready() now means the end.
  void Finish();
  // Gives up whatever is not committed. Ready() now means that it is removed,
  // or that it could not be and will expire.
  void Abort();
  // After a failure: what was and will be written is only hashed.
  void HashOnly();
  // Once Finish is ready. Without an image after HashOnly.
  absl::StatusOr<std::optional<v1::Image>> Result();
  // Name -> hexadecimal; complete when Finish is ready.
  std::map<std::string, std::string> hashes();

 private:
  class Hashing;
  enum class Turn { kData, kEnd, kAbort };
  struct Piece {
    absl::string_view data;
    void* owner = nullptr;
    std::string copy;  // where there is no owner
  };

  explicit UploadJob(const UploadOptions& upload) : upload_(upload) {}

  bool ReadyLocked() const override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<bool> Append(Piece piece);
  Turn Next(size_t consumer, absl::string_view* data);
  void Pass(size_t consumer);
  void Retire() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunNetwork(Connections* connections);
  absl::Status Transfer(Connections* connections);
  absl::Status Commit(ImageWriter* writer, absl::Duration limit);
  void RunHash(size_t consumer, Hashing* hashing);
  void Fail(const absl::Status& status);

  const UploadOptions upload_;
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mu_);
  uint64_t first_ ABSL_GUARDED_BY(mu_) = 0;  // the number of the front
  size_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // Number of the next piece of each consumer; of the network's first.
  std::vector<uint64_t> next_ ABSL_GUARDED_BY(mu_);
  std::vector<void*> retired_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool aborted_ ABSL_GUARDED_BY(mu_) = false;
  bool hash_only_ ABSL_GUARDED_BY(mu_) = false;
  bool network_ended_ ABSL_GUARDED_BY(mu_) = false;
  size_t hashes_open_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::Image> image_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::string> hashes_ ABSL_GUARDED_BY(mu_);
};

// A read: a thread that fills the buffers it is given, in order.
class ReadJob final : public Job {
 public:
  static absl::StatusOr<std::shared_ptr<ReadJob>> Start(
      std::shared_ptr<Connections> connections, const ReadOptions& read);
  ~ReadJob() override;

  // Once ready: the image, before the first Ask.
  absl::StatusOr<v1::Image> Image();
  // Has `size` bytes put to `data`, which `owner` keeps. No more than are left.
  void Ask(char* data, size_t size, void* owner);
  struct Taken {
    void* owner = nullptr;  // null: the bytes are in `copy`
    std::string copy;
  };
  // Once ready: the owner of the buffer that was asked for first, filled. Not
  // that where a thread that hangs in a disk may still write to it.
  absl::StatusOr<Taken> Take();
  // The thread ends; buffers that it may be using are buried.
  void Close();

 private:
  // Buried by whoever lets go of it last.
  struct Memory {
    explicit Memory(void* object) : owner(object) {}
    ~Memory() { Bury(owner); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* owner;
  };
  struct Slot {
    char* data = nullptr;
    size_t size = 0;
    int64_t offset = 0;  // in the image
    // Shared with the reader, once it was offered and taken.
    std::shared_ptr<Memory> memory;
    bool offered = false;
    bool filled = false;
    // The bytes, where others may still write to the memory.
    std::string copy;
    bool copied = false;
  };

  explicit ReadJob(const ReadOptions& read)
      : read_(read), next_offset_(read.offset) {}

  bool ReadyLocked() const override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Null when it was closed.
  Slot* NextSlot();
  // All that were asked for and are to be filled.
  void OfferSlots(ImageReader* reader);
  absl::Status Fill(ImageReader* reader, absl::string_view* rest, Slot* slot);
  // After the first buffer, whoever waits is woken for half of those that he
  // asked for: a turn of two threads on one processor for each costs as much as
  // filling it.
  bool WorthWakingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Run(Connections* connections);
  void End(const absl::Status& status);

  const ReadOptions read_;
  std::deque<Slot> slots_ ABSL_GUARDED_BY(mu_);
  int64_t next_offset_ ABSL_GUARDED_BY(mu_);  // of the next slot
  std::optional<v1::Image> image_ ABSL_GUARDED_BY(mu_);
  bool taken_ ABSL_GUARDED_BY(mu_) = false;  // the first buffer was
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
};

// One call to the coordinator.
class CallJob final : public Job {
 public:
  // What the call was for; the rest is empty.
  struct Answer {
    v1::Image image;
    std::string cluster_uid;
    v1::ListMountsResponse mounts;
  };
  using Call = std::function<absl::StatusOr<Answer>(Client&)>;
  static absl::StatusOr<std::shared_ptr<CallJob>> Start(
      std::shared_ptr<Connections> connections, Call call);
  // Once ready.
  absl::StatusOr<Answer> Result();

 private:
  bool ReadyLocked() const override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(absl::StatusOr<Answer> result);

  std::optional<absl::StatusOr<Answer>> result_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::native

#endif  // PREDELLA_CLIENT_PYTHON_NATIVE_JOBS_H_
