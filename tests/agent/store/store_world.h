// A mount in memory with a store on it, and the few calls that most tests
// make.
#ifndef PREDELLA_TESTS_AGENT_STORE_STORE_WORLD_H_
#define PREDELLA_TESTS_AGENT_STORE_STORE_WORLD_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/store/image_store.h"
#include "common/crc32c.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {

inline Uuid TestId(uint64_t seed) {
  testing::FakeIds ids(seed);
  return ids.NextUuid();
}

// Bytes that no shift of themselves equals.
inline std::string Pattern(int64_t size, uint32_t seed) {
  std::string out(static_cast<size_t>(size), '\0');
  uint32_t x = seed * 2654435761U + 1;
  for (char& c : out) {
    x = x * 1664525U + 1013904223U;
    c = static_cast<char>(x >> 24);
  }
  return out;
}

inline UploadSpec SpecOf(uint64_t image, uint64_t upload, int64_t n) {
  UploadSpec spec;
  spec.image_id = TestId(image);
  spec.upload_id = TestId(1000 + upload);
  spec.generation = Generation{3, n, 0xabcd};
  spec.location_key = "0123456789abcdef";
  return spec;
}

inline absl::Status AppendAll(StagedImage* staged, absl::string_view bytes,
                              int64_t chunk = kBlockBytes) {
  while (staged->tail_next() < static_cast<int64_t>(bytes.size())) {
    const int64_t at = staged->tail_next();
    const absl::string_view part =
        bytes.substr(static_cast<size_t>(at), static_cast<size_t>(chunk));
    RETURN_IF_ERROR(staged->AppendTail(at, {part}, Crc32c(part)));
  }
  return absl::OkStatus();
}

inline CommitRequest CommitOf(absl::string_view bytes) {
  CommitRequest request;
  request.size_bytes = static_cast<int64_t>(bytes.size());
  request.crc32c = Crc32c(bytes);
  storage::v1::Hash& hash = request.hashes.emplace_back();
  hash.set_algorithm("sha512");
  hash.set_value("0123");
  return request;
}

inline absl::StatusOr<PublishedImage> Upload(ImageStore* store,
                                             const UploadSpec& spec,
                                             absl::string_view bytes) {
  ASSIGN_OR_RETURN(const auto staged, store->OpenStaged(spec));
  RETURN_IF_ERROR(AppendAll(staged.get(), bytes));
  return staged->Publish(CommitOf(bytes));
}

inline absl::StatusOr<std::string> ReadAll(ImageStore* store,
                                           const UploadSpec& spec) {
  ASSIGN_OR_RETURN(const auto reader,
                   store->OpenImage(spec.image_id, spec.generation));
  ASSIGN_OR_RETURN(VerifiedBytes read,
                   reader->Read(0, reader->image().size_bytes));
  return std::move(read.bytes);
}

inline std::vector<ListEntry> ListAll(ImageStore* store) {
  std::vector<ListEntry> out;
  const absl::Status listed =
      store->List([&](const ListEntry& entry) { out.push_back(entry); });
  if (!listed.ok()) {
    out.clear();
  }
  return out;
}

// mem <- fault <- store.
struct World {
  World() : fault(&mem) {}
  ~World() { store.reset(); }

  absl::Status Init() {
    return InitMount(&mem, &clock, &ids, "store-1").status();
  }
  absl::Status Open() {
    store.reset();
    ASSIGN_OR_RETURN(store, ImageStore::Open(&fault, &clock, &ids, options));
    return absl::OkStatus();
  }
  // On a copy of one mount that was initialised: thousands of tries.
  absl::Status InitAndOpen() {
    static testing::MemFileSystem* const initialised = [] {
      auto* const made = new testing::MemFileSystem();
      testing::FakeClock time;
      testing::FakeIds random;
      const auto label = InitMount(made, &time, &random, "store-1");
      return label.ok() ? made : nullptr;
    }();
    if (initialised == nullptr) {
      return absl::InternalError("the mount can't be initialised");
    }
    mem.CloneFrom(initialised);
    return Open();
  }
  void PowerCut(testing::MemFileSystem::Keep keep, uint64_t seed = 0) {
    store.reset();
    mem.Crash(keep, seed);
  }

  testing::FakeClock clock;
  testing::FakeIds ids;
  testing::MemFileSystem mem;
  testing::FaultFileSystem fault;
  StoreOptions options;
  std::unique_ptr<ImageStore> store;
};

}  // namespace predella::agent

#endif  // PREDELLA_TESTS_AGENT_STORE_STORE_WORLD_H_
