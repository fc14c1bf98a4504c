// How far a transfer is: one line, drawn over and over.
#ifndef PREDELLA_CLIENT_CLI_PROGRESS_H_
#define PREDELLA_CLIENT_CLI_PROGRESS_H_

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"

namespace predella::cli {

// " 45%  9 GiB of 20 GiB  110 MiB/s  ETA 1m40s"; without a total only what
// was done and the rate.
std::string ProgressLine(int64_t done, std::optional<int64_t> total,
                         absl::Duration elapsed);

// "1m40s", "12s", "2h05m".
std::string ShortDuration(absl::Duration duration);

class Progress {
 public:
  // `out` null: nothing is drawn.
  Progress(std::ostream* out, std::optional<int64_t> total, Clock* clock);
  // Ends the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Draws at most five times a second.
  void Update(int64_t done);

 private:
  std::ostream* const out_;
  const std::optional<int64_t> total_;
  Clock* const clock_;
  const absl::Duration start_;
  absl::Duration drawn_;
  int64_t done_ = 0;
  bool anything_drawn_ = false;
};

// Says on `err` what a call waits for: after three seconds, then every 30.
// With a bar on `err` (`terminal`) its line is cleared first.
class WaitingNotice {
 public:
  static constexpr absl::Duration kFirst = absl::Seconds(3);
  static constexpr absl::Duration kAgain = absl::Seconds(30);

  WaitingNotice(std::ostream* err, bool terminal)
      : err_(err), terminal_(terminal) {}

  // ClientOptions::on_waiting.
  void operator()(const absl::Status& why, absl::Duration waited);

 private:
  std::ostream* const err_;
  const bool terminal_;
  absl::Duration next_ = kFirst;
};

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_PROGRESS_H_
