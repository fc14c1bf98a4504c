// Retries are safe (reliability.md G21): every call of clients and agents comes
// again, at once, because its answer was lost, or late, after what came later.
// What is there in the end is what exactly one of each would have left.
//
// PREDELLA_RETRIES is how many come again (2000), PREDELLA_RETRY_SEED the seed.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/environment.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

constexpr int64_t kSize = 4096;
constexpr int kImages = 40;

class RetryTest : public LifecycleFixture {
 protected:
  using Call = std::function<void()>;

  uint64_t Below(uint64_t n) { return rng_() % n; }

  // Once, and then perhaps again: its answer was lost. It may also come late.
  void Do(const std::string& kind, const Call& call) {
    call();
    for (uint64_t more = Below(3); more > 0; --more) {
      Again(kind, call);
    }
    late_.emplace_back(kind, call);
  }
  void Again(const std::string& kind, const Call& call) {
    call();
    Settle();
    ++again_;
    ++kinds_[kind];
  }
  void SomeLateOnes() {
    for (uint64_t n = Below(6); n > 0 && !late_.empty(); --n) {
      const auto& [kind, call] = late_[Below(late_.size())];
      Again(kind + " late", call);
    }
  }

  // The expected answers of the first call are checked where it is made.
  void StartIt(const Uuid& image, const Uuid& upload) {
    Do("StartUpload", [this, image, upload] {
      LogIfError(Start(image, upload, kSize).status(), "start");
    });
  }

  FakeAgent* HolderOf(const Uuid& upload) {
    for (const auto& agent : agents_) {
      if (agent->HasInflight(upload)) {
        return agent.get();
      }
    }
    return nullptr;
  }

  void Put(const Uuid& image) {
    const Uuid upload = ids_.NextUuid();
    StartIt(image, upload);
    auto started = lifecycle_->uploads().Get(upload);
    if (absl::IsNotFound(started.status())) {
      // What is left of three that were aborted may take all three mounts,
      // until somebody looks: LEFTOVER_PENDING.
      Tick();
      StartIt(image, upload);
      started = lifecycle_->uploads().Get(upload);
    }
    ASSERT_OK(started);
    ASSERT_EQ(started->state(), v1::UPLOAD_STATE_OPEN);
    FakeAgent* const agent = HolderOf(upload);
    ASSERT_NE(agent, nullptr);
    ASSERT_TRUE(agent->Write(upload, kSize, false));
    Do("GetUpload", [this, upload] {
      LogIfError(lifecycle_->uploads().Get(upload).status(), "get");
    });
    const uint64_t fate = Below(6);
    if (fate == 0) {
      Do("AbortUpload", [this, upload] {
        LogIfError(lifecycle_->uploads().Abort(upload).status(), "abort");
        Settle();
      });
      ASSERT_EQ(StateOf(upload), v1::UPLOAD_STATE_ABORTED);
      return;
    }
    control::v1::UploadLost lost;
    lost.set_upload_id(upload.bytes());
    *lost.mutable_generation() = GenerationOf(upload);
    if (fate == 1) {
      Do("UploadLost", [this, agent, lost] {
        agent->ReportLost(lost);
        Settle();
      });
      ASSERT_EQ(StateOf(upload), v1::UPLOAD_STATE_ABORTED);
      return;
    }
    const storage::v1::Generation generation = GenerationOf(upload);
    ASSERT_TRUE(agent->Publish(upload));
    Settle();
    ASSERT_EQ(StateOf(upload), v1::UPLOAD_STATE_COMMITTED);
    control::v1::Published published;
    published.set_upload_id(upload.bytes());
    published.set_image_id(image.bytes());
    *published.mutable_generation() = generation;
    published.set_size_bytes(kSize);
    published.set_crc32c(0x1234abcd);
    Do("Published", [this, agent, published] {
      agent->Report(published);
      Settle();
    });
    // What would have ended it comes when it is committed.
    EXPECT_FALSE(lifecycle_->uploads().Abort(upload).ok());
    Do("AbortUpload", [this, upload] {
      LogIfError(lifecycle_->uploads().Abort(upload).status(), "abort");
    });
    Do("UploadLost", [this, agent, lost] {
      agent->ReportLost(lost);
      Settle();
    });
    model_[image] = {upload, Generation::FromProto(generation)};
  }

