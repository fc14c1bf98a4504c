#include "client/cli/plain_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/crc32c.h"
#include "common/digest.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

absl::Status PlainFileError(const std::string& path, const char* what,
                            int error) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error)));
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

absl::Status ReadAll(int fd, const std::string& path,
                     const std::vector<std::unique_ptr<Digest>>& digests,
                     int64_t* size, uint32_t* crc32c) {
  std::vector<char> buffer(static_cast<size_t>(kMiB));
  *size = 0;
  *crc32c = 0;
  while (true) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return PlainFileError(path, "read", errno);
    }
    if (n == 0) {
      return absl::OkStatus();
    }
    const absl::string_view data(buffer.data(), static_cast<size_t>(n));
    *crc32c = ExtendCrc32c(*crc32c, data);
    *size += n;
    for (const std::unique_ptr<Digest>& digest : digests) {
      digest->Update(data);
    }
  }
}

}  // namespace

absl::StatusOr<v1::PlainFile> ReadPlainFile(
    const std::string& path, const std::vector<std::string>& algorithms) {
  std::vector<std::unique_ptr<Digest>> digests;
  for (const std::string& algorithm : algorithms) {
    digests.push_back(Digest::Make(algorithm));
    if (digests.back() == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", algorithm, "\" is no hash that is known here"));
    }
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return PlainFileError(path, "open", errno);
  }
  struct stat before {};
  struct stat after {};
  int64_t size = 0;
  uint32_t crc32c = 0;
  absl::Status status;
  if (fstat(fd, &before) != 0) {
    status = PlainFileError(path, "stat", errno);
  } else if (!S_ISREG(before.st_mode)) {
    status = absl::InvalidArgumentError(
        absl::StrCat(path, " is no regular file: an image is one"));
  } else {
    status = ReadAll(fd, path, digests, &size, &crc32c);
  }
  if (status.ok() && (fstat(fd, &after) != 0 || !SameFile(before, after) ||
                      size != after.st_size)) {
    status = absl::InvalidArgumentError(absl::StrCat(
        path, " changed while it was read: it is being written to"));
  }
  close(fd);
  RETURN_IF_ERROR(status);
  v1::PlainFile plain;
  plain.set_size_bytes(size);
  plain.set_crc32c_hex(absl::StrFormat("%08x", crc32c));
  for (size_t i = 0; i < algorithms.size(); ++i) {
    v1::Hash* const hash = plain.add_hashes();
    hash->set_algorithm(algorithms[i]);
    hash->set_hex(ToHex(digests[i]->Finish()));
  }
  return plain;
}

absl::StatusOr<v1::Hash> ParseHash(const std::string& text) {
  const size_t colon = text.find(':');
  v1::Hash hash;
  if (colon != std::string::npos) {
    hash.set_algorithm(absl::AsciiStrToLower(text.substr(0, colon)));
    hash.set_hex(absl::AsciiStrToLower(text.substr(colon + 1)));
  }
  const std::unique_ptr<Digest> digest = Digest::Make(hash.algorithm());
  const auto value = FromHex(hash.hex());
  if (digest == nullptr || !value.ok() || value->size() != digest->size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--hash \"", text,
                     "\" is not ALGORITHM:HEX, such as "
                     "md5 and its 32 digits"));
  }
  return hash;
}

}  // namespace predella::cli
