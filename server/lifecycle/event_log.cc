#include "server/lifecycle/event_log.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

// Events looked at for one page, and read at a time.
constexpr int64_t kMostEventsLooked = 20'000;
constexpr int64_t kEventBatch = 500;

v1::Event ToApi(const StoredEvent& stored) {
  v1::Event event;
  event.set_id(ToHex(stored.id));
  *event.mutable_time() = ToTimestamp(stored.row.time_us());
  event.set_kind(stored.row.kind());
  if (!stored.row.mount_name().empty()) {
    event.set_mount(MountName(stored.row.mount_name()));
  }
  if (!stored.row.image_id().empty()) {
    event.set_image(ImageName(Uuid::FromBytesOrNone(stored.row.image_id())));
  }
  event.set_detail(stored.row.detail());
  event.set_error(stored.row.error());
  event.set_affected_image_count(stored.row.affected_images());
  return event;
}

absl::StatusOr<std::string> ParseId(absl::string_view id) {
  auto raw = FromHex(id);
  if (!raw.ok() || raw->size() != PlacementIndex::kEventIdBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     absl::StrCat("\"", id, "\" is not the id of an event"));
  }
  return raw;
}

}  // namespace

absl::StatusOr<v1::ListEventsResponse> EventLog::List(
    const v1::ListEventsRequest& request) const {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  std::string mount;
  if (!request.mount().empty()) {
    ASSIGN_OR_RETURN(mount, ParseMountName(request.mount()));
  }
  const std::string arguments =
      absl::StrCat("events\n", mount, "\n", request.kind());
  ASSIGN_OR_RETURN(std::string before,
                   DecodePageToken(arguments, request.page_token()));
  v1::ListEventsResponse response;
  int64_t looked = 0;
  while (true) {
    ASSIGN_OR_RETURN(const std::vector<StoredEvent> events,
                     index_->EventsBefore(before, kEventBatch));
    for (const StoredEvent& event : events) {
      if (response.events_size() == page_size || looked == kMostEventsLooked) {
        response.set_next_page_token(EncodePageToken(arguments, before));
        return response;
      }
      ++looked;
      before = event.id;
      if ((mount.empty() || event.row.mount_name() == mount) &&
          (request.kind().empty() || event.row.kind() == request.kind())) {
        *response.add_events() = ToApi(event);
      }
    }
    if (static_cast<int64_t>(events.size()) < kEventBatch) {
      return response;
    }
  }
}

absl::StatusOr<std::string> EventLog::Newest() const {
  ASSIGN_OR_RETURN(const std::vector<StoredEvent> events,
                   index_->EventsBefore("", 1));
  return ToHex(events.empty() ? std::string(PlacementIndex::kEventIdBytes, '\0')
                              : events[0].id);
}

absl::Status EventLog::CheckId(absl::string_view id) {
  return ParseId(id).status();
}

absl::StatusOr<std::vector<v1::Event>> EventLog::After(absl::string_view id,
                                                       int64_t limit) const {
  ASSIGN_OR_RETURN(const std::string after, ParseId(id));
  ASSIGN_OR_RETURN(const std::vector<StoredEvent> events,
                   index_->EventsAfter(after, limit));
  std::vector<v1::Event> out;
  out.reserve(events.size());
  for (const StoredEvent& event : events) {
    out.push_back(ToApi(event));
  }
  return out;
}

absl::StatusOr<int64_t> EventLog::Follow(std::function<void()> wake) {
  MutexLock lock(&mu_);
  if (followers_.size() >= kMostFollowers) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, reason::kAgentOverloaded,
        absl::StrCat(followers_.size(),
                     " clients follow the events already: end one of them"));
  }
  followers_.emplace(next_follower_, std::move(wake));
  return next_follower_++;
}

void EventLog::Unfollow(int64_t follower) {
  MutexLock lock(&mu_);
  followers_.erase(follower);
}

void EventLog::WakeAll() {
  MutexLock lock(&mu_);
  for (const auto& [follower, wake] : followers_) {
    wake();
  }
}

}  // namespace predella::server
