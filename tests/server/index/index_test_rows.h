// Rows for tests of the index.
#ifndef PREDELLA_TESTS_SERVER_INDEX_INDEX_TEST_ROWS_H_
#define PREDELLA_TESTS_SERVER_INDEX_INDEX_TEST_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::server {

// A UUID whose last byte is `n`.
inline Uuid TestId(int n) {
  std::string bytes(16, '\x11');
  bytes[14] = static_cast<char>(n / 256);
  bytes[15] = static_cast<char>(n % 256);
  return Uuid::FromBytesOrNone(bytes);
}

inline storage::v1::ImageRow TestImage(const Uuid& id,
                                       const Generation& generation,
                                       int64_t size,
                                       const std::vector<Uuid>& mounts) {
  storage::v1::ImageRow row;
  row.set_image_id(id.bytes());
  *row.mutable_generation() = generation.ToProto();
  row.set_size_bytes(size);
  for (const Uuid& mount : mounts) {
    row.add_copies()->set_mount_uid(mount.bytes());
  }
  // A map: its bytes must not depend on the order it was filled in.
  for (const char* reason : {"space", "health", "inodes", "full"}) {
    (*row.mutable_decision()->mutable_refused_by_reason())[reason] = 1;
  }
  return row;
}

inline storage::v1::FenceEntry Known(int64_t epoch, uint32_t nonce, int64_t n) {
  storage::v1::FenceEntry entry;
  entry.set_epoch(epoch);
  entry.set_nonce(nonce);
  entry.set_max_n(n);
  return entry;
}

}  // namespace predella::server

#endif  // PREDELLA_TESTS_SERVER_INDEX_INDEX_TEST_ROWS_H_
