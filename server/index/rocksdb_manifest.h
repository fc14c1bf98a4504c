// What of the index's manifest is known to be on the disk.
//
// The manifest names the tables of the index. RocksDB takes one that was cut
// for the torn end of a crash, opens with fewer tables, and removes the others
// as nobody's: rows in the middle of history are gone without a word, and the
// last pair (epoch, n) is still there, so no mount notices. So a file beside it
// says how much of it there was and with which checksum.
#ifndef PREDELLA_SERVER_INDEX_ROCKSDB_MANIFEST_H_
#define PREDELLA_SERVER_INDEX_ROCKSDB_MANIFEST_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "rocksdb/listener.h"

#include "common/mutex.h"

namespace rocksdb {
class DB;
class Env;
}  // namespace rocksdb

namespace predella::server {

// Thread-safe. Once Note was called, the file follows every flush and
// compaction.
class ManifestGuard final : public rocksdb::EventListener {
 public:
  ManifestGuard(rocksdb::Env* env, std::string index_path)
      : env_(env), path_(std::move(index_path)) {}

  // Before the index is opened. DATA_LOSS when less is there than there was,
  // or other bytes. An index without the file, one put back from a copy, say,
  // is not checked.
  absl::Status Check();
  // After it was opened. A file that can not be written is logged: the older
  // one vouches for less.
  void Note(rocksdb::DB* db) ABSL_LOCKS_EXCLUDED(mu_);

  void OnFlushCompleted(rocksdb::DB* db,
                        const rocksdb::FlushJobInfo& info) override;
  void OnCompactionCompleted(rocksdb::DB* db,
                             const rocksdb::CompactionJobInfo& info) override;

 private:
  absl::Status Write(rocksdb::DB* db) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  rocksdb::Env* const env_;
  const std::string path_;
  Mutex mu_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_ROCKSDB_MANIFEST_H_
