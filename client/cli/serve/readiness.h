// When serve says READY.
#ifndef PREDELLA_CLIENT_CLI_SERVE_READINESS_H_
#define PREDELLA_CLIENT_CLI_SERVE_READINESS_H_

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "predella/v1/mount_service.pb.h"

namespace predella::cli {

// Ready is: every configured mount takes uploads, or was excused by an
// operator, or has had ten seconds to come; three, where its directory was
// found to be away before: the others shall not wait for it.
class Readiness {
 public:
  static constexpr absl::Duration kWait = absl::Seconds(10);
  static constexpr absl::Duration kWaitAway = absl::Seconds(3);

  explicit Readiness(std::vector<std::string> names,
                     std::set<std::string> away = {})
      : names_(std::move(names)), away_(std::move(away)) {}

  // A mount that takes no uploads.
  struct Apart {
    std::string word;  // "ABSENT", "UNTRUSTED", or what the operator said
    std::string name;
    // "FAILED: its directory bears no label"; empty for one that is well, or
    // given up.
    std::string why;
  };
  struct Report {
    std::vector<Apart> apart;
  };
  // `mounts` is what the coordinator says at `now` (Clock::Boot); the wait
  // begins with its first answer.
  std::optional<Report> Update(const v1::ListMountsResponse& mounts,
                               absl::Duration now);

 private:
  const std::vector<std::string> names_;
  const std::set<std::string> away_;
  std::optional<absl::Duration> first_answer_;
};

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_READINESS_H_
