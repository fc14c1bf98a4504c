// The listing of the mount for the coordinator: a part of AgentCore.
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/control/agent_core.h"
#include "common/errors.h"
#include "common/listing_digest.h"
#include "common/logging.h"
#include "common/rpc_status.h"

namespace predella::agent {
namespace {

constexpr int kEntriesPerPart = 1000;
// Between so many names whatever else waits for a disk thread goes first.
constexpr int kNamesAStep = 100;

// The record as it stands on the disk, but for what only its file frame has.
storage::v1::ReplicaRecord RecordOf(const PublishedImage& image) {
  storage::v1::ReplicaRecord record;
  record.set_image_id(image.image_id.bytes());
  *record.mutable_generation() = image.generation.ToProto();
  record.set_upload_id(image.upload_id.bytes());
  record.set_location_key(image.location_key);
  record.set_size_bytes(image.size_bytes);
  record.set_crc32c(image.crc32c);
  record.mutable_hashes()->Assign(image.hashes.begin(), image.hashes.end());
  record.set_create_time_us(image.create_time_us);
  record.set_publish_time_us(image.publish_time_us);
  *record.mutable_decision() = image.decision;
  return record;
}

control::v1::InventoryEntry EntryOf(const ListEntry& entry) {
  control::v1::InventoryEntry out;
  out.set_image_id(entry.image_id.bytes());
  out.set_named(entry.kind != ListEntry::Kind::kRecordOnly);
  out.set_size_bytes(entry.size_bytes);
  out.set_read_error(entry.read_error);
  if (entry.image.has_value()) {
    *out.mutable_record() = RecordOf(*entry.image);
  }
  return out;
}

}  // namespace

struct AgentCore::Listing {
  uint64_t session = 0;
  uint64_t turn = 0;  // as listing_
  int64_t number = 0;
  std::string id;
  bool digest_only = false;
  std::shared_ptr<ImageStore> store;
  std::unique_ptr<MountListing> names;
  std::shared_ptr<InventoryStream> stream;  // of a whole one
  bool wanted = true;                       // by the stream
  control::v1::InventoryPart part;
  ListingSum sum;
  int64_t entries = 0;
  // Files and directories that an error of the disk kept from being read; those
  // that were not known as that before, and the error of the first of them.
  absl::flat_hash_set<std::string> unreadable;
  int64_t news = 0;
  std::string first;
  absl::Status error;

  control::v1::InventoryPart NewPart() const {
    control::v1::InventoryPart out;
    out.set_mount_uid(store->label().mount_uid());
    out.set_listing_id(id);
    return out;
  }

  void Take(const ListEntry& entry) {
    if (!wanted || entry.kind == ListEntry::Kind::kInflight ||
        entry.kind == ListEntry::Kind::kDirectory ||
        (entry.kind == ListEntry::Kind::kRecordOnly &&
         !entry.image.has_value())) {
      return;
    }
    ++entries;
    control::v1::InventoryEntry out = EntryOf(entry);
    if (digest_only) {
      sum.Add(out);
      return;
    }
    *part.add_entries() = std::move(out);
    if (part.entries_size() >= kEntriesPerPart) {
      wanted = stream->Send(std::exchange(part, NewPart()));
    }
  }
};

// An error of the disk is the mount's at once, as one of any other call, and
// what was read beside it is not taken for the whole. One file or directory of
// records that can not be read must not keep its mount from being listed for
// ever, nor SUSPECT: what fails again, when a probe that began since has read
// well, is the file's.
void AgentCore::NoteUnreadable(Listing* listing, const ListEntry& entry) {
  const bool directory = entry.kind == ListEntry::Kind::kDirectory;
  const std::string what =
      directory ? entry.directory : entry.image_id.ToString();
  const bool known = !directory && scrubber_.KnowsFault(entry.image_id);
  {
    MutexLock lock(&mu_);
    listing->unreadable.insert(what);
    if (known || (unreadable_.contains(what) &&
                  machine_.ProbeReadSince(unreadable_at_))) {
      return;
    }
  }
  if (++listing->news == 1) {
    listing->first = what;
    listing->error = entry.disk_error;
  }
  CallDone(listing->store.get(), entry.disk_error);
}

absl::Status AgentCore::ErrorOf(const Listing& listing) {
  MutexLock lock(&mu_);
  if (store_ == listing.store) {
    unreadable_ = listing.unreadable;
    unreadable_at_ = seams_.clock->Boot();
  }
  return listing.news == 0
             ? absl::OkStatus()
             : MakeError(
                   absl::StatusCode::kUnavailable, reason::kMountFailed,
                   absl::StrCat(listing.news,
                                " files could not be read, the "
                                "first is ",
                                listing.first, ": ", listing.error.message()),
                   MetadataOf(listing.error));
}

void AgentCore::PostListCommand(uint64_t session,
                                const control::v1::Command& command) {
  auto listing = std::make_shared<Listing>();
  listing->session = session;
  listing->number = command.number();
  listing->id = command.list_mount().listing_id();
  listing->digest_only = command.list_mount().digest_only();
  {
    MutexLock lock(&mu_);
    // That of a session that ended makes room, and ends at its next step.
    if (store_ != nullptr && (listing_ == 0 || listing_session_ != session)) {
      listing->store = store_;
      listing->turn = listing_ = ++last_listing_;
      listing_session_ = session;
    }
  }
  if (listing->store == nullptr) {
    AnswerStatus(session, listing->number,
                 MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                           "the mount is being listed, or is not open"));
    return;
  }
  seams_.disk->Post([this, listing] { RunListing(listing); });
}

