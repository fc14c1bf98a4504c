// One line an event: a stable name, then key=value.
//
//   LogInfo("upload_committed", {{"image", id}, {"bytes", size}});
//
// INFO for changes of state, WARNING for "handled, watch it", ERROR for "an
// operator must act". Never per chunk. Lines go to standard error.
#ifndef PREDELLA_COMMON_LOGGING_H_
#define PREDELLA_COMMON_LOGGING_H_

#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace predella {

struct LogField {
  // Anything StrCat takes.
  LogField(absl::string_view k, const absl::AlphaNum& v)  // NOLINT
      : key(k), value(v.Piece()) {}
  absl::string_view key;
  std::string value;
};

void LogInfo(absl::string_view event, std::initializer_list<LogField> fields);
void LogWarning(absl::string_view event,
                std::initializer_list<LogField> fields);
void LogError(absl::string_view event, std::initializer_list<LogField> fields);

// Sets what is written: "debug", "info", "warning", "error", "off"; false if
// the name is unknown. The environment's PREDELLA_LOG_LEVEL holds until then.
bool SetLogLevel(absl::string_view level);

}  // namespace predella

#endif  // PREDELLA_COMMON_LOGGING_H_
