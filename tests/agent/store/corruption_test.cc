// Never a wrong byte: published files and their records are changed on the disk
// in random ways; every read is right or an error, every change is found by a
// check of the image (reliability.md G4).
//
// PREDELLA_CORRUPTIONS is how many (200), PREDELLA_CORRUPTION_SEED the seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "agent/store/layout.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/environment.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

constexpr int64_t kPage = 4096;
// Two of one size, so that no size tells them apart.
constexpr int64_t kSizes[] = {kBlockBytes + 5000, kBlockBytes + 5000, 777};
constexpr uint64_t kImages = std::size(kSizes);

UploadSpec SpecOfImage(uint64_t n) {
  return SpecOf(n, n, static_cast<int64_t>(n) + 1);
}
std::string BytesOf(uint64_t n) {
  return Pattern(kSizes[n], static_cast<uint32_t>(n) + 1);
}
std::string FileOf(uint64_t n) {
  return layout::ImagePath(SpecOfImage(n).image_id);
}
std::string RecordOf(uint64_t n) {
  return layout::RecordPath(SpecOfImage(n).image_id);
}

class Corruptions {
 public:
  explicit Corruptions(uint64_t seed) : rng_(seed) {}

  // Publishes the images, and keeps the file system that has them.
  void SetUp() {
    World world;
    ASSERT_OK(world.InitAndOpen());
    // One that image 0 replaced: bytes and record of an older generation.
    ASSERT_OK(Upload(world.store.get(), Older(), Pattern(kSizes[0], 99)));
    stale_file_ = Get(&world, FileOf(0));
    stale_record_ = Get(&world, RecordOf(0));
    ASSERT_OK(world.store->Remove(Older().image_id, Older().generation,
                                  Older().upload_id));
    for (uint64_t n = 0; n < kImages; ++n) {
      ASSERT_OK(Upload(world.store.get(), SpecOfImage(n), BytesOf(n)));
    }
    world.store.reset();
    published_.CloneFrom(&world.mem);
  }

  // One change, and all that can be read after it.
  void Try() {
    World world;
    world.mem.CloneFrom(&published_);
    std::vector<uint64_t> changed;
    const std::string kind = Change(&world, &changed);
    SCOPED_TRACE(kind);
    ASSERT_FALSE(::testing::Test::HasFailure());
    ++counts_[kind];
    ASSERT_OK(world.Open());
    for (uint64_t n = 0; n < kImages; ++n) {
      const bool hurt =
          std::find(changed.begin(), changed.end(), n) != changed.end();
      SCOPED_TRACE(absl::StrCat("image ", n));
      const auto read = ReadAll(world.store.get(), SpecOfImage(n));
      if (read.ok()) {
        // Not EXPECT_EQ: it would print megabytes.
        EXPECT_TRUE(*read == BytesOf(n)) << "wrong bytes were served";
      } else {
        EXPECT_TRUE(hurt) << read.status();
      }
      EXPECT_EQ(!Check(world.store.get(), SpecOfImage(n)).ok(), hurt);
      detected_ += hurt ? 1 : 0;
    }
  }

  const std::map<std::string, int>& counts() const { return counts_; }
  int64_t detected() const { return detected_; }

 private:
  static UploadSpec Older() { return SpecOf(0, 50, 0); }

  uint64_t Below(uint64_t n) { return rng_() % n; }

  static std::string Get(World* world, const std::string& path) {
    auto content = world->mem.GetFile(path);
    EXPECT_OK(content);
    return content.ok() ? *std::move(content) : "";
  }
  static void Put(World* world, const std::string& path,
                  const std::string& content) {
    EXPECT_OK(world->mem.PutFile(path, content));
  }

  // Reads all of it cold, as a scrub does; whether it is the generation that
  // the row names is compared by the coordinator.
  static absl::Status Check(ImageStore* store, const UploadSpec& spec) {
    ASSIGN_OR_RETURN(const auto check, store->OpenCheck(spec.image_id));
    if (check->generation() != spec.generation) {
      return absl::DataLossError("another generation");
    }
    while (true) {
      ASSIGN_OR_RETURN(const int64_t bytes, check->Next());
      if (bytes == 0) {
        return absl::OkStatus();
      }
    }
  }

