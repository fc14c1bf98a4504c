#include "agent/fs/errno_status.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"

namespace predella::agent {
namespace {

struct Class {
  absl::StatusCode code;
  absl::string_view reason;  // empty: none
};

Class Classify(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {absl::StatusCode::kResourceExhausted, reason::kMountFull};
    case EROFS:
      return {absl::StatusCode::kFailedPrecondition, reason::kMountReadOnly};
    case EIO:
    case ENODEV:
    case ENXIO:
    case ENOTCONN:
    case ESTALE:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ECONNABORTED:
    case ESHUTDOWN:
    case EREMOTEIO:
    case ETIMEDOUT:
    case EUCLEAN:  // ext4 and XFS: the file system is corrupt
    case EBADMSG:
    case ENOMEDIUM:
      return {absl::StatusCode::kUnavailable, reason::kMountFailed};
    case ENOENT:
      return {absl::StatusCode::kNotFound, ""};
    case EEXIST:
      return {absl::StatusCode::kAlreadyExists, ""};
    case EACCES:
    case EPERM:
    case ELOOP:    // a symbolic link
    case EXDEV:    // an escape, or another file system
    case ENOTDIR:  // a file lies where a directory should
      return {absl::StatusCode::kPermissionDenied, reason::kMountPermission};
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return {absl::StatusCode::kResourceExhausted, reason::kAgentOverloaded};
    case EOPNOTSUPP:
    case ENOSYS:
      return {absl::StatusCode::kUnimplemented, ""};
    case EISDIR:
    case ENOTEMPTY:
      return {absl::StatusCode::kFailedPrecondition, ""};
    default:
      return {absl::StatusCode::kInternal, ""};
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view what) {
  const Class c = Classify(error);
  // Not strerror: it is not safe among threads.
  const std::string message = absl::StrCat(
      "could not ", what, ": ", std::generic_category().message(error));
  if (c.reason.empty()) {
    return absl::Status(c.code, message);
  }
  // No name for one that glibc does not know.
  const char* const name = strerrorname_np(error);
  return MakeError(
      c.code, c.reason, message,
      name == nullptr ? ErrorMetadata() : ErrorMetadata{{"errno", name}});
}

absl::Status DeniedStatus(absl::string_view what) {
  return ErrnoStatus(EACCES, what);
}

absl::Status SeveralNamesStatus(absl::string_view path, int64_t links) {
  return MakeError(absl::StatusCode::kPermissionDenied,
                   reason::kMountPermission,
                   absl::StrCat(path, " has more than one link: it has ", links,
                                " names (hard links), and who writes to it by "
                                "another one changes it: remove that, or give "
                                "it bytes of its own (cp -p, then mv)"),
                   {{"errno", "EMLINK"}});
}

std::string ErrorName(const absl::Status& status) {
  return MetadataOf(status)["errno"];
}

bool MeansGone(const absl::Status& status) {
  static constexpr absl::string_view kGone[] = {
      "ENOTCONN", "ESTALE", "ENODEV", "ENXIO", "ENOMEDIUM", "ESHUTDOWN"};
  return std::find(std::begin(kGone), std::end(kGone), ErrorName(status)) !=
         std::end(kGone);
}

bool MeansInTheWay(const absl::Status& status) {
  static constexpr absl::string_view kInTheWay[] = {"ENOTDIR", "ELOOP",
                                                    "EXDEV"};
  return std::find(std::begin(kInTheWay), std::end(kInTheWay),
                   ErrorName(status)) != std::end(kInTheWay);
}

}  // namespace predella::agent
