// EpochFile in memory: for tests and tools.
#ifndef PREDELLA_SERVER_INDEX_MEM_EPOCH_FILE_H_
#define PREDELLA_SERVER_INDEX_MEM_EPOCH_FILE_H_

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "predella/storage/v1/storage.pb.h"
#include "server/index/placement_index.h"

namespace predella::server {

// For one thread.
class MemEpochFile final : public EpochFile {
 public:
  absl::StatusOr<std::optional<storage::v1::EpochTable>> Read() override {
    return table_;
  }
  absl::Status Write(const storage::v1::EpochTable& table) override {
    if (!write_error_.ok()) {
      return write_error_;
    }
    table_ = table;
    return absl::OkStatus();
  }

  const std::optional<storage::v1::EpochTable>& table() const { return table_; }
  // Somebody removes the file, or puts another in its place.
  void Replace(std::optional<storage::v1::EpochTable> table) {
    table_ = std::move(table);
  }
  void FailWrites(absl::Status status) { write_error_ = std::move(status); }

 private:
  std::optional<storage::v1::EpochTable> table_;
  absl::Status write_error_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_MEM_EPOCH_FILE_H_
