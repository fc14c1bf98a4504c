// The loop that brings an upload to its end whatever breaks meanwhile.
#ifndef PREDELLA_CLIENT_INTERNAL_IMAGE_WRITER_IMPL_H_
#define PREDELLA_CLIENT_INTERNAL_IMAGE_WRITER_IMPL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "client/internal/retry.h"
#include "client/internal/stub.h"
#include "client/internal/upload_window.h"
#include "predella/client_options.h"
#include "predella/image_writer.h"
#include "predella/v1/chunk_service.pb.h"
#include "predella/v1/image_service.pb.h"

namespace predella::client_internal {

// Driven by the caller's thread alone: messages that come while the
// application does something else wait in the stream.
class ImageWriterImpl final : public ImageWriter {
 public:
  // `upload` is what StartUpload answered to `request`. Where `asked` has no
  // upload id it is ours to change.
  ImageWriterImpl(std::shared_ptr<Stub> stub, const ClientOptions& options,
                  const UploadOptions& asked,
                  const v1::StartUploadRequest& request, v1::Upload upload);

  using ImageWriter::Commit;
  absl::Status Write(absl::string_view data) override;
  absl::StatusOr<v1::Image> Commit(
      const std::vector<v1::Hash>& hashes) override;
  absl::Status Abort() override;
  std::string upload_id() const override { return request_.upload_id(); }
  std::string mount() const override { return upload_.target().mount(); }
  int64_t bytes_written() const override { return window_.end(); }

 private:
  enum class Goal { kRoom, kCommit };

  // Sends and listens until the goal is reached.
  absl::Status Pump(Goal goal);
  bool Reached(Goal goal) const;
  // What is to be sent next on the open stream; none: nothing now.
  std::shared_ptr<const v1::WriteImageRequest> NextToSend() const;
  void Send(const std::shared_ptr<const v1::WriteImageRequest>& request);

  // Opens a stream, over and over until the agent's first message came.
  absl::Status Connect();
  // One try; the agent's first message is handled.
  absl::Status OpenOnce();
  v1::WriteHeader MakeHeader() const;
  absl::Status Handle(const v1::WriteImageResponse& message);
  absl::Status FollowRedirect(const v1::Redirect& redirect);
  void SayWaiting() const;
  absl::Status ResumeAt(int64_t offset);
  // After a break: OK when it is worth another try (and the backoff is over).
  absl::Status Recover(const absl::Status& broken);
  absl::Status AskOutcome();
  bool MayStartAnew() const;
  // OK when another upload was begun in place of one that failed at once.
  absl::Status StartAnew(const absl::Status& failed);
  absl::Status Stalled() const;
  absl::Status GaveUp(const absl::Status& status) const;

  absl::StatusOr<v1::Image> Committed();
  absl::Status Fail(const absl::Status& status);

  const std::shared_ptr<Stub> stub_;  // shared with the connection
  const ClientOptions options_;
  const std::string writer_;
  v1::StartUploadRequest request_;
  v1::Upload upload_;
  bool may_start_anew_;
  UploadWindow window_;
  std::optional<v1::WriteImageRequest> commit_;

  // Of the present target: what Redirect, if any, said.
  v1::WriteSegment segment_ = v1::WRITE_SEGMENT_WHOLE;
  int64_t segment_boundary_ = 0;
  size_t next_address_ = 0;

  std::unique_ptr<WriteStream> stream_;
  // On the present stream: the agent said where to go on; what was sent.
  bool ready_ = false;
  int64_t sent_offset_ = 0;
  bool commit_sent_ = false;
  absl::Duration commit_sent_at_;
  RetryBudget budget_;
  bool recovering_ = false;  // no message came since the last break
  int damaged_in_a_row_ = 0;
  int refused_capabilities_ = 0;  // since the last Progress
  bool anything_safe_ = false;

  std::optional<v1::WriteResult> result_;
  std::optional<v1::Image> image_;
  absl::Status error_;
};

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_IMAGE_WRITER_IMPL_H_
