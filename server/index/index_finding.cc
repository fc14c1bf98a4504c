#include "server/index/index_finding.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"

#include "server/index/index_keys.h"

namespace predella::server {

Finding RowFinding(FindingClass finding_class, absl::string_view code,
                   absl::string_view key, std::string detail,
                   std::string next_step) {
  Finding finding;
  finding.finding_class = finding_class;
  finding.code = std::string(code);
  finding.row = absl::CHexEscape(key);
  finding.detail = std::move(detail);
  finding.next_step = std::move(next_step);
  return finding;
}

Finding MisplacedRow(absl::string_view key) {
  return RowFinding(FindingClass::kFatalRepairable, "ROW_MISPLACED", key,
                    "the row names another object than its key does",
                    kRebuildStep);
}

bool ParsedOrFound(absl::string_view key, absl::string_view value,
                   google::protobuf::MessageLite* row,
                   std::vector<Finding>* findings) {
  const absl::Status status = ParseRow(key, value, row);
  if (!status.ok()) {
    findings->push_back(
        RowFinding(FindingClass::kFatalRepairable, "ROW_DAMAGED", key,
                   std::string(status.message()), kRebuildStep));
  }
  return status.ok();
}

}  // namespace predella::server
