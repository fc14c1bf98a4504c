// PlacementIndex: a start, from what an earlier one left behind.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/epoch_table.h"
#include "server/index/index_keys.h"
#include "server/index/placement_index.h"

namespace predella::server {

PlacementIndex::PlacementIndex(KvStore* kv, EpochFile* epoch_file, Clock* clock,
                               IdGenerator* ids)
    : kv_(kv), epoch_file_(epoch_file), clock_(clock), ids_(ids) {}

absl::StatusOr<std::unique_ptr<PlacementIndex>> PlacementIndex::Open(
    KvStore* kv, EpochFile* epoch_file, Clock* clock, IdGenerator* ids,
    const OpenOptions& options) {
  std::unique_ptr<PlacementIndex> index(
      new PlacementIndex(kv, epoch_file, clock, ids));
  RETURN_IF_ERROR(index->Load(options));
  return index;
}

absl::Status PlacementIndex::Load(const OpenOptions& options) {
  max_events_ = options.max_events;
  above_epoch_ = options.above_epoch;
  max_event_age_ = options.max_event_age;
  ASSIGN_OR_RETURN(const std::optional<storage::v1::EpochTable> file,
                   epoch_file_->Read());
  ASSIGN_OR_RETURN(const std::optional<std::string> cluster,
                   kv_->Get(keys::kCluster));
  storage::v1::EpochTable table;
  Generation last;
  if (cluster.has_value()) {
    RETURN_IF_ERROR(ParseRow(keys::kCluster, *cluster, &cluster_));
    RETURN_IF_ERROR(LoadMeta(&table, &last));
  } else {
    RETURN_IF_ERROR(CheckEmpty(file.has_value(), options.create));
    created_ = true;
  }
  if (const std::string error = kv_->write_error(); !error.empty()) {
    if (created_) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
                       absl::StrCat("cannot make a new index: ", error));
    }
    read_only_ = error;
    current_ = {last.epoch, 0, last.nonce};
    MutexLock lock(&mu_);
    epochs_ = table;
    synced_n_ = last.n;
    issued_n_ = last.n;
    next_n_ = last.n + 1;
  } else {
    RETURN_IF_ERROR(BeginEpoch(table, last, file));
  }
  RETURN_IF_ERROR(kv_->Scan(keys::kConflicts, "", 1,
                            [this](absl::string_view, absl::string_view) {
                              had_conflicts_ = true;
                              return false;
                            }));
  RETURN_IF_ERROR(LoadFaults());
  RETURN_IF_ERROR(CountTotals());
  RETURN_IF_ERROR(CountEvents());
  return read_only() ? absl::OkStatus() : TrimEvents();
}

absl::Status PlacementIndex::CheckEmpty(bool epoch_file_exists,
                                        bool create) const {
  bool empty = true;
  RETURN_IF_ERROR(
      kv_->Scan("", "", 1, [&](absl::string_view, absl::string_view) {
        empty = false;
        return false;
      }));
  if (!empty) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kIndexUnavailable,
                     "the index has rows but none that names its cluster: it "
                     "is not an index of Predella, or a part of one");
  }
  if (epoch_file_exists) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kIndexUnavailable,
        "the index is empty, but the epoch file beside it shows that a cluster "
        "ran here: the index was lost. The images on the mounts are not "
        "touched: make it anew with predella index rebuild, or put back a "
        "backup with predella index restore");
  }
  if (!create) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kIndexUnavailable,
                     "the index is empty and no new cluster may be made here");
  }
  return absl::OkStatus();
}

