#include "tests/server/lifecycle/fake_agent.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/listing_digest.h"
#include "common/rpc_status.h"

namespace predella::testing {

class FakeAgent::Session final : public server::AgentSession {
 public:
  Session(int64_t number, FakeAgent* agent)
      : number_(number), agent_(agent), strand_(agent->pool_) {}
  int64_t number() const override { return number_; }
  void Send(control::v1::CoordinatorMessage message) override {
    strand_.Post(
        [agent = agent_, number = number_, message = std::move(message)] {
          agent->Handle(number, message);
        });
  }
  void Close(absl::Status status) override {
    strand_.Post([agent = agent_, number = number_, status] {
      server::SessionManager* manager = nullptr;
      {
        MutexLock lock(&agent->mu_);
        if (agent->session_ == nullptr || agent->session_->number() != number) {
          return;
        }
        agent->closed_ = status;
        agent->session_.reset();
        manager = agent->manager_;
      }
      manager->Closed(number);
    });
  }

 private:
  const int64_t number_;
  FakeAgent* const agent_;
  Strand strand_;
};

FakeAgent::FakeAgent(std::string name, Uuid uid, Executor* pool)
    : name_(std::move(name)), uid_(uid), pool_(pool) {
  MutexLock lock(&mu_);
  behaviour_.incarnation = uid.bytes();
  behaviour_.hello_uid = uid;
}

FakeAgent::~FakeAgent() = default;

void FakeAgent::Behave(const std::function<void(Behaviour*)>& change) {
  MutexLock lock(&mu_);
  change(&behaviour_);
}

void FakeAgent::Connect(server::SessionManager* manager) {
  std::shared_ptr<Session> session =
      std::make_shared<Session>(manager->NextSessionNumber(), this);
  control::v1::AgentMessage message;
  {
    MutexLock lock(&mu_);
    manager_ = manager;
    session_ = session;
    closed_ = absl::OkStatus();
    hold_outgoing_ = false;
    hold_incoming_ = false;
    attach_.reset();
    last_command_ = 0;
    control::v1::Hello* hello = message.mutable_hello();
    hello->set_protocol_version(1);
    if (behaviour_.listing_digest) {
      hello->add_capabilities(std::string(kListingDigestCapability));
    }
    hello->set_mount_name(name_);
    if (!behaviour_.hello_uid.none()) {
      hello->set_mount_uid(behaviour_.hello_uid.bytes());
    }
    hello->set_incarnation(behaviour_.incarnation);
    hello->set_host(behaviour_.host.empty() ? "host-of-" + name_
                                            : behaviour_.host);
    hello->set_pid(4711);
    hello->set_path("/mnt/" + name_);
    hello->set_priority(behaviour_.priority);
    hello->add_addresses("unix:/run/" + name_ + ".sock");
    for (const std::string& capability : behaviour_.capabilities) {
      hello->add_capabilities(capability);
    }
  }
  manager->Opened(session);
  manager->Deliver(session->number(), message);
}

void FakeAgent::Lose() {
  std::shared_ptr<Session> session;
  server::SessionManager* manager = nullptr;
  {
    MutexLock lock(&mu_);
    session = std::move(session_);
    session_ = nullptr;
    manager = manager_;
    outgoing_.clear();
    incoming_.clear();
    for (auto& [id, inflight] : inflight_) {
      inflight.open = false;
    }
  }
  if (session != nullptr) {
    manager->Closed(session->number());
  }
}

void FakeAgent::Hold(bool outgoing, bool incoming) {
  MutexLock lock(&mu_);
  hold_outgoing_ = outgoing;
  hold_incoming_ = incoming;
}

void FakeAgent::Release() {
  std::deque<std::pair<int64_t, control::v1::CoordinatorMessage>> incoming;
  std::deque<control::v1::AgentMessage> outgoing;
  server::SessionManager* manager = nullptr;
  int64_t session = 0;
  while (true) {
    {
      MutexLock lock(&mu_);
      incoming = std::exchange(incoming_, {});
      // Answers to these go behind what it said before.
      if (incoming.empty()) {
        hold_incoming_ = false;
        outgoing = std::exchange(outgoing_, {});
        hold_outgoing_ = hold_outgoing_ && !outgoing.empty();
        manager = manager_;
        session = session_ == nullptr ? 0 : session_->number();
      }
    }
    for (const auto& [number, message] : incoming) {
      HandleNow(number, message);
    }
    if (incoming.empty() && outgoing.empty()) {
      return;
    }
    for (const control::v1::AgentMessage& message : outgoing) {
      manager->Deliver(session, message);
    }
    outgoing.clear();
  }
}

void FakeAgent::Send(const control::v1::AgentMessage& message) {
  std::shared_ptr<Session> session;
  server::SessionManager* manager = nullptr;
  {
    MutexLock lock(&mu_);
    if (hold_outgoing_ && session_ != nullptr) {
      outgoing_.push_back(message);
      return;
    }
    session = session_;
    manager = manager_;
  }
  if (session != nullptr) {
    manager->Deliver(session->number(), message);
  }
}

void FakeAgent::Hear(const storage::v1::Generation& pair) {
  if (pair.epoch() == 0) {
    return;
  }
  storage::v1::FenceEntry& entry = fence_[pair.epoch()];
  entry.set_epoch(pair.epoch());
  entry.set_nonce(pair.nonce());
  entry.set_max_n(std::max(entry.max_n(), pair.n()));
}

control::v1::Space FakeAgent::SpaceLocked() {
  control::v1::Space space;
  space.set_size_bytes(behaviour_.size_bytes);
  space.set_free_bytes(behaviour_.available_bytes);
  space.set_available_bytes(behaviour_.available_bytes);
  space.set_available_inodes(1'000'000);
  space.set_size_inodes(2'000'000);
  space.set_command_number(last_command_);
  return space;
}

control::v1::MountReport FakeAgent::ReportLocked() {
  control::v1::MountReport report;
  report.mutable_label()->set_format_version(1);
  report.mutable_label()->set_mount_uid(uid_.bytes());
  report.mutable_label()->set_mount_name(name_);
  report.mutable_label()->set_cluster_uid(behaviour_.cluster_uid);
  std::map<int64_t, storage::v1::FenceEntry> known = fence_;
  for (const auto& [id, file] : files_) {
    if (file.generation.epoch() == 0) {
      continue;  // its record never said any
    }
    storage::v1::FenceEntry& entry = known[file.generation.epoch()];
    entry.set_epoch(file.generation.epoch());
    entry.set_nonce(file.generation.nonce());
    entry.set_max_n(std::max(entry.max_n(), file.generation.n()));
  }
  for (const auto& [epoch, entry] : known) {
    *report.add_known() = entry;
  }
  for (const storage::v1::FenceEntry& entry : behaviour_.extra_known) {
    *report.add_known() = entry;
  }
  for (const storage::v1::Tombstone& tombstone : tombstones_) {
    *report.add_tombstones() = tombstone;
  }
  for (const storage::v1::Tombstone& tombstone : behaviour_.extra_tombstones) {
    *report.add_tombstones() = tombstone;
  }
  for (const storage::v1::RosterEntry& entry : behaviour_.roster) {
    *report.add_roster() = entry;
  }
  *report.mutable_space() = SpaceLocked();
  report.mutable_health()->set_health(behaviour_.health);
  report.set_image_count(static_cast<int64_t>(files_.size()));
  return report;
}

void FakeAgent::Handle(int64_t session,
                       const control::v1::CoordinatorMessage& message) {
  {
    MutexLock lock(&mu_);
    if (hold_incoming_) {
      incoming_.emplace_back(session, message);
      return;
    }
  }
  HandleNow(session, message);
}

void FakeAgent::HandleNow(int64_t session,
                          const control::v1::CoordinatorMessage& message) {
  control::v1::AgentMessage answer;
  std::optional<control::v1::Command> listing;
  std::function<void(const control::v1::Command&)> on_command;
  {
    MutexLock lock(&mu_);
    on_command = behaviour_.on_command;
  }
  if (on_command && message.has_command()) {
    on_command(message.command());
  }
  {
    MutexLock lock(&mu_);
    if (session_ == nullptr || session_->number() != session) {
      return;
    }
    switch (message.payload_case()) {
      case control::v1::CoordinatorMessage::kWelcome:
        *answer.mutable_mount_report() = ReportLocked();
        break;
      case control::v1::CoordinatorMessage::kAttach: {
        const control::v1::Attach& attach = message.attach();
        attach_ = attach;
        Hear(attach.heard());
        std::map<std::string, Inflight> kept;
        control::v1::AttachDone* done = answer.mutable_attach_done();
        for (const control::v1::OpenUpload& open : attach.open_uploads()) {
          control::v1::UploadStatus* status = done->add_uploads();
          status->set_upload_id(open.upload_id());
          const auto published = published_.find(open.upload_id());
          if (published != published_.end()) {
            status->set_exists(true);
            *status->mutable_published() = published->second;
          }
          const auto it = inflight_.find(open.upload_id());
          Inflight& inflight = kept[open.upload_id()];
          if (it != inflight_.end()) {
            inflight = it->second;
            status->set_exists(true);
            status->set_received_bytes(inflight.received);
            status->set_stream_open(inflight.open);
          }
          inflight.upload = open;
        }
        // Those that were not named are off the list, not off the disk.
        for (const auto& [id, inflight] : kept) {
          inflight_[id] = inflight;
        }
        if (behaviour_.late_statuses) {
          late_ = *done;
          done->Clear();
        }
        if (!behaviour_.answer_attach) {
          return;
        }
        break;
      }
      case control::v1::CoordinatorMessage::kHeartbeatAck:
        Hear(message.heartbeat_ack().heard());
        return;
      case control::v1::CoordinatorMessage::kPublishedAck:
        acks_[message.published_ack().upload_id()] = message.published_ack();
        acked_.SignalAll();
        Hear(message.published_ack().heard());
        return;
      case control::v1::CoordinatorMessage::kUploadFullAck:
        full_acks_[message.upload_full_ack().upload_id()] =
            message.upload_full_ack();
        Hear(message.upload_full_ack().heard());
        return;
      case control::v1::CoordinatorMessage::kCommand:
        commands_.push_back(message.command());
        if (behaviour_.ignore_commands) {
          return;
        }
        if (message.command().has_list_mount()) {
          listing = message.command();
          break;
        }
        *answer.mutable_command_result() = Do(message.command());
        break;
      default:
        return;
    }
  }
  if (message.command().has_collect_garbage()) {
    Beat();  // the numbers come before the answer
  }
  if (listing.has_value()) {
    control::v1::CommandResult* result = answer.mutable_command_result();
    result->set_number(listing->number());
    const absl::Status status = List(listing->list_mount(), result);
    if (!status.ok()) {
      *result->mutable_error() = ToRpcStatus(status);
    }
  }
  Send(answer);
}

control::v1::InventoryEntry FakeAgent::EntryLocked(const std::string& id,
                                                   const File& file) {
  control::v1::InventoryEntry entry;
  entry.set_image_id(id);
  entry.set_named(true);
  entry.set_size_bytes(file.size_bytes);
  if (!behaviour_.records_readable || !file.has_record) {
    entry.set_read_error(file.read_error);
    return entry;
  }
  storage::v1::ReplicaRecord* const record = entry.mutable_record();
  record->set_image_id(id);
  *record->mutable_generation() = file.generation;
  record->set_upload_id(file.upload_id);
  record->set_location_key(file.location_key);
  record->set_size_bytes(file.record_size_bytes != 0 ? file.record_size_bytes
                                                     : file.size_bytes);
  record->set_crc32c(0x1234abcd);
  return entry;
}

absl::Status FakeAgent::List(const control::v1::ListMount& request,
                             control::v1::CommandResult* result) {
  std::vector<control::v1::InventoryPart> parts(1);
  ListingSum sum;
  server::SessionManager* manager = nullptr;
  const bool digest_only = request.digest_only();
  {
    MutexLock lock(&mu_);
    if (!behaviour_.refuse_listing.ok()) {
      return behaviour_.refuse_listing;
    }
    manager = manager_;
    for (const auto& [id, file] : files_) {
      if (parts.back().entries_size() == 2) {
        parts.emplace_back();
      }
      *parts.back().add_entries() = EntryLocked(id, file);
      sum.Add(EntryLocked(id, file));
    }
  }
  for (control::v1::InventoryPart& part : parts) {
    if (digest_only) {
      break;
    }
    part.set_mount_uid(uid_.bytes());
    part.set_listing_id(request.listing_id());
    const absl::Status taken = manager->TakeInventory(part);
    if (!taken.ok()) {
      return taken;
    }
  }
  std::function<void()> meanwhile;
  {
    MutexLock lock(&mu_);
    meanwhile = behaviour_.while_listing;
  }
  if (meanwhile) {
    meanwhile();
  }
  if (digest_only) {
    *result->mutable_listing_digest() = sum.ToProto();
  }
  return absl::OkStatus();
}

control::v1::CommandResult FakeAgent::Do(const control::v1::Command& command) {
  control::v1::CommandResult result;
  result.set_number(command.number());
  last_command_ = command.number();
  switch (command.command_case()) {
    case control::v1::Command::kPrepareUpload: {
      const auto& prepare = command.prepare_upload();
      Hear(prepare.heard());
      if (!behaviour_.refuse_prepare.ok()) {
        *result.mutable_error() = ToRpcStatus(behaviour_.refuse_prepare);
        break;
      }
      if (behaviour_.name_taken) {
        result.mutable_name_taken();
        break;
      }
      inflight_[prepare.upload().upload_id()].upload = prepare.upload();
      break;
    }
    case control::v1::Command::kCloseIfIdle: {
      const std::string& id = command.close_if_idle().upload_id();
      control::v1::CloseIfIdleResult* close = result.mutable_close_if_idle();
      const auto published = published_.find(id);
      if (published != published_.end()) {
        *close->mutable_published() = published->second;
        break;
      }
      const auto it = inflight_.find(id);
      const bool open = it != inflight_.end() && it->second.open &&
                        !command.close_if_idle().force();
      close->set_closed(!open);
      if (!open && it != inflight_.end()) {
        it->second.open = false;
        it->second.upload.Clear();  // off the list, bytes stay
      }
      break;
    }
    case control::v1::Command::kRemove: {
      const auto& remove = command.remove();
      Hear(remove.heard());
      const Generation wanted = Generation::FromProto(remove.generation());
      const auto it = files_.find(remove.image_id());
      if (it != files_.end()) {
        const bool same =
            Generation::FromProto(it->second.generation) == wanted;
        result.mutable_remove()->set_removed(same);
        result.mutable_remove()->set_other_present(!same);
        if (same) {
          published_.erase(it->second.upload_id);
          files_.erase(it);
        }
      } else {
        result.mutable_remove()->set_removed(false);
      }
      inflight_.erase(remove.upload_id());
      break;
    }
    case control::v1::Command::kAdoptFile: {
      const storage::v1::ReplicaRecord& record = command.adopt_file().record();
      const auto it = files_.find(record.image_id());
      if (it == files_.end()) {
        *result.mutable_error() = ToRpcStatus(absl::NotFoundError("no file"));
      } else if (behaviour_.other_bytes) {
        *result.mutable_error() = ToRpcStatus(absl::DataLossError("others"));
      } else {
        it->second.has_record = true;
        it->second.generation = record.generation();
        it->second.upload_id = record.upload_id();
      }
      break;
    }
    case control::v1::Command::kCheckCopy:
      if (behaviour_.rotten_bytes) {
        *result.mutable_error() = ToRpcStatus(absl::DataLossError("rotten"));
      } else if (!behaviour_.refuse_check.ok()) {
        *result.mutable_error() = ToRpcStatus(behaviour_.refuse_check);
      }
      break;
    case control::v1::Command::kQuarantineFile: {
      const auto it = files_.find(command.quarantine_file().image_id());
      if (it == files_.end()) {
        *result.mutable_error() = ToRpcStatus(absl::NotFoundError("no file"));
      } else {
        files_.erase(it);
      }
      break;
    }
    case control::v1::Command::kCollectGarbage:
      if (command.collect_garbage().judge()) {
        break;
      }
      if (!behaviour_.held.has_value() ||
          behaviour_.held->uploads() != command.collect_garbage().uploads()) {
        *result.mutable_error() = ToRpcStatus(
            MakeError(absl::StatusCode::kFailedPrecondition,
                      reason::kGarbageChanged, "another number is held"));
      } else {
        behaviour_.held.reset();
      }
      break;
    case control::v1::Command::kStoreTombstone:
      if (!behaviour_.refuse_tombstone.ok()) {
        *result.mutable_error() = ToRpcStatus(behaviour_.refuse_tombstone);
        break;
      }
      Hear(command.store_tombstone().heard());
      tombstones_.push_back(command.store_tombstone().tombstone());
      break;
    case control::v1::Command::kDropTombstones:
      for (const auto& drop : command.drop_tombstones().tombstones()) {
        tombstones_.erase(
            std::remove_if(tombstones_.begin(), tombstones_.end(),
                           [&](const storage::v1::Tombstone& tombstone) {
                             return tombstone.SerializeAsString() ==
                                    drop.SerializeAsString();
                           }),
            tombstones_.end());
      }
      break;
    default:
      break;
  }
  *result.mutable_space() = SpaceLocked();
  return result;
}

void FakeAgent::Beat(const std::vector<std::string>& live_upload_ids) {
  control::v1::AgentMessage message;
  {
    MutexLock lock(&mu_);
    *message.mutable_heartbeat()->mutable_space() = SpaceLocked();
    message.mutable_heartbeat()->mutable_health()->set_health(
        behaviour_.health);
    message.mutable_heartbeat()->mutable_health()->set_error(
        behaviour_.health_error);
    message.mutable_heartbeat()->mutable_health()->set_detail(
        behaviour_.health_detail);
    if (behaviour_.held.has_value()) {
      *message.mutable_heartbeat()->mutable_held_garbage() = *behaviour_.held;
    }
    message.mutable_heartbeat()->set_stuck_calls(behaviour_.stuck_calls);
    if (behaviour_.scrub.has_value()) {
      *message.mutable_heartbeat()->mutable_scrub() = *behaviour_.scrub;
    }
    for (const std::string& id : live_upload_ids) {
      message.mutable_heartbeat()->add_live_upload_ids(id);
    }
    if (!fence_.empty()) {
      const storage::v1::FenceEntry& last = fence_.rbegin()->second;
      storage::v1::Generation* const fence =
          message.mutable_heartbeat()->mutable_fence();
      fence->set_epoch(last.epoch());
      fence->set_nonce(last.nonce());
      fence->set_n(last.max_n());
    }
  }
  Send(message);
}

void FakeAgent::TellLate() {
  control::v1::AgentMessage message;
  {
    MutexLock lock(&mu_);
    *message.mutable_attach_done() = late_;
  }
  Send(message);
}

void FakeAgent::ReportFindings(const control::v1::CopyFaults& faults) {
  control::v1::AgentMessage message;
  *message.mutable_copy_faults() = faults;
  Send(message);
}

bool FakeAgent::Write(const Uuid& upload_id, int64_t bytes, bool leave_open) {
  MutexLock lock(&mu_);
  const auto it = inflight_.find(upload_id.bytes());
  if (it == inflight_.end() || it->second.upload.upload_id().empty()) {
    return false;
  }
  it->second.received += bytes;
  it->second.open = leave_open;
  return true;
}

bool FakeAgent::Publish(const Uuid& upload_id) {
  control::v1::AgentMessage message;
  {
    MutexLock lock(&mu_);
    const auto it = inflight_.find(upload_id.bytes());
    if (it == inflight_.end() || it->second.upload.upload_id().empty()) {
      return false;
    }
    const control::v1::OpenUpload& upload = it->second.upload;
    const auto taken = files_.find(upload.image_id());
    if (taken != files_.end() && taken->second.upload_id != upload_id.bytes()) {
      return false;
    }
    files_[upload.image_id()] = {upload.generation(), upload.upload_id(),
                                 it->second.received, upload.location_key()};
    control::v1::Published* published = message.mutable_published();
    published->set_upload_id(upload.upload_id());
    published->set_image_id(upload.image_id());
    *published->mutable_generation() = upload.generation();
    published->set_size_bytes(it->second.received);
    published->set_crc32c(0x1234abcd);
    published_[upload.upload_id()] = *published;
    inflight_.erase(it);
  }
  Send(message);
  return true;
}

void FakeAgent::Plant(const Uuid& image_id, const Uuid& upload_id,
                      const storage::v1::Generation& generation) {
  MutexLock lock(&mu_);
  files_[image_id.bytes()] = {generation, upload_id.bytes(), 4096, ""};
}

std::optional<FakeAgent::File> FakeAgent::Take(const Uuid& image_id) {
  MutexLock lock(&mu_);
  const auto it = files_.find(image_id.bytes());
  if (it == files_.end()) {
    return std::nullopt;
  }
  File file = it->second;
  files_.erase(it);
  return file;
}

void FakeAgent::Put(const Uuid& image_id, const File& file) {
  MutexLock lock(&mu_);
  files_[image_id.bytes()] = file;
}

void FakeAgent::Report(const control::v1::Published& published) {
  control::v1::AgentMessage message;
  *message.mutable_published() = published;
  Send(message);
}

void FakeAgent::ReportLost(const control::v1::UploadLost& lost) {
  control::v1::AgentMessage message;
  *message.mutable_upload_lost() = lost;
  Send(message);
}

void FakeAgent::ReportFull(const Uuid& upload_id, int64_t received) {
  control::v1::AgentMessage message;
  {
    MutexLock lock(&mu_);
    control::v1::UploadFull* full = message.mutable_upload_full();
    full->set_upload_id(upload_id.bytes());
    *full->mutable_generation() =
        inflight_[upload_id.bytes()].upload.generation();
    full->set_received_bytes(received);
    full->set_detail("0 bytes free");
  }
  Send(message);
}

std::optional<control::v1::PublishedAck> FakeAgent::ack(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = acks_.find(upload_id.bytes());
  return it == acks_.end() ? std::nullopt : std::make_optional(it->second);
}

control::v1::PublishedAck FakeAgent::AwaitAck(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  auto it = acks_.find(upload_id.bytes());
  while (it == acks_.end()) {
    acked_.Wait(&mu_);
    it = acks_.find(upload_id.bytes());
  }
  return it->second;
}

std::optional<control::v1::UploadFullAck> FakeAgent::full_ack(
    const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = full_acks_.find(upload_id.bytes());
  return it == full_acks_.end() ? std::nullopt : std::make_optional(it->second);
}

std::optional<control::v1::Attach> FakeAgent::attach() {
  MutexLock lock(&mu_);
  return attach_;
}

absl::Status FakeAgent::closed() {
  MutexLock lock(&mu_);
  return closed_;
}

bool FakeAgent::Has(const Uuid& image_id) { return file(image_id).has_value(); }

std::optional<FakeAgent::File> FakeAgent::file(const Uuid& image_id) {
  MutexLock lock(&mu_);
  const auto it = files_.find(image_id.bytes());
  return it == files_.end() ? std::nullopt : std::make_optional(it->second);
}

bool FakeAgent::HasInflight(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  return inflight_.count(upload_id.bytes()) != 0;
}

size_t FakeAgent::tombstone_count() {
  MutexLock lock(&mu_);
  return tombstones_.size();
}

std::vector<control::v1::Command> FakeAgent::commands() {
  MutexLock lock(&mu_);
  return commands_;
}

}  // namespace predella::testing
