// Rows as the public API shows them.
#ifndef PREDELLA_SERVER_LIFECYCLE_API_CONVERT_H_
#define PREDELLA_SERVER_LIFECYCLE_API_CONVERT_H_

#include <cstdint>
#include <string>

#include "google/protobuf/timestamp.pb.h"

#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/lifecycle_options.h"

namespace predella::server {

// Of the last second that a message's time can be: 9999-12-31T23:59:59Z.
inline constexpr int64_t kLastSecond = 253'402'300'799;
// Later times are that one: a message with them could not be written as JSON.
google::protobuf::Timestamp ToTimestamp(int64_t micros);
int64_t FromTimestamp(const google::protobuf::Timestamp& timestamp);

v1::UploadState ToUploadState(storage::v1::UploadOutcome outcome);

v1::ImageConflict ToApiConflict(const storage::v1::ConflictRow& row,
                                const MountRegistry& registry);

// With capabilities and the decision unless `brief`. `image` is empty before.
void ToApiImage(const storage::v1::ImageRow& row, ImageState state,
                const LifecycleDeps& deps, const KnownMounts& mounts,
                bool brief, v1::Image* image);
v1::Mount ToApiMount(const MountInfo& info, const ImageTotals& totals,
                     int64_t pending_removals);

// The addresses an agent said it is reached at; empty while never seen.
template <typename Repeated>
void CopyAddresses(const MountInfo& info, Repeated* out) {
  if (info.hello.has_value()) {
    for (const std::string& address : info.hello->addresses()) {
      *out->Add() = address;
    }
  }
}

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_API_CONVERT_H_
