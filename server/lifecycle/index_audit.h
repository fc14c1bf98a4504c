// `predella index check`: the index against itself, and against what the
// mounts hold. Repairs nothing.
#ifndef PREDELLA_SERVER_LIFECYCLE_INDEX_AUDIT_H_
#define PREDELLA_SERVER_LIFECYCLE_INDEX_AUDIT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "predella/v1/cluster_service.pb.h"
#include "server/index/index_check.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/trust_keeper.h"

namespace predella::server {

// Keeps nothing between calls: where a check is stands in its page token. So
// many may run, one that is given up costs nothing, and no thread waits for
// the listings. Thread-safe.
class IndexAudit {
 public:
  // All must outlive it.
  IndexAudit(const LifecycleDeps& deps, TrustKeeper* trust,
             Inventory* inventory)
      : deps_(deps), trust_(trust), inventory_(inventory) {}

  // Blocks on the index. The first call asks for the listings; they run while
  // the tables are looked at, and what they found comes last.
  absl::StatusOr<v1::CheckIndexResponse> Check(
      const v1::CheckIndexRequest& request);

 private:
  // What a page token says.
  struct Position {
    enum class Phase { kTables, kListings, kFaults, kMounts };
    Phase phase = Phase::kTables;
    IndexSection section = IndexSection::kMounts;
    // Listings above this number were begun for the check.
    int64_t after = 0;
    std::string last;
  };
  absl::StatusOr<Position> Decode(const v1::CheckIndexRequest& request);
  std::string Encode(const v1::CheckIndexRequest& request,
                     const Position& position) const;

  absl::Status CheckTables(int64_t limit, Position* position,
                           v1::CheckIndexResponse* response, bool* done);
  // Names those that are awaited.
  void AwaitListings(const Position& position,
                     v1::CheckIndexResponse* response) const;
  // What the listings of one mount showed; the next mount's with the next call.
  absl::Status CheckMount(int64_t limit, Position* position,
                          v1::CheckIndexResponse* response, bool* done) const;
  // Why the mount can not be compared; empty: it can, or was.
  std::string WhyNot(const MountInfo& info, int64_t after) const;
  // Of `row`, the image that the orphan may be a copy of.
  bool CanBeReadElsewhere(const Orphan& orphan,
                          const storage::v1::ImageRow& row) const;
  Finding OrphanFinding(const Orphan& orphan, const MountInfo& info) const;
  v1::IndexFinding ToApi(const Finding& finding) const;
  // Says where a file lies that may take the place of a bad copy.
  void Add(const Finding& finding, v1::CheckIndexResponse* response) const;

  const LifecycleDeps deps_;
  TrustKeeper* const trust_;
  Inventory* const inventory_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_INDEX_AUDIT_H_
