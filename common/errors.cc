#include "common/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

#include "common/logging.h"

namespace predella {
namespace {

constexpr absl::string_view kTypeUrl =
    "type.googleapis.com/google.rpc.ErrorInfo";

bool InfoOf(const absl::Status& status, google::rpc::ErrorInfo* info) {
  const auto payload = status.GetPayload(kTypeUrl);
  return payload.has_value() && info->ParseFromString(std::string(*payload));
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message, ErrorMetadata metadata) {
  absl::Status status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kErrorDomain));
  for (auto& [key, value] : metadata) {
    (*info.mutable_metadata())[key] = value;
  }
  status.SetPayload(kTypeUrl, absl::Cord(info.SerializeAsString()));
  return status;
}

absl::Status InvalidArgument(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   message);
}

absl::StatusCode OutcomeCode(absl::string_view reason) {
  if (reason == reason::kNoSpaceInCluster || reason == reason::kMountFull) {
    return absl::StatusCode::kResourceExhausted;
  }
  if (reason == reason::kNameTaken) {
    return absl::StatusCode::kAlreadyExists;
  }
  return reason == reason::kMountsMissing || reason == reason::kAgentUnreachable
             ? absl::StatusCode::kUnavailable
             : absl::StatusCode::kAborted;
}

std::string ReasonOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  return InfoOf(status, &info) ? info.reason() : "";
}

ErrorMetadata MetadataOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  ErrorMetadata out;
  if (InfoOf(status, &info)) {
    out.insert(info.metadata().begin(), info.metadata().end());
  }
  return out;
}

bool HasReason(const absl::Status& status, absl::string_view reason) {
  return ReasonOf(status) == reason;
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) {
    return status;
  }
  absl::Status out(status.code(),
                   absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    out.SetPayload(url, payload);
  });
  return out;
}

void LogIfError(const absl::Status& status, absl::string_view why) {
  if (!status.ok()) {
    LogWarning("error_ignored", {{"error", status.ToString()}, {"why", why}});
  }
}

}  // namespace predella
