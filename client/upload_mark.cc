#include "predella/upload_mark.h"

#include <cstddef>
#include <memory>

#include "common/digest.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella {
namespace {

// RFC 9562: of version 8 all but the version and the variant is ours.
constexpr size_t kMarkAt = 8;
constexpr size_t kMarkBytes = 8;

absl::StatusOr<std::string> MarkOf(absl::string_view writer) {
  const std::unique_ptr<Digest> digest = Digest::Make("sha256");
  if (digest == nullptr) {
    return absl::InternalError("the crypto library has no sha256");
  }
  digest->Update(writer);
  std::string mark = digest->Finish().substr(0, kMarkBytes);
  mark[0] = static_cast<char>((static_cast<unsigned char>(mark[0]) & 0x3f) |
                              0x80);  // the variant
  return mark;
}

}  // namespace

absl::StatusOr<std::string> DrawUploadId(absl::string_view writer) {
  if (writer.empty()) {
    return RandomIds()->NextUuid().ToString();
  }
  ASSIGN_OR_RETURN(const std::string mark, MarkOf(writer));
  std::string bytes = RandomIds()->RandomBytes(kMarkAt) + mark;
  bytes[6] = static_cast<char>((static_cast<unsigned char>(bytes[6]) & 0x0f) |
                               0x80);  // the version
  ASSIGN_OR_RETURN(const Uuid id, Uuid::FromBytes(bytes));
  return id.ToString();
}

bool IsUploadOf(absl::string_view upload, absl::string_view writer) {
  const absl::StatusOr<Uuid> id = ParseUploadName(upload);
  const absl::StatusOr<std::string> mark = MarkOf(writer);
  if (writer.empty() || !id.ok() || !mark.ok()) {
    return false;
  }
  const std::string bytes = id->bytes();
  return (static_cast<unsigned char>(bytes[6]) & 0xf0) == 0x80 &&
         bytes.substr(kMarkAt, kMarkBytes) == *mark;
}

}  // namespace predella
