#include "client/internal/local_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/descriptor_socket.h"
#include "common/errors.h"
#include "common/rpc_status.h"
#include "common/status_macros.h"

namespace predella::client_internal {
namespace {

// A table for 16 TiB.
constexpr size_t kMostAnswerBytes = size_t{64} << 20;

absl::Status Broken(absl::string_view what) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
                   absl::StrCat("the agent's answer to the question for the "
                                "open image: ",
                                what));
}

class PassedImage final : public LocalImage {
 public:
  PassedImage(OwnedDescriptor socket, OwnedDescriptor file,
              v1::OpenImageResponse answer)
      : socket_(std::move(socket)),
        file_(std::move(file)),
        answer_(std::move(answer)) {}
  // The file first: then the agent hears that it is closed.
  ~PassedImage() override { file_.Close(); }

  const v1::OpenImageResponse& answer() const override { return answer_; }

  absl::StatusOr<size_t> Read(int64_t offset, size_t size, char* out) override {
    size_t done = 0;
    while (done < size) {
      const ssize_t n = ::pread(file_.get(), out + done, size - done,
                                offset + static_cast<int64_t>(done));
      if (n < 0 && errno != EINTR) {
        return MakeError(
            absl::StatusCode::kUnavailable, reason::kMountFailed,
            absl::StrCat("read ", size, " bytes at ", offset,
                         " of the open image: ", std::strerror(errno)));
      }
      if (n == 0) {
        break;
      }
      done += static_cast<size_t>(std::max<ssize_t>(n, 0));
    }
    return done;
  }

  bool Withdrawn() override { return IsGone(socket_.get()); }

 private:
  OwnedDescriptor socket_;
  OwnedDescriptor file_;
  const v1::OpenImageResponse answer_;
};

absl::Status SendAll(int socket, absl::string_view bytes) {
  while (!bytes.empty()) {
    ASSIGN_OR_RETURN(const size_t sent, SendOnce(socket, bytes, -1));
    if (sent == 0) {
      return Broken("it does not take the question in time");
    }
    bytes.remove_prefix(sent);
  }
  return absl::OkStatus();
}

// Exactly `size` bytes; the descriptor that came along, if one did.
absl::Status ReceiveAll(int socket, size_t size, std::string* out,
                        OwnedDescriptor* file) {
  out->resize(size);
  size_t done = 0;
  while (done < size) {
    ASSIGN_OR_RETURN(ReceivedBytes got,
                     ReceiveOnce(socket, out->data() + done, size - done));
    if (got.size == 0) {
      return Broken(got.end ? "it broke off" : "it did not come in time");
    }
    done += got.size;
    if (got.descriptor.valid()) {
      *file = std::move(got.descriptor);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalImage>> OpenLocalImage(
    const std::string& path, const v1::ReadImageRequest& request,
    absl::Duration timeout) {
  RETURN_IF_ERROR(LeaveDescriptorTable());
  ASSIGN_OR_RETURN(OwnedDescriptor socket,
                   ConnectForDescriptors(DescriptorSocketOf(path), timeout));
  RETURN_IF_ERROR(SendAll(socket.get(), FrameOf(request)));
  std::string bytes;
  OwnedDescriptor file;
  RETURN_IF_ERROR(ReceiveAll(socket.get(), kFrameHeaderBytes, &bytes, &file));
  const size_t size = FramedBytes(bytes);
  if (size > kMostAnswerBytes) {
    return Broken(absl::StrCat("it is said to have ", size, " bytes"));
  }
  RETURN_IF_ERROR(ReceiveAll(socket.get(), size, &bytes, &file));
  v1::OpenImageResponse answer;
  if (!answer.ParseFromString(bytes)) {
    return Broken("it is none");
  }
  RETURN_IF_ERROR(FromRpcStatus(answer.error()));
  if (!file.valid()) {
    return Broken("it bears no file");
  }
  // Advice: an image is read from its beginning to its end.
  static_cast<void>(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  return std::unique_ptr<LocalImage>(std::make_unique<PassedImage>(
      std::move(socket), std::move(file), std::move(answer)));
}

}  // namespace predella::client_internal
