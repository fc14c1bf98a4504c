// What happened, as the API tells it: lists, and wakes whoever follows.
#ifndef PREDELLA_SERVER_LIFECYCLE_EVENT_LOG_H_
#define PREDELLA_SERVER_LIFECYCLE_EVENT_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/mutex.h"
#include "predella/v1/cluster_service.pb.h"
#include "server/index/placement_index.h"

namespace predella::server {

// Thread-safe. Events are read from the index each time: whoever follows
// slowly, or goes away, holds nothing up and costs no memory.
class EventLog {
 public:
  explicit EventLog(const PlacementIndex* index) : index_(index) {}

  // In the order of writing, the last first. A page may be short without being
  // the last.
  absl::StatusOr<v1::ListEventsResponse> List(
      const v1::ListEventsRequest& request) const;

  // Where to go on behind everything there is; for After.
  absl::StatusOr<std::string> Newest() const;
  // INVALID_ARGUMENT for an id that is none.
  static absl::Status CheckId(absl::string_view id);
  // At most `limit` events behind the one with this id, oldest first.
  absl::StatusOr<std::vector<v1::Event>> After(absl::string_view id,
                                               int64_t limit) const;

  // Calls `wake` whenever there may be more, until Unfollow, which waits for a
  // call under way. RESOURCE_EXHAUSTED beyond kMostFollowers.
  absl::StatusOr<int64_t> Follow(std::function<void()> wake);
  void Unfollow(int64_t follower);
  void WakeAll();

  static constexpr size_t kMostFollowers = 100;

 private:
  const PlacementIndex* const index_;
  Mutex mu_;
  int64_t next_follower_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<int64_t, std::function<void()>> followers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_EVENT_LOG_H_
