// What the commands print.
#ifndef PREDELLA_CLIENT_CLI_OUTPUT_H_
#define PREDELLA_CLIENT_CLI_OUTPUT_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"

#include "predella/v1/cluster_service.pb.h"
#include "predella/v1/image_service.pb.h"
#include "predella/v1/mount_service.pb.h"

namespace predella::cli {

// Columns aligned by their widest cell, two spaces between, nothing behind
// the last. Cells have no spaces but in the last column.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void Add(std::vector<std::string> row);
  void Print(std::ostream* out, bool header = true) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Without control characters ("\x1b" for one): texts come from operators,
// disks and agents, and none may steer the terminal. Table does it itself.
std::string Shown(absl::string_view text);
// "7.3T", "400G", "0": for columns.
std::string ShortSize(int64_t bytes);
absl::Time ToTime(const google::protobuf::Timestamp& time);
// "31d", "5h", "12m", "7s"; "-" without a time.
std::string Age(const google::protobuf::Timestamp& time, absl::Time now);
// "2026-03-01T12:00:00Z"; "-" without a time.
std::string Moment(const google::protobuf::Timestamp& time);
// "ONLINE" from HEALTH_ONLINE, "DEGRADED" from IMAGE_HEALTH_DEGRADED.
std::string Short(v1::Health health);
std::string Short(v1::ImageHealth health);
std::string Short(v1::AdminState state);
std::string Short(v1::ClusterHealth health);
std::string Short(v1::CopyFault fault);
// "store-1" from "mounts/store-1"; likewise for images and uploads.
std::string Bare(const std::string& name);

// The protobuf JSON form, all fields present, on one line or on several with a
// newline at the end. INTERNAL where a field has no JSON form, as a time after
// the year 9999.
absl::StatusOr<std::string> JsonOf(const google::protobuf::Message& message,
                                   bool one_line);
absl::Status PrintJson(const google::protobuf::Message& message,
                       std::ostream* out);

// A list of images that may come in parts: the header stands above the first.
class ImageTable {
 public:
  ImageTable(bool wide, absl::Time now, std::ostream* out)
      : wide_(wide), now_(now), out_(out) {}
  void Print(const v1::ListImagesResponse& images);

 private:
  const bool wide_;
  const absl::Time now_;
  std::ostream* const out_;
  bool began_ = false;
};

void PrintImage(const v1::Image& image, std::ostream* out);
void PrintUploads(const v1::ListUploadsResponse& uploads, bool wide,
                  absl::Time now, std::ostream* out);
void PrintMounts(const v1::ListMountsResponse& mounts, bool wide,
                 absl::Time now, std::ostream* out);
void PrintOrphans(const v1::ListOrphansResponse& orphans, std::ostream* out);
void PrintMount(const v1::Mount& mount, absl::Time now, std::ostream* out);
// How far the scrub of a mount is, as a line.
std::string ScrubLine(const v1::Mount& mount);
void PrintCluster(const v1::Cluster& cluster, absl::Time now,
                  std::ostream* out);
void PrintDecision(const v1::PlacementDecision& decision, bool wide,
                   std::ostream* out);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_OUTPUT_H_
