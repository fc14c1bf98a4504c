// A coordinator and two agents in this process, on Unix sockets, that fail
// where a test says so. They keep bytes in memory.
#ifndef PREDELLA_TESTS_CLIENT_LIB_FAKE_SERVICES_H_
#define PREDELLA_TESTS_CLIENT_LIB_FAKE_SERVICES_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"

#include "common/mutex.h"
#include "predella/v1/chunk_service.grpc.pb.h"
#include "predella/v1/image_service.grpc.pb.h"

namespace predella::testing {

// What both sides know of one upload.
struct FakeUpload {
  v1::Upload upload;
  std::string bytes;  // as received so far, of whichever agent
  int64_t size = -1;  // of the commit
  uint32_t crc32c = 0;
};

// State that the services share. Guarded as a whole.
struct FakeCluster {
  Mutex mu;
  std::map<std::string, FakeUpload> uploads ABSL_GUARDED_BY(mu);
  std::map<std::string, v1::Image> images ABSL_GUARDED_BY(mu);
  std::map<std::string, std::string> bytes ABSL_GUARDED_BY(mu);
};

class FakeImageService final : public v1::ImageService::Service {
 public:
  explicit FakeImageService(FakeCluster* cluster) : cluster_(cluster) {}

  // Address the next uploads go to.
  std::string agent_address;
  // Called with the number of the call (from 1); a status other than OK is
  // answered, after the call was done when `fail_after` says so.
  std::function<grpc::Status(int)> on_start;
  bool fail_after = false;
  std::atomic<int> starts = 0;
  std::atomic<int> get_uploads = 0;
  std::atomic<int> get_images = 0;
  // So many calls of GetImage fail as if nobody was there.
  std::atomic<int> away = 0;

  grpc::Status StartUpload(grpc::ServerContext* context,
                           const v1::StartUploadRequest* request,
                           v1::Upload* response) override;
  grpc::Status GetUpload(grpc::ServerContext* context,
                         const v1::GetUploadRequest* request,
                         v1::Upload* response) override;
  grpc::Status AbortUpload(grpc::ServerContext* context,
                           const v1::AbortUploadRequest* request,
                           v1::Upload* response) override;
  grpc::Status GetImage(grpc::ServerContext* context,
                        const v1::GetImageRequest* request,
                        v1::Image* response) override;

 private:
  FakeCluster* const cluster_;
};

class FakeChunkService final : public v1::ChunkService::Service {
 public:
  explicit FakeChunkService(FakeCluster* cluster) : cluster_(cluster) {}

  // The stream breaks when so many bytes have come in all, once.
  std::atomic<int64_t> break_at = -1;
  // As break_at; what came beyond the last MiB is forgotten, as by a restart.
  bool forget_on_break = false;
  // A Redirect to this address is sent when so many bytes have come.
  std::atomic<int64_t> redirect_at = -1;
  std::string redirect_to;
  // The commit is done but its answer lost, once.
  std::atomic<bool> lose_commit_answer = false;
  // Neither reads nor answers.
  std::atomic<bool> stall = false;
  // Calls nothing safe until release_window, for which the stream waits when
  // 32 MiB have come.
  std::atomic<bool> hold_window = false;
  std::atomic<bool> release_window = false;
  // Most bytes that ever came and were not called safe.
  std::atomic<int64_t> most_unsafe = 0;
  // The next chunk breaks the stream and all bytes are gone, once.
  std::atomic<bool> lose_all = false;
  // So many times a stream hears that its bytes are being verified, with
  // offsets that mean nothing, before it hears where to go on.
  std::atomic<int> verify = 0;
  // Every stream ends with this.
  grpc::Status refuse = grpc::Status::OK;
  // One byte of the answer to reads is turned over at this offset.
  std::atomic<int64_t> corrupt_at = -1;
  // Reads break off after so many bytes, once.
  std::atomic<int64_t> break_read_at = -1;
  // The next so many reads, or streams that write, are refused for their
  // capability.
  std::atomic<int> refuse_capability = 0;
  // The next so many streams end because a call to the mount hangs.
  std::atomic<int> stalled_streams = 0;

  std::atomic<int> streams = 0;
  std::atomic<int> reads = 0;
  std::atomic<int64_t> received = 0;

  grpc::Status WriteImage(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::WriteImageResponse, v1::WriteImageRequest>*
          stream) override;
  grpc::Status ReadImage(
      grpc::ServerContext* context, const v1::ReadImageRequest* request,
      grpc::ServerWriter<v1::ReadImageResponse>* writer) override;

 private:
  using Stream =
      grpc::ServerReaderWriter<v1::WriteImageResponse, v1::WriteImageRequest>;
  grpc::Status Take(const v1::Chunk& chunk, const std::string& upload,
                    Stream* stream, bool* redirected);
  grpc::Status Commit(const v1::WriteCommit& commit, const std::string& upload,
                      Stream* stream);

  FakeCluster* const cluster_;
  std::atomic<int64_t> safe_ = 0;
};

// One service on one socket in `directory`.
class FakeServer {
 public:
  FakeServer(const std::string& path, grpc::Service* service);
  ~FakeServer();
  const std::string& address() const { return address_; }

 private:
  const std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_CLIENT_LIB_FAKE_SERVICES_H_
