// Bytes between files and images.
#ifndef PREDELLA_CLIENT_CLI_TRANSFER_H_
#define PREDELLA_CLIENT_CLI_TRANSFER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cli/context.h"
#include "predella/client.h"

namespace predella::cli {

struct PutOptions {
  std::string file;  // "-": standard input
  std::string image;
  std::optional<int64_t> size_bytes;
};

// Uploads a file. The size of a regular file is announced, and an error if it
// changes meanwhile; of anything else it is unknown unless given. The first
// SIGINT, SIGTERM or SIGHUP gives the upload up: CANCELLED.
absl::StatusOr<v1::Image> PutImage(Client* client, const PutOptions& put,
                                   const Context& context);

struct GetOptions {
  ReadOptions read;
  std::string file;  // "-": standard output
};

// Downloads to `file` as output_file.h says.
absl::Status GetImageBytes(Client* client, const GetOptions& get,
                           const Context& context);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_TRANSFER_H_