  std::string Change(World* world, std::vector<uint64_t>* changed) {
    const uint64_t n = Below(kImages);
    std::string file = Get(world, FileOf(n));
    std::string record = Get(world, RecordOf(n));
    *changed = {n};
    switch (Below(13)) {
      case 0:
        file[Below(file.size())] ^= static_cast<char>(1 << Below(8));
        Put(world, FileOf(n), file);
        return "bit of a file";
      case 1: {
        const size_t at = Below(file.size()) / kPage * kPage;
        file.replace(at, std::min<size_t>(kPage, file.size() - at),
                     std::min<size_t>(kPage, file.size() - at), '\0');
        Put(world, FileOf(n), file);
        return "page of zeros";
      }
      case 2:
        *changed = {0, 1};
        Put(world, FileOf(0), BytesOf(1));
        Put(world, FileOf(1), BytesOf(0));
        return "files swapped";
      case 3: {
        const size_t at = Below(file.size() - 1);
        file.erase(at, 1);
        file.push_back('\0');
        Put(world, FileOf(n), file);
        return "bytes shifted";
      }
      case 4:
        file.resize(Below(file.size()));
        Put(world, FileOf(n), file);
        return "file cut";
      case 5:
        file.append(1 + Below(2 * kPage), static_cast<char>(Below(256)));
        Put(world, FileOf(n), file);
        return "file longer";
      case 6:
        *changed = {0};
        Put(world, FileOf(0), stale_file_);
        return "older bytes";
      case 7:
        *changed = {0};
        Put(world, FileOf(0), stale_file_);
        Put(world, RecordOf(0), stale_record_);
        return "older bytes with their record";
      case 8: {
        // A write that went to the other image at the same place.
        const size_t at = Below(kSizes[0]) / kPage * kPage;
        std::string hit = BytesOf(1);
        hit.replace(at, kPage, BytesOf(0), at, kPage);
        *changed = {1};
        Put(world, FileOf(1), hit);
        return "page of another image";
      }
      case 9:
        record[Below(record.size())] ^= static_cast<char>(1 << Below(8));
        Put(world, RecordOf(n), record);
        return "bit of a record";
      case 10:
        record.resize(Below(record.size()));
        Put(world, RecordOf(n), record);
        return "record cut";
      case 11: {
        *changed = {0, 1};
        const std::string first = Get(world, RecordOf(0));
        Put(world, RecordOf(0), Get(world, RecordOf(1)));
        Put(world, RecordOf(1), first);
        return "records swapped";
      }
      default:
        EXPECT_OK(world->mem.Unlink(RecordOf(n)));
        return "record gone";
    }
  }

  std::mt19937_64 rng_;
  testing::MemFileSystem published_;
  std::string stale_file_;
  std::string stale_record_;
  std::map<std::string, int> counts_;
  int64_t detected_ = 0;
};

TEST(CorruptionTest, AReadIsRightOrAnError) {
  const int64_t tries = testing::FromEnvironment("PREDELLA_CORRUPTIONS", 200);
  const int64_t seed = testing::FromEnvironment(
      "PREDELLA_CORRUPTION_SEED",
      static_cast<int64_t>(RandomIds()->NextUint64() >> 32));
  SCOPED_TRACE(absl::StrCat("PREDELLA_CORRUPTION_SEED=", seed));
  Corruptions corruptions(static_cast<uint64_t>(seed));
  corruptions.SetUp();
  int64_t done = 0;
  for (; done < tries && !::testing::Test::HasFailure(); ++done) {
    corruptions.Try();
  }
  std::string line = absl::StrCat("PREDELLA_CORRUPTION_SEED=", seed, ": ", done,
                                  " corruptions, found in ",
                                  corruptions.detected(), " images");
  for (const auto& [kind, count] : corruptions.counts()) {
    absl::StrAppend(&line, ", ", count, " ", kind);
  }
  std::printf("%s\ninjected faults: %d\n", line.c_str(),
              static_cast<int>(done));
  EXPECT_EQ(done, tries);
}

}  // namespace
}  // namespace predella::agent
