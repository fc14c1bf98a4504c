// What the model of the protocol found, where no other test has its trace; the
// table in docs/testing.md names the test of every finding.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::Contains;

class FindingsTest : public LifecycleFixture {
 protected:
  FindingsTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {}

  bool recovering() { return lifecycle_->trust().recovering(); }
  bool NotFound(const Uuid& image) {
    return absl::IsNotFound(lifecycle_->images().Get(image).status());
  }
  void List() {
    Tick();
    Tick();
  }

  const Uuid image_;
  const Uuid upload_;
};

// V2 (a): no time after a start makes what nobody checked certain.
TEST_F(FindingsTest, TimeAloneNeverMakesAnImageNotFound) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(absl::Hours(24));
    Tick();
    EXPECT_FALSE(NotFound(image_));
  }
  Connect(agents_[1].get());
  clock_.Advance(absl::Hours(24));
  Tick();
  EXPECT_FALSE(NotFound(image_)) << "its mount has not been heard";
  Connect(a);
  List();
  EXPECT_OK(lifecycle_->images().Get(image_));
}

// V3 (c): RECOVERING outlives the coordinator that found it.
TEST_F(FindingsTest, RecoveringSurvivesACrash) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  Connect(a);
  ASSERT_TRUE(recovering());
  Restart();
  EXPECT_TRUE(recovering());
  Connect(a);
  List();
  EXPECT_OK(lifecycle_->images().Get(image_)) << "it was adopted";
  EXPECT_TRUE(recovering()) << "b was not listed";
}

// V3 (d): who registered before RECOVERING began is listed in it too.
TEST_F(FindingsTest, AMountThatCameBeforeRecoveringIsListedInIt) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  Connect(b);
  EXPECT_FALSE(recovering());
  EXPECT_TRUE(registry_->FindByName("b")->trusted);
  Connect(a);
  ASSERT_TRUE(recovering());
  EXPECT_FALSE(registry_->FindByName("b")->trusted);
  EXPECT_THAT(lifecycle_->inventory().Awaited(), Contains("b"));
  List();
  EXPECT_FALSE(recovering());
  EXPECT_TRUE(registry_->FindByName("b")->trusted);
}

// V9: a tombstone outlasts RECOVERING, whatever its age: a mount that is not
// listed may hold an older generation.
TEST_F(FindingsTest, NoTombstoneIsForgottenBeforeEveryMountWasListed) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  const auto old = kv_->Contents();
  const Uuid other = ids_.NextUuid();
  Upload(a, other, ids_.NextUuid());
  RestartFrom(old);
  Connect(a);
  ASSERT_TRUE(recovering());
  ASSERT_OK(Delete(image_));
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(options_.tombstone_ttl);
    a->Beat();
    List();
  }
  EXPECT_TRUE(recovering());
  // Of the image's generation, and of the delete's own pair.
  EXPECT_EQ(a->tombstone_count(), 2u);
  Connect(b);
  List();
  EXPECT_FALSE(recovering());
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(options_.tombstone_ttl);
    a->Beat();
    b->Beat();
    List();
  }
  EXPECT_EQ(a->tombstone_count(), 0u);
  EXPECT_TRUE(NotFound(image_));
  EXPECT_FALSE(a->Has(image_));
}

}  // namespace
}  // namespace predella::testing
