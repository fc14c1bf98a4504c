// RocksDbKvStore: copies of the index while it is open.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/status.h>
#include <rocksdb/utilities/checkpoint.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/status_macros.h"
#include "server/index/index_keys.h"
#include "server/index/rocksdb_kv_store.h"

namespace predella::server {
namespace {

absl::Status CopyError(absl::StatusCode code, const std::string& what,
                       const std::string& path, const std::string& why) {
  return MakeError(code, reason::kIndexUnavailable,
                   absl::StrCat(what, " ", path, ": ", why), {{"path", path}});
}

// What was copied, and not linked, was only written.
absl::Status SyncAll(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names = {path};
  for (std::filesystem::directory_iterator it(path, error), end;
       !error && it != end; it.increment(error)) {
    names.push_back(it->path().string());
  }
  if (error) {
    return CopyError(absl::StatusCode::kUnavailable, "cannot list", path,
                     error.message());
  }
  for (const std::string& name : names) {
    const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = fd >= 0 && fsync(fd) == 0;
    const std::error_code code(errno, std::generic_category());
    if (fd >= 0) {
      close(fd);
    }
    if (!synced) {
      return CopyError(absl::StatusCode::kUnavailable, "cannot sync", name,
                       code.message());
    }
  }
  return absl::OkStatus();
}

// Inspect leaves no file behind, not even RocksDB's own log.
class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

}  // namespace

absl::Status RocksDbKvStore::Checkpoint(const std::string& path) {
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (status.ok()) {
    status = checkpoint->CreateCheckpoint(path);
  }
  if (!status.ok()) {
    return CopyError(absl::StatusCode::kUnavailable, "cannot copy the index to",
                     path, status.ToString());
  }
  return options_.env == nullptr ? SyncAll(path) : absl::OkStatus();
}

absl::StatusOr<KvSummary> RocksDbKvStore::Inspect(const std::string& path) {
  rocksdb::Options options;
  options.create_if_missing = false;
  options.paranoid_checks = true;
  options.info_log = std::make_shared<NoLog>();
  rocksdb::DB* raw = nullptr;
  rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, path, &raw);
  const std::unique_ptr<rocksdb::DB> db(raw);
  if (!status.ok()) {
    return CopyError(absl::StatusCode::kDataLoss, "no whole index at", path,
                     status.ToString());
  }
  KvSummary out;
  rocksdb::ReadOptions read;
  read.verify_checksums = true;
  read.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(read));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const absl::string_view key(it->key().data(), it->key().size());
    ++out.rows;
    out.images += absl::StartsWith(key, keys::kImages) ? 1 : 0;
    if (key == keys::kCluster) {
      out.cluster = it->value().ToString();
    } else if (key == keys::kEpochs) {
      out.epochs = it->value().ToString();
    }
  }
  if (!it->status().ok()) {
    return CopyError(absl::StatusCode::kDataLoss, "no whole index at", path,
                     it->status().ToString());
  }
  if (out.cluster.empty() || out.epochs.empty()) {
    return CopyError(absl::StatusCode::kDataLoss, "no whole index at", path,
                     "it does not name its cluster and its epochs");
  }
  return out;
}

}  // namespace predella::server
