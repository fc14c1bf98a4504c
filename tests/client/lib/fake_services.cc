#include "tests/client/lib/fake_services.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/rpc/grpc_status.h"
#include "common/units.h"

namespace predella::testing {
namespace {

grpc::Status NotFound(const std::string& what) {
  return ToGrpcStatus(MakeError(absl::StatusCode::kNotFound,
                                what.rfind("images/", 0) == 0
                                    ? reason::kImageNotFound
                                    : reason::kUploadNotFound,
                                what));
}

// Where a restarted agent would go on.
int64_t WholeMiB(int64_t bytes) { return bytes / kMiB * kMiB; }

}  // namespace

grpc::Status FakeImageService::StartUpload(
    grpc::ServerContext* /*context*/, const v1::StartUploadRequest* request,
    v1::Upload* response) {
  const int call = ++starts;
  const grpc::Status status = on_start ? on_start(call) : grpc::Status::OK;
  if (!status.ok() && !fail_after) {
    return status;
  }
  MutexLock lock(&cluster_->mu);
  const std::string name = "uploads/" + request->upload_id();
  auto [it, fresh] = cluster_->uploads.try_emplace(name);
  if (fresh) {
    v1::Upload& upload = it->second.upload;
    upload.set_name(name);
    upload.set_image(request->image());
    upload.set_generation(
        absl::StrCat("1-", cluster_->uploads.size(), "-00000001"));
    upload.set_state(v1::UPLOAD_STATE_OPEN);
    upload.mutable_target()->set_mount("mounts/one");
    upload.mutable_target()->set_mount_uid("uid-one");
    upload.mutable_target()->add_addresses(agent_address);
    upload.set_write_capability("capability");
  }
  *response = it->second.upload;
  return status;
}

grpc::Status FakeImageService::GetUpload(grpc::ServerContext* /*context*/,
                                         const v1::GetUploadRequest* request,
                                         v1::Upload* response) {
  ++get_uploads;
  MutexLock lock(&cluster_->mu);
  const auto it = cluster_->uploads.find(request->name());
  if (it == cluster_->uploads.end()) {
    return NotFound(request->name());
  }
  *response = it->second.upload;
  response->clear_write_capability();
  return grpc::Status::OK;
}

grpc::Status FakeImageService::AbortUpload(
    grpc::ServerContext* /*context*/, const v1::AbortUploadRequest* request,
    v1::Upload* response) {
  MutexLock lock(&cluster_->mu);
  const auto it = cluster_->uploads.find(request->name());
  if (it == cluster_->uploads.end()) {
    return NotFound(request->name());
  }
  it->second.upload.set_state(v1::UPLOAD_STATE_ABORTED);
  *response = it->second.upload;
  return grpc::Status::OK;
}

grpc::Status FakeImageService::GetImage(grpc::ServerContext* /*context*/,
                                        const v1::GetImageRequest* request,
                                        v1::Image* response) {
  if (++get_images <= away) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused");
  }
  MutexLock lock(&cluster_->mu);
  const auto it = cluster_->images.find(request->name());
  if (it == cluster_->images.end()) {
    return NotFound(request->name());
  }
  *response = it->second;
  return grpc::Status::OK;
}

grpc::Status FakeChunkService::WriteImage(grpc::ServerContext* context,
                                          Stream* stream) {
  ++streams;
  v1::WriteImageRequest request;
  if (!stream->Read(&request) || !request.has_header()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no header");
  }
  while (stall && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (!refuse.ok()) {
    return refuse;
  }
  if (stalled_streams > 0) {
    --stalled_streams;
    return ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                  reason::kMountStalled,
                                  "pwrite has not returned for 16 s"));
  }
  if (refuse_capability > 0) {
    --refuse_capability;
    return ToGrpcStatus(MakeError(absl::StatusCode::kPermissionDenied,
                                  reason::kCapabilityInvalid, "ran out"));
  }
  const std::string upload = request.header().upload();
  for (int i = 0; i < verify; ++i) {
    v1::WriteImageResponse alive;
    alive.mutable_progress()->set_verifying(true);
    alive.mutable_progress()->set_next_offset(99 * kMiB);
    alive.mutable_progress()->set_safe_offset(99 * kMiB);
    stream->Write(alive);
  }
  v1::WriteImageResponse response;
  {
    MutexLock lock(&cluster_->mu);
    const auto it = cluster_->uploads.find(upload);
    if (it == cluster_->uploads.end()) {
      return NotFound(upload);
    }
    safe_ = 0;
    response.mutable_progress()->set_next_offset(
        static_cast<int64_t>(it->second.bytes.size()));
  }
  stream->Write(response);
  while (stream->Read(&request)) {
    if (request.has_commit()) {
      return Commit(request.commit(), upload, stream);
    }
    bool redirected = false;
    const grpc::Status status =
        Take(request.chunk(), upload, stream, &redirected);
    if (!status.ok() || redirected) {
      return status;
    }
  }
  return grpc::Status::OK;
}

