// What a check of the index finds.
#ifndef PREDELLA_SERVER_INDEX_INDEX_FINDING_H_
#define PREDELLA_SERVER_INDEX_INDEX_FINDING_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

#include "common/ids.h"

namespace predella::server {

// Fatal: an image can not be read, or an answer may be wrong. Repairable: the
// next step mends it and nothing is lost by it.
enum class FindingClass { kFatal, kFatalRepairable, kError, kErrorRepairable };

struct Finding {
  FindingClass finding_class = FindingClass::kError;
  std::string code;  // stable
  Uuid mount_uid;    // "none": it is about no mount, or image
  Uuid image_id;
  std::string row;  // key, escaped; where it is about a row as such
  std::string detail;
  std::string next_step;
};

// The next step where only an index made anew helps.
inline constexpr char kRebuildStep[] =
    "predella index restore of a backup, or predella index rebuild from the "
    "mounts (docs/recovery.md)";

Finding RowFinding(FindingClass finding_class, absl::string_view code,
                   absl::string_view key, std::string detail,
                   std::string next_step);
// The key and the row do not name the same.
Finding MisplacedRow(absl::string_view key);
// Parses; false with a finding where that fails.
bool ParsedOrFound(absl::string_view key, absl::string_view value,
                   google::protobuf::MessageLite* row,
                   std::vector<Finding>* findings);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_INDEX_FINDING_H_
