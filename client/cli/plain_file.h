// What lies in a file that another store wrote.
#ifndef PREDELLA_CLIENT_CLI_PLAIN_FILE_H_
#define PREDELLA_CLIENT_CLI_PLAIN_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "predella/v1/mount_service.pb.h"

namespace predella::cli {

// Reads all of it. INVALID_ARGUMENT for what is no regular file, for a hash
// that is not known, and when it changed while it was read.
absl::StatusOr<v1::PlainFile> ReadPlainFile(
    const std::string& path, const std::vector<std::string>& algorithms);

// "sha512:9F3A..." as Glance's database has it. INVALID_ARGUMENT for others.
absl::StatusOr<v1::Hash> ParseHash(const std::string& text);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_PLAIN_FILE_H_
