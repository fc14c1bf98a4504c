// A client, and a coordinator and two agents that fail when they are told.
#ifndef PREDELLA_TESTS_CLIENT_LIB_CLIENT_FIXTURE_H_
#define PREDELLA_TESTS_CLIENT_LIB_CLIENT_FIXTURE_H_

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/crc32c.h"
#include "common/mutex.h"
#include "predella/client.h"
#include "tests/client/lib/fake_services.h"
#include "tests/testing/matchers.h"

namespace predella::testing {

inline constexpr char kImage[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

inline std::string RandomString(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) {
    c = static_cast<char>(random());
  }
  return out;
}

class ClientFixture : public ::testing::Test {
 protected:
  ClientFixture() {
    std::string pattern = ::testing::TempDir() + "clientXXXXXX";
    directory_ = mkdtemp(pattern.data());
    coordinator_ =
        std::make_unique<FakeServer>(directory_ + "/c.sock", &images_);
    one_server_ = std::make_unique<FakeServer>(directory_ + "/1.sock", &one_);
    two_server_ = std::make_unique<FakeServer>(directory_ + "/2.sock", &two_);
    images_.agent_address = one_server_->address();
    options_.endpoint = coordinator_->address();
    options_.first_backoff = absl::Milliseconds(5);
    options_.most_backoff = absl::Milliseconds(20);
    options_.retry_for = absl::Seconds(2);
    options_.stall_timeout = absl::Seconds(5);
  }
  ~ClientFixture() override {
    one_.stall = false;
    two_.stall = false;
    coordinator_.reset();
    one_server_.reset();
    two_server_.reset();
    for (const char* name : {"/c.sock", "/1.sock", "/2.sock"}) {
      unlink((directory_ + name).c_str());
    }
    rmdir(directory_.c_str());
  }

  Client Connect() {
    auto client = Client::Connect(options_);
    EXPECT_OK(client);
    return *client;
  }
  // In pieces of an odd size.
  static absl::Status WriteAll(ImageWriter* writer, const std::string& bytes) {
    constexpr size_t kPiece = 300'001;
    for (size_t at = 0; at < bytes.size(); at += kPiece) {
      absl::Status status =
          writer->Write(absl::string_view(bytes).substr(at, kPiece));
      if (!status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  absl::StatusOr<v1::Image> Upload(const std::string& bytes) {
    UploadOptions upload;
    upload.image = kImage;
    auto writer = Connect().StartUpload(upload);
    if (!writer.ok()) {
      return writer.status();
    }
    if (absl::Status status = WriteAll(writer->get(), bytes); !status.ok()) {
      return status;
    }
    return (*writer)->Commit();
  }
  std::string Stored() {
    MutexLock lock(&cluster_.mu);
    return cluster_.bytes[absl::StrCat("images/", kImage)];
  }
  // An image with copies on both agents.
  std::string PutImage(size_t size) {
    const std::string bytes = RandomString(size, 99);
    MutexLock lock(&cluster_.mu);
    const std::string name = absl::StrCat("images/", kImage);
    v1::Image& image = cluster_.images[name];
    image.set_name(name);
    image.set_generation("1-1-00000001");
    image.set_size_bytes(static_cast<int64_t>(size));
    image.set_crc32c_hex(
        absl::StrCat(absl::Hex(Crc32c(bytes), absl::kZeroPad8)));
    for (const FakeServer* server : {one_server_.get(), two_server_.get()}) {
      v1::Copy* copy = image.add_copies();
      copy->set_mount(server == one_server_.get() ? "mounts/one"
                                                  : "mounts/two");
      copy->add_addresses(server->address());
    }
    cluster_.bytes[name] = bytes;
    return bytes;
  }
  absl::StatusOr<std::string> ReadAll(int64_t offset = 0, int64_t length = 0) {
    ReadOptions read;
    read.image = kImage;
    read.offset = offset;
    read.length = length;
    auto reader = Connect().ReadImage(read);
    if (!reader.ok()) {
      return reader.status();
    }
    std::string out;
    while (true) {
      const absl::StatusOr<absl::string_view> data = (*reader)->Read();
      if (!data.ok()) {
        return data.status();
      }
      if (data->empty()) {
        return out;
      }
      absl::StrAppend(&out, *data);
    }
  }

  std::string directory_;
  FakeCluster cluster_;
  FakeImageService images_{&cluster_};
  FakeChunkService one_{&cluster_};
  FakeChunkService two_{&cluster_};
  std::unique_ptr<FakeServer> coordinator_;
  std::unique_ptr<FakeServer> one_server_;
  std::unique_ptr<FakeServer> two_server_;
  ClientOptions options_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_CLIENT_LIB_CLIENT_FIXTURE_H_
