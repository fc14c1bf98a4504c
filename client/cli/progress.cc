#include "client/cli/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/units.h"

namespace predella::cli {
namespace {

constexpr absl::Duration kRedraw = absl::Milliseconds(200);

}  // namespace

std::string ShortDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Seconds(0.5));
  if (seconds < 60) {
    return absl::StrCat(seconds, "s");
  }
  if (seconds < 3600) {
    return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  }
  return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
}

std::string ProgressLine(int64_t done, std::optional<int64_t> total,
                         absl::Duration elapsed) {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string line;
  if (total.has_value() && *total > 0) {
    const double part = static_cast<double>(done) / static_cast<double>(*total);
    absl::StrAppend(&line, absl::StrFormat("%3.0f%%  ", 100 * part),
                    FormatSize(done), " of ", FormatSize(*total));
  } else {
    line = FormatSize(done);
  }
  absl::StrAppend(&line, "  ", FormatSize(static_cast<int64_t>(rate)), "/s");
  if (total.has_value() && rate > 0 && done < *total) {
    absl::StrAppend(&line, "  ETA ",
                    ShortDuration(absl::Seconds(
                        static_cast<double>(*total - done) / rate)));
  }
  return line;
}

Progress::Progress(std::ostream* out, std::optional<int64_t> total,
                   Clock* clock)
    : out_(out),
      total_(total),
      clock_(clock),
      start_(clock->Boot()),
      drawn_(start_) {}

Progress::~Progress() {
  if (out_ != nullptr && anything_drawn_) {
    *out_ << "\r\033[K" << ProgressLine(done_, total_, clock_->Boot() - start_)
          << "\n"
          << std::flush;
  }
}

void Progress::Update(int64_t done) {
  done_ = done;
  const absl::Duration now = clock_->Boot();
  if (out_ == nullptr || now - drawn_ < kRedraw) {
    return;
  }
  drawn_ = now;
  anything_drawn_ = true;
  *out_ << "\r\033[K" << ProgressLine(done, total_, now - start_) << std::flush;
}

void WaitingNotice::operator()(const absl::Status& why, absl::Duration waited) {
  if (waited < kFirst) {
    next_ = kFirst;  // something new
    return;
  }
  if (waited < next_) {
    return;
  }
  next_ = waited + kAgain;
  *err_ << (terminal_ ? "\r\033[K" : "") << "waiting for "
        << ShortDuration(waited) << ": " << why.message() << "\n"
        << std::flush;
}

}  // namespace predella::cli
