// A copy in its place whose record is lost, or that was called damaged.
#include <string>

#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/orphans_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

class OrphanMendTest : public OrphansFixture {
 protected:
  absl::StatusOr<v1::Orphan> Mend(bool dry = false, bool other = false) {
    v1::AdoptOrphanRequest request;
    request.set_mount("mounts/a");
    request.set_image("images/" + image_.ToString());
    request.set_validate_only(dry);
    request.mutable_plain()->set_size_bytes(4096);
    request.mutable_plain()->set_crc32c_hex(other ? "1234abce" : "1234abcd");
    return lifecycle_->orphans().Adopt(request);
  }
  void LoseRecord() {
    FakeAgent::File file = *a_->file(image_);
    generation_ = file.generation;
    file.has_record = false;
    file.generation.Clear();
    a_->Put(image_, file);
  }
  int64_t Faults() { return index_->fault_count(a_->uid()); }
  bool HasRecord() { return a_->file(image_)->has_record; }

  storage::v1::Generation generation_;
};

TEST_F(OrphanMendTest, ALostRecordIsWrittenAnew) {
  ListBoth();
  LoseRecord();
  Again(a_);
  ASSERT_EQ(Faults(), 1);
  ASSERT_OK(Mend(/*dry=*/true));
  EXPECT_FALSE(HasRecord());
  EXPECT_EQ(Faults(), 1);
  EXPECT_FALSE(Mend(/*dry=*/false, /*other=*/true).ok()) << "other bytes";
  ASSERT_OK_AND_ASSIGN(const v1::Orphan mended, Mend());
  EXPECT_EQ(mended.generation(), Generation::FromProto(generation_).ToString());
  ASSERT_TRUE(HasRecord());
  EXPECT_EQ(a_->file(image_)->generation.SerializeAsString(),
            generation_.SerializeAsString());
  EXPECT_EQ(Faults(), 0);
  EXPECT_EQ(Count(a_), 0);
  EXPECT_EQ(lifecycle_->images().Get(image_)->readable_copies(), 1);
  Again(a_);
  EXPECT_EQ(Faults(), 0);
}

// Nobody has listed the mount since.
TEST_F(OrphanMendTest, ALostRecordThatNobodySawIsWrittenAnew) {
  LoseRecord();
  ASSERT_EQ(Faults(), 0);
  EXPECT_OK(Mend());
  EXPECT_TRUE(HasRecord());
}

TEST_F(OrphanMendTest, WhatIsNotWholeIsNotCalledAnImage) {
  a_->Behave([](FakeAgent::Behaviour* b) { b->rotten_bytes = true; });
  PutFault(image_, a_, storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(Mend(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(Faults(), 1);
  a_->Behave([](FakeAgent::Behaviour* b) { b->rotten_bytes = false; });
  EXPECT_OK(Mend());
  EXPECT_EQ(Faults(), 0);
  a_->Take(image_);
  EXPECT_THAT(Mend(), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(OrphanMendTest, OfAMountThatIsAwayNothingIsSaid) {
  a_->Lose();
  Settle();
  EXPECT_THAT(Mend(), HasReason(reason::kNotReady));
}

}  // namespace
}  // namespace predella::testing
