// The C++ client of Predella.
//
//   predella::ClientOptions options;
//   options.endpoint = "unix:/run/predella/coordinator.sock";
//   auto client = predella::Client::Connect(options);
//   auto writer = client->StartUpload({.image = id});
//   (*writer)->Write(bytes);
//   auto image = (*writer)->Commit();
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "predella/client_options.h"
#include "predella/connection.h"
#include "predella/image_reader.h"
#include "predella/image_writer.h"

namespace predella {

// The ErrorInfo reason of an error ("UPLOAD_SUPERSEDED", ...); empty if it
// carries none. Reasons are listed in docs/api.md and do not change.
std::string ErrorReason(const absl::Status& status);

// The images that are given up with a mount: their number, and the digest of
// which they are. The refusal of a call that accepts others has both
// (MOUNT_NOT_EMPTY; image_count and lost_digest of its ErrorInfo).
struct AcceptedLoss {
  int64_t count = 0;
  std::string digest;  // empty where there are none
};

// Images one after the other, fetched a page at a time.
class ImageList {
 public:
  ImageList(std::shared_ptr<Connection> connection,
            v1::ListImagesRequest request)
      : connection_(std::move(connection)), request_(std::move(request)) {}

  // The next image; nothing at the end.
  absl::StatusOr<std::optional<v1::Image>> Next();

  // Mounts that could not be asked, as of the last page.
  const std::vector<std::string>& unreachable() const { return unreachable_; }

 private:
  std::shared_ptr<Connection> connection_;
  v1::ListImagesRequest request_;
  std::deque<v1::Image> page_;
  std::vector<std::string> unreachable_;
  bool last_page_ = false;
};

// Cheap to copy; copies share the connection. Safe for concurrent use.
// Images and uploads are named by their UUID or as images/{uuid}, mounts by
// name or as mounts/{name}.
class Client {
 public:
  explicit Client(std::shared_ptr<Connection> connection)
      : connection_(std::move(connection)) {}

  static absl::StatusOr<Client> Connect(const ClientOptions& options);

  absl::StatusOr<v1::Image> GetImage(absl::string_view image);
  // `mount` empty: of the whole cluster. `page_size` 0: the server's choice.
  // `health` UNSPECIFIED: whatever it is.
  ImageList ListImages(absl::string_view mount = "", int page_size = 0,
                       v1::ImageHealth health = v1::IMAGE_HEALTH_UNSPECIFIED);
  // `generation` empty: whichever it is now.
  absl::Status DeleteImage(absl::string_view image,
                           absl::string_view generation = "",
                           bool allow_missing = false);
  // Keeps one of several generations (Image.conflicts) and has the files of the
  // others removed.
  absl::StatusOr<v1::Image> ChooseImage(absl::string_view image,
                                        absl::string_view generation,
                                        bool validate_only = false);
  absl::StatusOr<std::unique_ptr<ImageWriter>> StartUpload(
      const UploadOptions& options);
  absl::StatusOr<std::unique_ptr<ImageReader>> ReadImage(
      const ReadOptions& options);
  absl::StatusOr<v1::Upload> GetUpload(absl::string_view upload);
  // The open ones; all pages in one answer.
  absl::StatusOr<v1::ListUploadsResponse> ListUploads();
  absl::StatusOr<v1::Upload> AbortUpload(absl::string_view upload);

