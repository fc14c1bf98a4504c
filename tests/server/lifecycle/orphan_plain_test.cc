// Files without a record, which an operator makes images.
#include <thread>

#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/orphans_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

class PlainFileTest : public OrphansFixture {
 protected:
  PlainFileTest() : plain_id_(ids_.NextUuid()) {
    FakeAgent::File file = *a_->file(image_);
    file.has_record = false;
    file.size_bytes = 5;
    b_->Put(plain_id_, file);
    Again(b_);
  }
  v1::AdoptOrphanRequest Request(bool dry = false) const {
    v1::AdoptOrphanRequest request;
    request.set_mount("mounts/b");
    request.set_image("images/" + plain_id_.ToString());
    request.set_validate_only(dry);
    v1::PlainFile* const plain = request.mutable_plain();
    plain->set_size_bytes(5);
    plain->set_crc32c_hex("0000beef");
    v1::Hash* const hash = plain->add_hashes();
    hash->set_algorithm("md5");
    hash->set_hex("000102030405060708090a0b0c0d0e0f");
    return request;
  }
  absl::StatusOr<v1::Orphan> AdoptIt(bool dry = false) {
    return lifecycle_->orphans().Adopt(Request(dry));
  }
  const Uuid plain_id_;
};

TEST_F(PlainFileTest, IsMadeAnImageOfAGenerationOfItsOwn) {
  const Generation before = index_->synced_pair();
  ASSERT_OK(AdoptIt(/*dry=*/true));
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
  ASSERT_OK_AND_ASSIGN(const v1::Orphan orphan, AdoptIt());
  ASSERT_OK_AND_ASSIGN(const auto row, index_->GetImage(plain_id_));
  ASSERT_TRUE(row.has_value());
  const Generation generation = Generation::FromProto(row->generation());
  EXPECT_EQ(orphan.generation(), generation.ToString());
  EXPECT_TRUE(generation.After(before));
  EXPECT_FALSE(generation.After(index_->synced_pair()))
      << "a restart would take the mount for one that knows more";
  EXPECT_EQ(HolderOf(plain_id_), "b");
  EXPECT_EQ(row->size_bytes(), 5);
  EXPECT_EQ(row->crc32c(), 0xbeefu);
  EXPECT_EQ(row->location_key().size(), 16u);
  ASSERT_EQ(row->hashes_size(), 1);
  EXPECT_EQ(row->hashes(0).value().size(), 16u);
  EXPECT_TRUE(b_->file(plain_id_)->has_record);
  EXPECT_EQ(Count(b_), 0);
  EXPECT_OK(lifecycle_->images().Get(plain_id_));
  int kept = 0;
  for (const control::v1::Command& command : b_->commands()) {
    kept += command.adopt_file().keep_mode_and_group() ? 1 : 0;
  }
  EXPECT_EQ(kept, 1) << "Glance reads it still";
  // The answer may be lost.
  ASSERT_OK_AND_ASSIGN(const v1::Orphan again, AdoptIt());
  EXPECT_EQ(again.generation(), orphan.generation());
  v1::AdoptOrphanRequest other = Request();
  other.mutable_plain()->set_crc32c_hex("0000beee");
  EXPECT_FALSE(lifecycle_->orphans().Adopt(other).ok());
}

TEST_F(PlainFileTest, IsLeftAloneWhenTheAgentReadsOtherBytes) {
  b_->Behave([](FakeAgent::Behaviour* b) { b->other_bytes = true; });
  EXPECT_THAT(AdoptIt(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
  EXPECT_EQ(Count(b_), 1);
  b_->Behave([](FakeAgent::Behaviour* b) { b->other_bytes = false; });
  EXPECT_OK(AdoptIt());
}

TEST_F(PlainFileTest, IsRefusedWhenWhatIsSaidOfItCanNotBe) {
  for (const char* crc32c : {"", "beef", "0000beeg", "00000beef"}) {
    v1::AdoptOrphanRequest request = Request();
    request.mutable_plain()->set_crc32c_hex(crc32c);
    EXPECT_THAT(lifecycle_->orphans().Adopt(request),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  v1::AdoptOrphanRequest request = Request();
  request.mutable_plain()->set_size_bytes(-1);
  EXPECT_THAT(lifecycle_->orphans().Adopt(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  for (const char* algorithm : {"md6", "sha512"}) {
    request = Request();
    request.mutable_plain()->mutable_hashes(0)->set_algorithm(algorithm);
    EXPECT_THAT(lifecycle_->orphans().Adopt(request),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  request = Request();
  for (int i = 0; i < 8; ++i) {
    *request.mutable_plain()->add_hashes() = request.plain().hashes(0);
  }
  EXPECT_THAT(lifecycle_->orphans().Adopt(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
}

TEST_F(PlainFileTest, AnIdThatIsTakenIsRefused) {
  Upload(a_, plain_id_, ids_.NextUuid());
  EXPECT_THAT(AdoptIt(), HasReason(reason::kImageExists));
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
}

// It is no generation that was deleted.
TEST_F(PlainFileTest, ADeleteOfAnEarlierImageIsNothingAgainstIt) {
  Upload(a_, plain_id_, ids_.NextUuid());
  ASSERT_OK(Delete(plain_id_));
  Settle();
  EXPECT_OK(AdoptIt(/*dry=*/true));
  EXPECT_OK(AdoptIt());
  EXPECT_EQ(HolderOf(plain_id_), "b");
}

TEST_F(PlainFileTest, OneAtATimeAndNoneWhenTheAgentGoes) {
  b_->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  absl::StatusOr<v1::Orphan> first = absl::UnknownError("not yet");
  std::thread one([&] {
    do {  // the question whether it is busy may be in its way
      first = AdoptIt();
    } while (predella::HasReason(first.status(), reason::kCommitConflict));
  });
  const auto busy = [&] {
    return predella::HasReason(AdoptIt(/*dry=*/true).status(),
                               reason::kCommitConflict);
  };
  while (!busy()) {
    std::this_thread::yield();
  }
  b_->Lose();
  one.join();
  EXPECT_THAT(first, StatusIs(absl::StatusCode::kUnavailable));
  Settle();
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
}

}  // namespace
}  // namespace predella::testing
