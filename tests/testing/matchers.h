// Matchers for absl::Status and absl::StatusOr, under the names of the newer
// Abseil: IsOk(), IsOkAndHolds(m), StatusIs(code), StatusIs(code, message).
// HasReason(r) looks at the ErrorInfo.
#ifndef PREDELLA_TESTS_TESTING_MATCHERS_H_
#define PREDELLA_TESTS_TESTING_MATCHERS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"

namespace predella::testing {

inline const absl::Status& GetStatus(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status) {
  return status.status();
}

MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P(IsOkAndHolds, matcher, "is OK and holds the value") {
  if (!arg.ok()) {
    *result_listener << arg.status().ToString();
    return false;
  }
  return ::testing::ExplainMatchResult(matcher, *arg, result_listener);
}

MATCHER_P(StatusIs, code,
          std::string("has the code ") +
              absl::StatusCodeToString(static_cast<absl::StatusCode>(code))) {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code;
}

MATCHER_P2(StatusIs, code, message, "has the code and message") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code &&
         ::testing::ExplainMatchResult(
             message, std::string(GetStatus(arg).message()), result_listener);
}

MATCHER_P(HasReason, wanted,
          std::string("has the reason ") + std::string(wanted)) {
  const std::string got = ::predella::ReasonOf(GetStatus(arg));
  *result_listener << GetStatus(arg).ToString() << " reason \"" << got << "\"";
  return got == std::string(wanted);
}

}  // namespace predella::testing

#define ASSERT_OK(expr) ASSERT_THAT(expr, ::predella::testing::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT(expr, ::predella::testing::IsOk())

// Declares or assigns from a StatusOr, or fails the test.
#define PREDELLA_TEST_CONCAT_INNER(x, y) x##y
#define PREDELLA_TEST_CONCAT(x, y) PREDELLA_TEST_CONCAT_INNER(x, y)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  PREDELLA_ASSERT_OK_AND_ASSIGN_IMPL(   \
      PREDELLA_TEST_CONCAT(predella_test_status_or_, __LINE__), lhs, expr)
#define PREDELLA_ASSERT_OK_AND_ASSIGN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                                       \
  ASSERT_THAT(statusor, ::predella::testing::IsOk());           \
  lhs = std::move(statusor).value()

#endif  // PREDELLA_TESTS_TESTING_MATCHERS_H_