  absl::StatusOr<v1::Mount> GetMount(absl::string_view mount);
  // All pages in one answer.
  absl::StatusOr<v1::ListMountsResponse> ListMounts();
  // `validate_only`: what would be, changing nothing.
  absl::StatusOr<v1::Mount> CordonMount(absl::string_view mount,
                                        absl::string_view reason = "",
                                        bool validate_only = false);
  absl::StatusOr<v1::Mount> UncordonMount(absl::string_view mount,
                                          bool validate_only = false);
  absl::StatusOr<v1::Mount> MaintainMount(absl::string_view mount,
                                          absl::Time until,
                                          absl::string_view reason = "",
                                          bool validate_only = false);
  // Begins to read all images of a mount cold and to check them, or goes on
  // with a scrub that is paused. `bytes_per_second` 0: as before.
  absl::StatusOr<v1::Mount> ScrubMount(absl::string_view mount,
                                       int64_t bytes_per_second = 0,
                                       bool restart = false);
  absl::StatusOr<v1::Mount> PauseScrub(absl::string_view mount);
  // Gives a mount up for good. FAILED_PRECONDITION, MOUNT_NOT_EMPTY unless
  // `accept` is what would be lost with it.
  absl::StatusOr<v1::Mount> RetireMount(absl::string_view mount,
                                        const AcceptedLoss& accept,
                                        absl::string_view reason = "",
                                        bool validate_only = false,
                                        bool accept_unlisted = false);
  // Takes in a mount that was away when the index was rebuilt.
  absl::StatusOr<v1::Mount> ConfirmMount(absl::string_view mount,
                                         bool validate_only = false);
  // Discards the bytes of ended uploads that the mount holds
  // (Mount.held_upload_count), if they are of exactly so many.
  // FAILED_PRECONDITION, GARBAGE_CHANGED otherwise.
  absl::StatusOr<v1::Mount> CollectGarbage(absl::string_view mount,
                                           int64_t accept_upload_count,
                                           bool validate_only = false);

  // Gives the name of a mount to the directory whose label says `new_uid`;
  // empty: the one whose agent was refused last. The old one is given up as
  // RetireMount does.
  absl::StatusOr<v1::Mount> ReplaceMount(absl::string_view mount,
                                         absl::string_view new_uid,
                                         const AcceptedLoss& accept,
                                         absl::string_view reason = "",
                                         bool validate_only = false);
  // What the loss of these mounts together would mean, or means: a page.
  absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const std::vector<std::string>& mounts, int page_size = 0,
      absl::string_view page_token = "");

  // Files that the index does not know; all pages in one answer. `mount` may
  // be empty: of all.
  absl::StatusOr<v1::ListOrphansResponse> ListOrphans(absl::string_view mount);
  // The one that the last listing showed under this name. NOT_FOUND without.
  // With `generation` ("" for a file without a record) only that one:
  // FAILED_PRECONDITION, GENERATION_MISMATCH for another.
  absl::StatusOr<v1::Orphan> RemoveOrphan(
      absl::string_view mount, absl::string_view image,
      bool validate_only = false,
      const std::optional<std::string>& generation = std::nullopt);
  // `plain`: a file without a record, and what was read in it. ABORTED,
  // COMMIT_CONFLICT while its agent reads it: call again.
  absl::StatusOr<v1::Orphan> AdoptOrphan(absl::string_view mount,
                                         absl::string_view image,
                                         bool validate_only = false,
                                         const v1::PlainFile* plain = nullptr);

  absl::StatusOr<v1::Cluster> GetCluster();
  // Newest first: a page. `mount` and `kind` empty: of all.
  absl::StatusOr<v1::ListEventsResponse> ListEvents(
      absl::string_view mount = "", absl::string_view kind = "",
      int page_size = 0, absl::string_view page_token = "");
  // Blocks until `event` returns false (OK) or the stream ends. `after` is the
  // id of the last event known; empty: what happens from now on.
  absl::Status WatchEvents(absl::string_view after,
                           const std::function<bool(const v1::Event&)>& event);
  // `size_bytes` absent: unknown size. `image` may be empty.
  absl::StatusOr<v1::PlacementDecision> ExplainPlacement(
      std::optional<int64_t> size_bytes, absl::string_view image = "");
  // Copies the coordinator's index beside it.
  absl::StatusOr<v1::IndexBackup> BackupIndex();
  // A page of a check of the index; each goes on with the token of the one
  // before. A page that names awaited mounts is asked for again in a second.
  absl::StatusOr<v1::CheckIndexResponse> CheckIndex(
      bool index_only, absl::string_view page_token = "");

  const std::shared_ptr<Connection>& connection() const { return connection_; }

 private:
  // The generation of the file under that name; "" without a record.
  absl::StatusOr<std::string> OrphanGeneration(const std::string& mount,
                                               const std::string& image);

  std::shared_ptr<Connection> connection_;
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_CLIENT_H_