absl::Status PlacementIndex::LoadMeta(storage::v1::EpochTable* table,
                                      Generation* last) {
  if (cluster_.format_version() > kIndexFormatVersion) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kIndexUnavailable,
        absl::StrCat("the index is of format ", cluster_.format_version(),
                     ", this coordinator reads up to ", kIndexFormatVersion,
                     ": start the newer one"));
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> epochs,
                   kv_->Get(keys::kEpochs));
  if (!epochs.has_value()) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kIndexUnavailable,
                     "the index names its cluster but has no table of epochs: "
                     "it is damaged");
  }
  RETURN_IF_ERROR(ParseRow(keys::kEpochs, *epochs, table));
  last->epoch = table->current_epoch();
  last->nonce = table->current_nonce();
  ASSIGN_OR_RETURN(last->n, LastN(last->epoch, last->nonce));
  ASSIGN_OR_RETURN(const std::optional<std::string> rebuilt,
                   kv_->Get(keys::kRebuilt));
  rebuilt_ = rebuilt.has_value();
  ASSIGN_OR_RETURN(const std::optional<std::string> clean,
                   kv_->Get(keys::kClean));
  if (clean.has_value()) {
    storage::v1::CleanMarker marker;
    RETURN_IF_ERROR(ParseRow(keys::kClean, *clean, &marker));
    // One that is not of the last epoch says nothing about it.
    if (marker.last().epoch() == last->epoch &&
        marker.last().nonce() == last->nonce) {
      clean_start_ = std::move(marker);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PlacementIndex::LastN(int64_t epoch,
                                              uint32_t nonce) const {
  int64_t n = 0;
  absl::Status parsed;
  RETURN_IF_ERROR(
      kv_->Scan(keys::kSequence, "", 0,
                [&](absl::string_view key, absl::string_view value) {
                  storage::v1::Generation slot;
                  parsed = ParseRow(key, value, &slot);
                  if (slot.epoch() == epoch && slot.nonce() == nonce) {
                    n = std::max(n, slot.n());
                  }
                  return parsed.ok();
                }));
  RETURN_IF_ERROR(parsed);
  return n;
}

absl::Status PlacementIndex::BeginEpoch(
    const storage::v1::EpochTable& from_index, const Generation& last,
    const std::optional<storage::v1::EpochTable>& file) {
  storage::v1::EpochTable table;
  // The past is what the index itself knows. What the file knows of it must
  // not be mixed in: it would hide that the index was put back from a copy.
  *table.mutable_past() = from_index.past();
  int64_t highest = last.epoch;
  if (!last.none()) {
    storage::v1::FenceEntry entry;
    entry.set_epoch(last.epoch);
    entry.set_nonce(last.nonce);
    entry.set_max_n(last.n);
    RaiseEpoch(entry, &table);
  }
  for (const storage::v1::FenceEntry& entry : table.past()) {
    highest = std::max(highest, entry.epoch());
  }
  if (file.has_value()) {
    highest = std::max(highest, file->current_epoch());
    if (file->current_epoch() > last.epoch) {
      // Put back from a copy that was once closed cleanly.
      clean_start_.reset();
    }
    for (const storage::v1::FenceEntry& entry : file->past()) {
      highest = std::max(highest, entry.epoch());
    }
  }
  table.set_current_epoch(std::max(highest, above_epoch_) + 1);
  table.set_current_nonce(static_cast<uint32_t>(ids_->NextUint64()));
  current_ = {table.current_epoch(), 0, table.current_nonce()};

  KvTransaction kv;
  kv.conditions.push_back({std::string(keys::kCluster), std::nullopt});
  if (created_) {
    cluster_.set_cluster_uid(ids_->NextUuid().bytes());
    cluster_.set_cluster_key(ids_->RandomBytes(32));
    cluster_.set_create_time_us(clock_->NowMicros());
    cluster_.set_format_version(kIndexFormatVersion);
    kv.puts.emplace_back(keys::kCluster, SerializeRow(cluster_));
  } else {
    kv.conditions.back().value = SerializeRow(cluster_);
  }
  kv.puts.emplace_back(keys::kEpochs, SerializeRow(table));
  kv.deletes.emplace_back(keys::kClean);
  {
    MutexLock lock(&mu_);
    epochs_ = table;
    next_n_ = 2;
  }
  // The index before the file: a start that breaks between the two has made
  // nothing that a next one would refuse, and nobody has heard its epoch.
  RETURN_IF_ERROR(CommitPair(std::move(kv), 1, {}, {}));
  RETURN_IF_ERROR(epoch_file_->Write(table));
  LogInfo("index_opened", {{"epoch", current_.epoch},
                           {"created", created_ ? "true" : "false"},
                           {"clean", clean_start_ ? "true" : "false"}});
  return absl::OkStatus();
}

absl::Status PlacementIndex::CountTotals() {
  absl::flat_hash_map<Uuid, ImageTotals> by_mount;
  absl::flat_hash_map<Uuid, Generation> newest;
  absl::flat_hash_map<Uuid, int64_t> images;
  absl::Status parsed;
  RETURN_IF_ERROR(kv_->Scan(
      keys::kByMount, "", 0,
      [&](absl::string_view key, absl::string_view value) {
        storage::v1::MountImageRow row;
        parsed = ParseRow(key, value, &row);
        if (!parsed.ok()) {
          return false;
        }
        const Uuid uid = keys::MountOfMountImage(key);
        ImageTotals& mount = by_mount[uid];
        ++mount.count;
        mount.bytes += row.size_bytes();
        const Generation generation = Generation::FromProto(row.generation());
        if (generation.After(newest[uid])) {
          newest[uid] = generation;
        }
        images[keys::ImageOfMountImage(key)] = row.size_bytes();
        return true;
      }));
  RETURN_IF_ERROR(parsed);
  MutexLock lock(&mu_);
  mount_totals_ = std::move(by_mount);
  newest_ = std::move(newest);
  totals_.count = static_cast<int64_t>(images.size());
  for (const auto& [id, bytes] : images) {
    totals_.bytes += bytes;
  }
  return absl::OkStatus();
}

absl::Status PlacementIndex::CountEvents() {
  int64_t count = 0;
  RETURN_IF_ERROR(kv_->Scan(keys::kEvents, "", 0,
                            [&](absl::string_view, absl::string_view) {
                              ++count;
                              return true;
                            }));
  MutexLock lock(&mu_);
  events_ = count;
  return absl::OkStatus();
}

}  // namespace predella::server
