// The listing of the mount for the coordinator: a part of AgentCore.
#include <memory>
#include <string>
#include <utility>

#include "agent/control/agent_core.h"
#include "common/errors.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

constexpr int kEntriesPerPart = 1000;

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

}  // namespace

void AgentCore::PostListCommand(uint64_t session,
                                const control::v1::Command& command) {
  const int64_t number = command.number();
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    // A listing of a session that ended may still be running.
    store = listing_ ? nullptr : store_;
    listing_ = listing_ || store != nullptr;
  }
  if (store == nullptr) {
    AnswerStatus(session, number,
                 MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                           "the mount is being listed, or is not open"));
    return;
  }
  seams_.disk->Post([this, session, number, store = std::move(store),
                     listing_id = command.list_mount().listing_id()] {
    const absl::Status status =
        ReportInventory(session, store.get(), listing_id);
    {
      MutexLock lock(&mu_);
      listing_ = false;
    }
    AnswerStatus(session, number, status);
  });
}

absl::Status AgentCore::ReportInventory(uint64_t session, ImageStore* store,
                                        const std::string& listing_id) {
  const std::shared_ptr<InventoryStream> stream =
      session_.OpenInventory(session);
  if (stream == nullptr) {
    return absl::CancelledError("the session has ended");
  }
  const std::string mount_uid = store->label().mount_uid();
  const auto new_part = [&] {
    control::v1::InventoryPart part;
    part.set_mount_uid(mount_uid);
    part.set_listing_id(listing_id);
    return part;
  };
  control::v1::InventoryPart part = new_part();
  bool wanted = true;
  int64_t entries = 0;
  const absl::Status listed = store->List([&](const ListEntry& entry) {
    if (!wanted || entry.kind == ListEntry::Kind::kInflight) {
      return;
    }
    control::v1::InventoryEntry* const out = part.add_entries();
    out->set_image_id(entry.image_id.bytes());
    out->set_named(entry.kind != ListEntry::Kind::kRecordOnly);
    out->set_size_bytes(entry.size_bytes);
    if (entry.image.has_value()) {
      *out->mutable_record() = RecordOf(*entry.image);
    }
    ++entries;
    if (part.entries_size() >= kEntriesPerPart) {
      wanted = stream->Send(std::exchange(part, new_part()));
    }
  });
  CallDone(store, listed);
  if (listed.ok() && wanted) {
    // Also an empty one: it is the whole.
    stream->Send(std::move(part));
  }
  const absl::Status taken = stream->Finish();
  if (listed.ok() && taken.ok()) {
    LogInfo("mount_listed",
            {{"mount", identity_.mount_name}, {"entries", entries}});
  }
  return listed.ok() ? taken : listed;
}

}  // namespace predella::agent
