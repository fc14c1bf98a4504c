// Early returns for absl::Status and absl::StatusOr; the names are those of
// the newer Abseil's users, so a later swap is mechanical.
//
//   RETURN_IF_ERROR(file->Sync());
//   ASSIGN_OR_RETURN(auto label, ReadLabel(root));
#ifndef PREDELLA_COMMON_STATUS_MACROS_H_
#define PREDELLA_COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define PREDELLA_MACRO_CONCAT_INNER(x, y) x##y
#define PREDELLA_MACRO_CONCAT(x, y) PREDELLA_MACRO_CONCAT_INNER(x, y)

#define RETURN_IF_ERROR(expr)                                           \
  do {                                                                  \
    if (absl::Status predella_status = (expr); !predella_status.ok()) { \
      return predella_status;                                           \
    }                                                                   \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  PREDELLA_ASSIGN_OR_RETURN_IMPL(   \
      PREDELLA_MACRO_CONCAT(predella_status_or_, __LINE__), lhs, expr)

#define PREDELLA_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                                   \
  if (!statusor.ok()) {                                     \
    return std::move(statusor).status();                    \
  }                                                         \
  lhs = std::move(statusor).value()

#endif  // PREDELLA_COMMON_STATUS_MACROS_H_
