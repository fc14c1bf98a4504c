// An agent in memory: speaks the session's protocol over AgentSession, keeps
// files, inflight bytes, tombstones and a fence, and fails on demand.
#ifndef PREDELLA_TESTS_SERVER_LIFECYCLE_FAKE_AGENT_H_
#define PREDELLA_TESTS_SERVER_LIFECYCLE_FAKE_AGENT_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "common/executor.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/session_manager.h"

namespace predella::testing {

// Thread-safe.
class FakeAgent {
 public:
  struct File {
    storage::v1::Generation generation;
    std::string upload_id;
    int64_t size_bytes = 0;
    std::string location_key;
    bool has_record = true;
    int64_t record_size_bytes = 0;  // 0: as the file
    std::string read_error = {};    // without a record: why
  };

  FakeAgent(std::string name, Uuid uid, Executor* pool);
  ~FakeAgent();

  // Opens a session and begins to register with it.
  void Connect(server::SessionManager* manager);
  // The session ends, as when the connection breaks.
  void Lose();
  // From now on what it sends does not arrive, what is sent to it does not, or
  // both; Release lets all of it arrive, in order. Lost with the session.
  void Hold(bool outgoing, bool incoming);
  void Release();
  // Sends a heartbeat with the present space and the uploads that live.
  void Beat(const std::vector<std::string>& live_upload_ids = {});

  // A stream brings bytes; false when the upload is not on the list.
  bool Write(const Uuid& upload_id, int64_t bytes, bool leave_open);
  // Publishes what was written: file and record are there from now on, and
  // are reported if there is a session. Files of other uploads stay.
  bool Publish(const Uuid& upload_id);
  // A file and record that nobody asked about.
  void Plant(const Uuid& image_id, const Uuid& upload_id,
             const storage::v1::Generation& generation);
  // Somebody took a file away, or changed or brought one, record or not.
  std::optional<File> Take(const Uuid& image_id);
  void Put(const Uuid& image_id, const File& file);
  // Reports a publish again, of any upload.
  void Report(const control::v1::Published& published);
  void ReportFull(const Uuid& upload_id, int64_t received);
  void ReportLost(const control::v1::UploadLost& lost);
  void ReportFindings(const control::v1::CopyFaults& faults);
  // What `late_statuses` left out.
  void TellLate();

  // What came back; absent: nothing yet.
  std::optional<control::v1::PublishedAck> ack(const Uuid& upload_id);
  // Waits for it.
  control::v1::PublishedAck AwaitAck(const Uuid& upload_id);
  std::optional<control::v1::UploadFullAck> full_ack(const Uuid& upload_id);
  std::optional<control::v1::Attach> attach();
  // Why the coordinator ended the last session; OK while it lives.
  absl::Status closed();
  bool Has(const Uuid& image_id);
  std::optional<File> file(const Uuid& image_id);
  bool HasInflight(const Uuid& upload_id);
  size_t tombstone_count();
  std::vector<control::v1::Command> commands();

  const Uuid& uid() const { return uid_; }
  const std::string& name() const { return name_; }

  // What it says and does; change it between calls.
  struct Behaviour {
    int priority = 100;
    int64_t size_bytes = int64_t{100} << 30;
    int64_t available_bytes = int64_t{50} << 30;
    absl::Status refuse_prepare;
    bool name_taken = false;  // by a file without record
    absl::Status refuse_tombstone;
    bool ignore_commands = false;
    absl::Status refuse_listing;
    bool other_bytes = false;    // in files without record
    bool rotten_bytes = false;   // in images that are checked
    absl::Status refuse_check;   // instead of reading an image that is checked
    bool listing_digest = true;  // as newer agents
    // Called before a command is done.
    std::function<void(const control::v1::Command&)> on_command;
    // Called when a listing was sent, or its digest made, and before it is
    // answered.
    std::function<void()> while_listing;
    bool records_readable = true;
    std::vector<storage::v1::RosterEntry> roster;
    bool answer_attach = true;
    // The answer leaves out all uploads, as with calls that are stuck.
    bool late_statuses = false;
    std::string cluster_uid;  // as in the label
    std::string incarnation;
    Uuid hello_uid;
    std::vector<storage::v1::Tombstone> extra_tombstones;
    std::vector<storage::v1::FenceEntry> extra_known;
    int health = 2;  // ONLINE
    std::string health_error;
    std::string health_detail;
    int64_t stuck_calls = 0;
    std::string host;  // empty: one of its own
    std::vector<std::string> capabilities = {"collect_garbage"};
    // What heartbeats say is held, until CollectGarbage names its number.
    std::optional<control::v1::HeldGarbage> held;
    // What heartbeats say of a scrub.
    std::optional<control::v1::ScrubProgress> scrub;
  };
  void Behave(const std::function<void(Behaviour*)>& change);

 private:
  class Session;
  struct Inflight {
    control::v1::OpenUpload upload;
    int64_t received = 0;
    bool open = false;
  };

  void Handle(int64_t session, const control::v1::CoordinatorMessage& message);
  control::v1::InventoryEntry EntryLocked(const std::string& id,
                                          const File& file)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // As ReportInventory, part by part; or the digest of what it would send.
  absl::Status List(const control::v1::ListMount& request,
                    control::v1::CommandResult* result);
  control::v1::CommandResult Do(const control::v1::Command& command)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Hear(const storage::v1::Generation& pair)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  control::v1::Space SpaceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  control::v1::MountReport ReportLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Send(const control::v1::AgentMessage& message);
  void HandleNow(int64_t session,
                 const control::v1::CoordinatorMessage& message);

  const std::string name_;
  const Uuid uid_;
  Executor* const pool_;

  Mutex mu_;
  server::SessionManager* manager_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  absl::Status closed_ ABSL_GUARDED_BY(mu_);
  Behaviour behaviour_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, File> files_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Inflight> inflight_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, control::v1::Published> published_ ABSL_GUARDED_BY(mu_);
  std::vector<storage::v1::Tombstone> tombstones_ ABSL_GUARDED_BY(mu_);
  std::map<int64_t, storage::v1::FenceEntry> fence_ ABSL_GUARDED_BY(mu_);
  CondVar acked_;
  std::map<std::string, control::v1::PublishedAck> acks_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, control::v1::UploadFullAck> full_acks_
      ABSL_GUARDED_BY(mu_);
  std::optional<control::v1::Attach> attach_ ABSL_GUARDED_BY(mu_);
  control::v1::AttachDone late_ ABSL_GUARDED_BY(mu_);
  std::vector<control::v1::Command> commands_ ABSL_GUARDED_BY(mu_);
  int64_t last_command_ ABSL_GUARDED_BY(mu_) = 0;
  bool hold_outgoing_ ABSL_GUARDED_BY(mu_) = false;
  bool hold_incoming_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<control::v1::AgentMessage> outgoing_ ABSL_GUARDED_BY(mu_);
  std::deque<std::pair<int64_t, control::v1::CoordinatorMessage>> incoming_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_SERVER_LIFECYCLE_FAKE_AGENT_H_
