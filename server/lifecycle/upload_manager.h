// Uploads from their start to their outcome: the only writer of upload rows
// and, with a publish, of image rows.
#ifndef PREDELLA_SERVER_LIFECYCLE_UPLOAD_MANAGER_H_
#define PREDELLA_SERVER_LIFECYCLE_UPLOAD_MANAGER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// Thread-safe; calls block on commits and on agents, so they belong on the
// pool.
class UploadManager {
 public:
  UploadManager(const LifecycleDeps& deps, AgentCommands* commands,
                UploadTable* uploads, Tombstones* tombstones,
                TrustKeeper* trust, Notifier* changed, MountGate* gate);

  // Reads every upload of earlier starts.
  absl::Status Load();

  struct StartRequest {
    Uuid image_id;
    Uuid upload_id;
    std::optional<int64_t> size_bytes;
  };
  // Starts an upload, or answers again for the one this id started: then with
  // its state, whatever that is. INVALID_ARGUMENT for the id of an upload of
  // another image or size; ALREADY_EXISTS, IMAGE_EXISTS; ABORTED,
  // UPLOAD_IN_PROGRESS while another upload of the image has its stream open;
  // RESOURCE_EXHAUSTED, NO_SPACE_IN_CLUSTER; UNAVAILABLE with LEFTOVER_PENDING,
  // MOUNTS_MISSING, AGENT_UNREACHABLE or INDEX_READ_ONLY: try again.
  absl::StatusOr<v1::Upload> Start(const StartRequest& request);

  // NOT_FOUND, UPLOAD_NOT_FOUND.
  absl::StatusOr<v1::Upload> Get(const Uuid& upload_id);
  // The open ones, a page at a time in the order of their ids.
  absl::StatusOr<v1::ListUploadsResponse> List(
      const v1::ListUploadsRequest& request);
  // FAILED_PRECONDITION, IMAGE_EXISTS for a committed one. Also ends a stream
  // that is open.
  absl::StatusOr<v1::Upload> Abort(const Uuid& upload_id);

  // What an agent reports. The answer goes back on its session.
  control::v1::PublishedAck OnPublished(
      const Uuid& mount_uid, const control::v1::Published& published);
  // From any mount that the upload was placed on: ends it, ABORTED with
  // UPLOAD_BYTES_LOST, unless it has ended already; answers with its outcome
  // either way. UNSPECIFIED when the index did not take it: not decided.
  control::v1::PublishedAck OnUploadLost(const Uuid& mount_uid,
                                         const control::v1::UploadLost& lost);
  // Absent: not decided, and asked again.
  std::optional<control::v1::UploadFullAck> OnUploadFull(
      const Uuid& mount_uid, const control::v1::UploadFull& full);

  // The uploads an agent has to be told of when it registers.
  std::vector<control::v1::OpenUpload> OpenUploadsOn(const Uuid& mount_uid);
  // The agent's answer for one of those that was not published.
  void OnStatus(const Uuid& mount_uid, const control::v1::UploadStatus& status);
  void OnLive(const Uuid& upload_id);

  // Whether an open upload of the image is closed on its agent, taken off its
  // list, or published meanwhile (then it is committed here and now).
  enum class Closed { kClosed, kOpen, kPublished };
  // UNAVAILABLE, AGENT_UNREACHABLE when the agent has a session and does not
  // answer.
  absl::StatusOr<Closed> CloseIfIdle(const storage::v1::UploadRow& row,
                                     bool force);
  // Ends an open upload; OK also when it has ended meanwhile.
  absl::Status End(const Uuid& upload_id, storage::v1::UploadOutcome outcome,
                   absl::string_view reason, absl::string_view detail);
  // A mount has confirmed that nothing of a lost upload is left on it.
  absl::Status ConfirmClean(const Uuid& upload_id, const Uuid& mount_uid);
  // A listing shows that something is: an upload that ended is cleaned again.
  absl::Status MarkLeftover(const Uuid& upload_id, const Uuid& mount_uid);

  // Expires uploads, forgets outcomes, writes signs of life now and then.
  void Tick();

 private:
  class StartTurn;
  struct Refusal;

