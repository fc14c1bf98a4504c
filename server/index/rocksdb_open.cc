// RocksDbKvStore: opening, and what can be in the way.
#include <sys/statvfs.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/options.h"
#include "rocksdb/status.h"
#include "rocksdb/table.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/index/kv_store.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/index/rocksdb_manifest.h"

namespace predella::server {
namespace {

rocksdb::Options DbOptions(const RocksDbOptions& options) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  // Index and filter blocks stay outside of the cache, about 3 bytes a row: a
  // filter of a million rows is larger than a shard of the cache and would be
  // read again for every lookup (618 us instead of 14 us, measured).
  table.cache_index_and_filter_blocks = false;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;

  rocksdb::Options db;
  if (options.env != nullptr) {
    db.env = options.env;
  }
  db.create_if_missing = true;
  // A torn tail is what a crash leaves; damage before it is refused, where the
  // default would drop acknowledged rows without a word.
  db.wal_recovery_mode =
      rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.paranoid_checks = true;
  db.verify_sst_unique_id_in_manifest = true;
  db.track_and_verify_wals_in_manifest = true;
  db.max_open_files = -1;
  db.max_background_jobs = 2;
  db.write_buffer_size = size_t{16} << 20;
  db.compression = rocksdb::kNoCompression;
  db.bottommost_compression = rocksdb::kLZ4Compression;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.keep_log_file_num = 4;
  db.max_log_file_size = size_t{4} << 20;
  db.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return db;
}

bool IsLockConflict(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return text.find("lock hold by current process") != std::string::npos ||
         (text.find("While lock file") != std::string::npos &&
          text.find("Resource temporarily unavailable") != std::string::npos);
}

absl::Status LockedError(const std::string& path) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kIndexUnavailable,
                   absl::StrCat("another coordinator holds the index at ", path,
                                ": stop it first, or give this one a state "
                                "directory of its own"),
                   {{"path", path}});
}

absl::Status OpenError(const std::string& path, const rocksdb::Status& status) {
  if (IsLockConflict(status)) {
    return LockedError(path);
  }
  if (status.IsCorruption()) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kIndexUnavailable,
        absl::StrCat("the index at ", path, " is damaged (", status.ToString(),
                     "); it is never repaired automatically, and nothing "
                     "on the mounts is touched: keep this directory, and put "
                     "the newest copy of it in its place"),
        {{"path", path}});
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kIndexUnavailable,
      absl::StrCat("cannot open the index at ", path, ": ", status.ToString()),
      {{"path", path}});
}

// Sentences for what RocksDB would report as a bare errno.
absl::Status CheckParent(const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kIndexUnavailable,
                     absl::StrCat("cannot open the index at ", path, ": ", why),
                     {{"path", path}});
  };
  std::error_code error;
  std::filesystem::path parent =
      std::filesystem::path(std::string(absl::StripSuffix(path, "/")))
          .parent_path();
  if (parent.empty()) {
    parent = ".";
  }
  const auto status = std::filesystem::status(parent, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return refuse(absl::StrCat("the directory above, ", parent.string(),
                               ", does not exist"));
  }
  if (error) {
    return refuse(absl::StrCat(parent.string(), ": ", error.message()));
  }
  if (!std::filesystem::is_directory(status)) {
    return refuse(absl::StrCat(parent.string(), " is not a directory"));
  }
  const auto own = std::filesystem::status(path, error);
  if (own.type() != std::filesystem::file_type::not_found &&
      !std::filesystem::is_directory(own)) {
    return refuse("it is not a directory");
  }
  return absl::OkStatus();
}

std::optional<int64_t> StatFree(const std::string& path) {
  struct statvfs fs {};
  if (statvfs(path.c_str(), &fs) != 0) {
    return std::nullopt;
  }
  return static_cast<int64_t>(fs.f_bavail) * static_cast<int64_t>(fs.f_frsize);
}

}  // namespace

RocksDbKvStore::RocksDbKvStore(std::string path, RocksDbOptions options)
    : path_(std::move(path)), options_(std::move(options)) {
  if (!options_.free_bytes) {
    if (options_.env == nullptr) {
      options_.free_bytes = [this] { return StatFree(path_); };
    } else {
      options_.free_bytes = [] { return std::nullopt; };
    }
  }
}

RocksDbKvStore::~RocksDbKvStore() {
  db_.reset();
  if (read_only_lock_ != nullptr) {
    rocksdb::Env* const env =
        options_.env != nullptr ? options_.env : rocksdb::Env::Default();
    // The kernel frees it with the process anyhow.
    env->UnlockFile(read_only_lock_).PermitUncheckedError();
  }
}

absl::StatusOr<std::unique_ptr<KvStore>> RocksDbKvStore::Open(
    const std::string& path, const RocksDbOptions& options) {
  if (options.env == nullptr) {
    RETURN_IF_ERROR(CheckParent(path));
  }
  // Not make_unique: the constructor is private.
  std::unique_ptr<RocksDbKvStore> store(new RocksDbKvStore(path, options));
  rocksdb::Env* const env =
      options.env != nullptr ? options.env : rocksdb::Env::Default();
  const bool exists = env->FileExists(path + "/CURRENT").ok();
  const std::optional<int64_t> free = store->options_.free_bytes();
  store->manifest_ = std::make_shared<ManifestGuard>(env, path);
  RETURN_IF_ERROR(store->manifest_->Check());
  if (exists && free.has_value() && *free < options.min_free_bytes) {
    RETURN_IF_ERROR(store->OpenReadOnly(absl::StrCat(
        "only ", FormatSize(*free), " were free there when it was opened, ",
        FormatSize(options.min_free_bytes), " are needed to write safely")));
  } else {
    RETURN_IF_ERROR(store->OpenWritable());
  }
  return std::unique_ptr<KvStore>(std::move(store));
}

absl::Status RocksDbKvStore::OpenWritable() {
  rocksdb::Options db_options = DbOptions(options_);
  db_options.listeners.push_back(manifest_);
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(db_options, path_, &db);
  db_.reset(db);
  if (status.ok()) {
    manifest_->Note(db);
    return absl::OkStatus();
  }
  db_.reset();
  if (status.IsNoSpace()) {
    return OpenReadOnly("the disk is full");
  }
  return OpenError(path_, status);
}

absl::Status RocksDbKvStore::OpenReadOnly(absl::string_view why) {
  rocksdb::Options db_options = DbOptions(options_);
  db_options.create_if_missing = false;
  if (const rocksdb::Status status =
          db_options.env->LockFile(path_ + "/LOCK", &read_only_lock_);
      !status.ok()) {
    return OpenError(path_, status);
  }
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::OpenForReadOnly(db_options, path_, &db);
  db_.reset(db);
  if (!status.ok()) {
    db_.reset();
    return OpenError(path_, status);
  }
  const std::string message = absl::StrCat(
      "the index at ", path_, " is open for reading only: ", why,
      "; images can be read, nothing is taken or deleted until there is room "
      "and the coordinator has started again");
  LogError("index_read_only", {{"path", path_}, {"why", why}});
  MutexLock lock(&mu_);
  failed_ = MakeError(absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
                      message);
  return absl::OkStatus();
}

}  // namespace predella::server