absl::Status AgentCore::BeginListing(Listing* listing) {
  listing->names = listing->store->BeginListing();
  if (listing->digest_only) {
    return absl::OkStatus();
  }
  listing->part = listing->NewPart();
  listing->stream = session_.OpenInventory(listing->session);
  return listing->stream == nullptr
             ? absl::CancelledError("the session has ended")
             : absl::OkStatus();
}

void AgentCore::RunListing(const std::shared_ptr<Listing>& listing) {
  absl::Status begun;
  {
    MutexLock lock(&mu_);
    // Nobody wants it, or it is of a directory that is not open any more.
    if (store_ != listing->store || listing_ != listing->turn ||
        !session_.Is(listing->session)) {
      begun = MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                        "the mount was let go while it was listed");
    }
  }
  if (begun.ok() && listing->names == nullptr) {
    begun = BeginListing(listing.get());
  }
  if (!begun.ok()) {
    EndListing(listing.get(), begun);
    return;
  }
  seams_.idle_io(true);
  const int64_t failed = listing->news;
  const absl::StatusOr<bool> more =
      listing->names->Next(kNamesAStep, [&](const ListEntry& entry) {
        if (!entry.disk_error.ok()) {
          NoteUnreadable(listing.get(), entry);
        }
        listing->Take(entry);
      });
  seams_.idle_io(false);
  if (more.ok() && *more && listing->wanted) {
    // Behind what waits by now: listings hold up nothing.
    seams_.disk->Post([this, listing] { RunListing(listing); });
    return;
  }
  if (!more.ok() || listing->news == failed) {
    CallDone(listing->store.get(), more.status());
  }
  EndListing(listing.get(),
             more.ok() && !*more ? ErrorOf(*listing) : more.status());
}

void AgentCore::EndListing(Listing* listing, absl::Status status) {
  if (listing->stream != nullptr) {
    if (status.ok() && listing->wanted) {
      // Also an empty one: it is the whole.
      listing->stream->Send(std::move(listing->part));
    }
    const absl::Status taken = listing->stream->Finish();
    status = status.ok() ? taken : status;
    if (status.ok() && !listing->wanted) {
      status = absl::CancelledError("the call ended before the listing did");
    }
  }
  if (status.ok()) {
    LogInfo(listing->digest_only ? "mount_looked_through" : "mount_listed",
            {{"mount", identity_.mount_name}, {"entries", listing->entries}});
  }
  {
    MutexLock lock(&mu_);
    // An earlier one that comes back late does not end the one that runs now.
    if (listing_ == listing->turn) {
      listing_ = 0;
    }
  }
  control::v1::CommandResult result;
  result.set_number(listing->number);
  if (!status.ok()) {
    *result.mutable_error() = ToRpcStatus(status);
  } else if (listing->digest_only) {
    *result.mutable_listing_digest() = listing->sum.ToProto();
  }
  Answer(listing->session, std::move(result));
}

}  // namespace predella::agent
