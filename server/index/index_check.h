// The index against itself: what each row must satisfy, and the counters
// against a recount. Reads only.
#ifndef PREDELLA_SERVER_INDEX_INDEX_CHECK_H_
#define PREDELLA_SERVER_INDEX_INDEX_CHECK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/index_finding.h"
#include "server/index/placement_index.h"

namespace predella::server {

// One table, or all counters. In the order in which they are checked.
enum class IndexSection {
  kMounts,
  kImages,
  kByMount,
  kUploads,
  kTombstones,
  kConflicts,
  kScrubs,
  kUnadopted,
  kEvents,
  kMeta,
  kUnknown,  // rows of no table that is known
  kTotals,
  kFaults,
};

// Beside a coordinator that commits. A row that looks wrong is read again: it
// counts only when it did not change while the rows it must agree with were
// read.
class IndexCheck {
 public:
  struct Page {
    std::vector<Finding> findings;
    int64_t rows = 0;
    // Last key; empty: the section is done.
    std::string last;
  };
  // Must outlive it.
  explicit IndexCheck(const PlacementIndex* index) : index_(index) {}

  // Looks at rows behind the key `after` ("": from the first), `limit` at
  // most; memory for so many rows. The counters are one page, whatever the
  // limit.
  absl::StatusOr<Page> Check(IndexSection section, absl::string_view after,
                             int64_t limit);

 private:
  using Findings = std::vector<Finding>;
  // What is wrong with a row; an error where another row could not be read.
  using Look = std::function<absl::Status(
      absl::string_view key, absl::string_view value, Findings* findings)>;

  absl::StatusOr<Page> CheckRows(absl::string_view prefix,
                                 absl::string_view after, int64_t limit,
                                 const Look& look) const;
  absl::Status LookAtMount(absl::string_view key, absl::string_view value,
                           Findings* findings) const;
  absl::Status LookAtImage(absl::string_view key, absl::string_view value,
                           Findings* findings) const;
  absl::Status LookAtMountImage(absl::string_view key, absl::string_view value,
                                Findings* findings) const;
  absl::Status LookAtUpload(absl::string_view key, absl::string_view value,
                            Findings* findings) const;
  absl::Status LookAtTombstone(absl::string_view key, absl::string_view value,
                               Findings* findings) const;
  absl::Status LookAtConflict(absl::string_view key, absl::string_view value,
                              Findings* findings) const;
  absl::Status LookAtScrub(absl::string_view key, absl::string_view value,
                           Findings* findings) const;
  absl::Status LookAtFault(absl::string_view key, absl::string_view value,
                           Findings* findings) const;
  absl::Status LookAtUnadopted(absl::string_view key, absl::string_view value,
                               Findings* findings) const;
  absl::StatusOr<Page> CheckMeta() const;
  // Steps over the tables, so that it costs its answer.
  absl::StatusOr<Page> CheckUnknown(absl::string_view after,
                                    int64_t limit) const;
  absl::StatusOr<Page> CheckTotals() const;

  // The image row for the sake of another row; one that can not be parsed is
  // its own finding, and none here.
  absl::StatusOr<std::optional<storage::v1::ImageRow>> ImageOf(
      const Uuid& image_id) const;
  // Whether anything tells what became of the image of a committed upload.
  absl::StatusOr<bool> IsAccountedFor(const Uuid& image_id) const;
  absl::Status LookAtCopies(const storage::v1::ImageRow& row,
                            absl::string_view key, Findings* findings) const;
  absl::StatusOr<bool> MountIsKnown(absl::string_view mount_uid) const;
  // Above the last pair that was given out: somebody else gave it.
  bool IsAhead(const storage::v1::Generation& generation) const;

  const PlacementIndex* const index_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_INDEX_CHECK_H_