  storage::v1::Generation GenerationOf(const Uuid& upload) {
    const auto row = index_->GetUpload(upload);
    return row.ok() && row->has_value() ? (*row)->generation()
                                        : storage::v1::Generation();
  }

  void Remove(const Uuid& image) {
    const Generation generation = model_[image]->generation;
    Do("DeleteImage", [this, image, generation] {
      // With the generation it was meant for: without one a late one would
      // mean whatever bears the id by then.
      server::ImageCatalog::DeleteRequest request;
      request.image_id = image;
      request.generation = generation;
      LogIfError(lifecycle_->images().Delete(request), "delete");
      Settle();
    });
    model_[image] = std::nullopt;
  }

  void Step() {
    const Uuid image = images_[Below(images_.size())];
    if (!model_[image].has_value()) {
      Put(image);
    } else if (Below(3) == 0) {
      Remove(image);
    } else {
      const Generation generation = model_[image]->generation;
      Do("ChooseImage", [this, image, generation] {
        LogIfError(
            lifecycle_->images().Choose(image, generation, false).status(),
            "choose");
      });
    }
    SomeLateOnes();
    if (Below(10) == 0) {
      Tick();
    }
    Check(image);
  }

  void Check(const Uuid& image) {
    const auto got = lifecycle_->images().Get(image);
    if (!model_[image].has_value()) {
      EXPECT_TRUE(absl::IsNotFound(got.status())) << got.status();
      return;
    }
    ASSERT_OK(got);
    const auto upload = ParseUploadName(got->upload());
    ASSERT_OK(upload);
    EXPECT_EQ(*upload, model_[image]->upload);
  }

  // Each image lies where its row says, and nothing else lies anywhere.
  void CheckAll() {
    size_t expected = 0;
    for (const auto& [image, wanted] : model_) {
      Check(image);
      size_t files = 0;
      for (const auto& agent : agents_) {
        const auto file = agent->file(image);
        files += file.has_value() ? 1 : 0;
        if (file.has_value() && wanted.has_value()) {
          EXPECT_EQ(file->upload_id, wanted->upload.bytes());
        }
      }
      EXPECT_EQ(files, wanted.has_value() ? 1U : 0U) << image.ToString();
      expected += wanted.has_value() ? 1 : 0;
    }
    v1::ListImagesRequest request;
    request.set_page_size(1000);
    const auto listed = lifecycle_->images().List(request);
    ASSERT_OK(listed);
    EXPECT_EQ(static_cast<size_t>(listed->images_size()), expected);
    const auto open = lifecycle_->uploads().List(v1::ListUploadsRequest());
    ASSERT_OK(open);
    EXPECT_EQ(open->uploads_size(), 0);
  }

  struct Stored {
    Uuid upload;
    Generation generation;
  };

  std::mt19937_64 rng_;
  std::vector<Uuid> images_;
  std::map<Uuid, std::optional<Stored>> model_;
  std::vector<std::pair<std::string, Call>> late_;
  std::map<std::string, int> kinds_;
  int64_t again_ = 0;
};

TEST_F(RetryTest, TheEndIsThatOfExactlyOneOfEach) {
  SetLogLevel("off");
  const int64_t wanted = FromEnvironment("PREDELLA_RETRIES", 2000);
  const int64_t seed =
      FromEnvironment("PREDELLA_RETRY_SEED",
                      static_cast<int64_t>(RandomIds()->NextUint64() >> 32));
  SCOPED_TRACE(absl::StrCat("PREDELLA_RETRY_SEED=", seed));
  rng_.seed(static_cast<uint64_t>(seed));
  for (const char* name : {"a", "b", "c"}) {
    AddConnected(name);
  }
  Tick();
  for (int i = 0; i < kImages; ++i) {
    images_.push_back(ids_.NextUuid());
  }
  while (again_ < wanted && !HasFailure()) {
    Step();
  }
  for (int i = 0; i < 3; ++i) {
    Tick();
  }
  if (!HasFailure()) {
    CheckAll();
  }
  std::string line = absl::StrCat("PREDELLA_RETRY_SEED=", seed);
  for (const auto& [kind, count] : kinds_) {
    absl::StrAppend(&line, ", ", count, " ", kind);
  }
  std::printf("%s\ninjected faults: %d\n", line.c_str(),
              static_cast<int>(again_));
  EXPECT_GE(again_, wanted);
  EXPECT_EQ(kinds_.size(), 14U);
}

}  // namespace
}  // namespace predella::testing