grpc::Status FakeChunkService::Take(const v1::Chunk& chunk,
                                    const std::string& upload, Stream* stream,
                                    bool* redirected) {
  MutexLock lock(&cluster_->mu);
  std::string& bytes = cluster_->uploads[upload].bytes;
  if (chunk.offset() != static_cast<int64_t>(bytes.size())) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kOutOfRange,
                                  reason::kOffsetMismatch, "wrong offset"));
  }
  if (!chunk.has_crc32c() || chunk.crc32c() != Crc32c(chunk.data())) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kDataLoss,
                                  reason::kChecksumMismatch, "wrong crc"));
  }
  bytes += chunk.data();
  const auto total = static_cast<int64_t>(bytes.size());
  received = total;
  if (lose_all.exchange(false)) {
    bytes.clear();
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "power cut");
  }
  if (break_at >= 0 && total >= break_at) {
    break_at = -1;
    if (forget_on_break) {
      bytes.resize(static_cast<size_t>(WholeMiB(total / 2)));
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
  }
  v1::WriteImageResponse response;
  if (redirect_at >= 0 && total >= redirect_at) {
    redirect_at = -1;
    bytes.resize(static_cast<size_t>(WholeMiB(total)));
    v1::Redirect* redirect = response.mutable_redirect();
    redirect->mutable_target()->set_mount("mounts/two");
    redirect->mutable_target()->set_mount_uid("uid-two");
    redirect->mutable_target()->add_addresses(redirect_to);
    redirect->set_capability("capability-two");
    redirect->set_offset(WholeMiB(total));
    *cluster_->uploads[upload].upload.mutable_target() = redirect->target();
    stream->Write(response);
    *redirected = true;
    return grpc::Status::OK;
  }
  most_unsafe = std::max<int64_t>(most_unsafe, total - safe_);
  if (!hold_window || release_window) {
    // Not forgotten by forget_on_break, since that cuts at half.
    safe_ = WholeMiB(forget_on_break ? total / 4 : total);
  }
  response.mutable_progress()->set_next_offset(total);
  response.mutable_progress()->set_safe_offset(safe_);
  stream->Write(response);
  if (hold_window && !release_window && total >= 32 * kMiB) {
    while (!release_window) {
      std::this_thread::yield();
    }
    safe_ = total;
    response.mutable_progress()->set_safe_offset(safe_);
    stream->Write(response);
  }
  return grpc::Status::OK;
}

grpc::Status FakeChunkService::Commit(const v1::WriteCommit& commit,
                                      const std::string& upload,
                                      Stream* stream) {
  v1::WriteImageResponse response;
  {
    MutexLock lock(&cluster_->mu);
    FakeUpload& fake = cluster_->uploads[upload];
    if (commit.size_bytes() != static_cast<int64_t>(fake.bytes.size()) ||
        commit.crc32c() != Crc32c(fake.bytes)) {
      return ToGrpcStatus(MakeError(absl::StatusCode::kOutOfRange,
                                    reason::kSizeMismatch, "not what came"));
    }
    fake.upload.set_state(v1::UPLOAD_STATE_COMMITTED);
    v1::Image& image = cluster_->images[fake.upload.image()];
    image.set_name(fake.upload.image());
    image.set_generation(fake.upload.generation());
    image.set_size_bytes(commit.size_bytes());
    image.set_crc32c_hex(
        absl::StrCat(absl::Hex(commit.crc32c(), absl::kZeroPad8)));
    *image.mutable_hashes() = commit.hashes();
    image.set_upload(upload);
    cluster_->bytes[image.name()] = fake.bytes;
    response.mutable_result()->set_image(image.name());
    response.mutable_result()->set_generation(image.generation());
  }
  if (lose_commit_answer.exchange(false)) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "answer lost");
  }
  stream->Write(response);
  return grpc::Status::OK;
}

grpc::Status FakeChunkService::ReadImage(
    grpc::ServerContext* context, const v1::ReadImageRequest* request,
    grpc::ServerWriter<v1::ReadImageResponse>* writer) {
  ++reads;
  if (refuse_capability > 0) {
    --refuse_capability;
    return ToGrpcStatus(MakeError(absl::StatusCode::kPermissionDenied,
                                  reason::kCapabilityInvalid, "ran out"));
  }
  while (stall && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (!refuse.ok()) {
    return refuse;
  }
  std::string bytes;
  v1::ReadImageResponse response;
  {
    MutexLock lock(&cluster_->mu);
    const v1::Image& image = cluster_->images[request->image()];
    bytes = cluster_->bytes[request->image()];
    response.mutable_header()->set_generation(image.generation());
    response.mutable_header()->set_size_bytes(image.size_bytes());
    response.mutable_header()->set_crc32c_hex(image.crc32c_hex());
  }
  writer->Write(response);
  int64_t offset = request->offset();
  const int64_t end = request->length() == 0
                          ? static_cast<int64_t>(bytes.size())
                          : offset + request->length();
  while (offset < end) {
    if (break_read_at >= 0 && offset >= break_read_at) {
      break_read_at = -1;
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
    }
    const int64_t size = std::min(kMiB - offset % kMiB, end - offset);
    v1::Chunk* chunk = response.mutable_chunk();
    chunk->set_offset(offset);
    chunk->set_data(
        bytes.substr(static_cast<size_t>(offset), static_cast<size_t>(size)));
    chunk->set_crc32c(Crc32c(chunk->data()));
    if (corrupt_at >= offset && corrupt_at < offset + size) {
      (*chunk->mutable_data())[static_cast<size_t>(corrupt_at - offset)] ^= 1;
    }
    if (!writer->Write(response)) {
      return grpc::Status::CANCELLED;
    }
    offset += size;
  }
  return grpc::Status::OK;
}

FakeServer::FakeServer(const std::string& path, grpc::Service* service)
    : address_("unix:" + path) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
  // As daemons of ours do: see common/rpc.
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.RegisterService(service);
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() {
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(100));
}

}  // namespace predella::testing