  // upload_start.cc
  absl::StatusOr<v1::Upload> StartInTurn(const StartRequest& request);
  absl::StatusOr<std::optional<v1::Upload>> AnswerKnown(
      const StartRequest& request,
      const std::optional<storage::v1::UploadRow>& row);
  absl::Status ClearTheWay(const StartRequest& request);
  absl::StatusOr<Reservation> NextMount(const PlacementRequest& request,
                                        storage::v1::Decision* decision);
  absl::StatusOr<storage::v1::UploadRow> CommitNewRow(
      const StartRequest& request, const Uuid& mount_uid,
      const storage::v1::Decision& decision);
  absl::StatusOr<storage::v1::UploadRow> AddTarget(
      const storage::v1::UploadRow& row, const Uuid& mount_uid,
      bool last_is_clean, int64_t segment_boundary,
      const storage::v1::Decision* decision);
  // `refusal`: of the mount that `row` has; OK if there is none.
  absl::StatusOr<storage::v1::UploadRow> PlaceAndPrepare(
      const StartRequest& request, std::optional<storage::v1::UploadRow> row,
      absl::Status refusal);
  absl::Status Prepare(const storage::v1::UploadRow& row,
                       Reservation* reservation);
  PlacementRequest PlacementFor(const Uuid& image_id, const Uuid& upload_id,
                                std::optional<int64_t> size_bytes,
                                const storage::v1::UploadRow* row);

  // upload_room.cc
  absl::Status CheckRoom(const StartRequest& request);
  // Where only mounts with a leftover remain; `pending` says so.
  absl::StatusOr<Reservation> NextMountInRecovering(
      PlacementRequest request, storage::v1::Decision* decision,
      const absl::Status& pending);
  bool HasLeftovers(const StartRequest& request);
  // Mounts that one call has asked in vain, and why. Full is not gone: if
  // nothing else is left the answer is about space. Silent is not full: then
  // it is about who is not there.
  class TriedMounts {
   public:
    void Add(const Uuid& mount_uid, const absl::Status& why);
    // Gives what the request excludes the reason that is known here.
    void Explain(PlacementRequest* request) const;

   private:
    std::vector<Uuid> full_;
    std::vector<Uuid> silent_;
  };
  // Whether a mount that answers is removing an image, or what is left of an
  // upload that ended.
  bool RoomMayAppear() const;
  // No mount takes the upload, for `why`: ends it where waiting cannot help.
  // `refusal`: of the mount that was asked last; OK if there is none.
  absl::Status EndWithoutRoom(const StartRequest& request, bool has_row,
                              const absl::Status& refusal,
                              const absl::Status& why);
  // No room: says how many uploads hold some, `own` of which do not count.
  absl::Status NameOpenUploads(const absl::Status& nowhere, int64_t own) const;

  // upload_publish.cc
  storage::v1::ImageRow ImageOf(const storage::v1::UploadRow& row,
                                const control::v1::Published& published) const;
  absl::Status CommitPublished(const storage::v1::UploadRow& row,
                               const storage::v1::MountRow& mount,
                               const control::v1::Published& published);
  // Absent: mounts that might have room are not there, and nothing was decided.
  // After options.move_wait of that the upload ends.
  absl::StatusOr<std::optional<control::v1::RedirectTarget>> MoveOn(
      const storage::v1::UploadRow& row, const control::v1::UploadFull& full);
  // Whether the move may go on waiting.
  bool MayWait(const Uuid& upload_id);
  // Where the rest goes from `from`: the next mount of the upload that has a
  // part of it, not the last one, whose prefix is more than `from` ever had.
  control::v1::RedirectTarget RedirectTo(const storage::v1::UploadRow& row,
                                         const Uuid& from);
  void SupersedeIfIdle(const storage::v1::UploadRow& row);

  absl::Status Change(
      const Uuid& upload_id,
      const std::function<bool(storage::v1::UploadRow*)>& change);
  void TickOutcomes();
  void TickExpiry();
  std::string WriteCapability(const storage::v1::UploadRow& row,
                              const Uuid& mount_uid);
  control::v1::OpenUpload ToOpenUpload(const storage::v1::UploadRow& row,
                                       const Uuid& mount_uid);
  v1::Upload ToApi(const storage::v1::UploadRow& row, bool with_capability);

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  UploadTable* const uploads_;
  Tombstones* const tombstones_;
  TrustKeeper* const trust_;
  Notifier* const changed_;
  MountGate* const gate_;

  Mutex mu_;
  CondVar turn_over_;
  // Image -> upload whose Start runs: one image is started by one at a time.
  absl::flat_hash_map<Uuid, Uuid> starting_ ABSL_GUARDED_BY(mu_);
  // Moves that wait for a mount, since when; those of open uploads.
  absl::flat_hash_map<Uuid, absl::Duration> moves_waiting_ ABSL_GUARDED_BY(mu_);
};

// The reason, code and sentence for an outcome other than COMMITTED.
absl::Status OutcomeStatus(const storage::v1::UploadRow& row);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_UPLOAD_MANAGER_H_
