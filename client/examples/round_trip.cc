// Stores a few bytes as an image, reads them back, and deletes it.
//   round_trip ENDPOINT IMAGE_UUID
#include <iostream>
#include <string>

#include "predella/client.h"

namespace {

int Fail(const absl::Status& status) {
  std::cerr << status.message() << " (" << predella::ErrorReason(status)
            << ")\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: round_trip ENDPOINT IMAGE_UUID\n";
    return 2;
  }
  predella::ClientOptions options;
  options.endpoint = argv[1];
  auto client = predella::Client::Connect(options);
  if (!client.ok()) return Fail(client.status());

  predella::UploadOptions upload;
  upload.image = argv[2];
  auto writer = client->StartUpload(upload);
  if (!writer.ok()) return Fail(writer.status());
  if (auto status = (*writer)->Write("a small panel"); !status.ok()) {
    return Fail(status);
  }
  auto image = (*writer)->Commit();
  if (!image.ok()) return Fail(image.status());

  predella::ReadOptions read;
  read.image = argv[2];
  auto reader = client->ReadImage(read);
  if (!reader.ok()) return Fail(reader.status());
  auto bytes = (*reader)->Read();
  if (!bytes.ok()) return Fail(bytes.status());
  std::cout << image->name() << ": " << *bytes << "\n";

  auto status = client->DeleteImage(argv[2]);
  return status.ok() ? 0 : Fail(status);
}
