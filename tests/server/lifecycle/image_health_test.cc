// Health of images, and lists of those that are not healthy.
#include "server/lifecycle/image_health.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/generation.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ImageHealthTest : public LifecycleFixture {
 protected:
  v1::Image Get(const Uuid& image) {
    auto got = lifecycle_->images().Get(image);
    EXPECT_OK(got.status());
    return got.ok() ? *got : v1::Image();
  }
  void Retire(const std::string& name) {
    v1::RetireMountRequest retire;
    retire.set_name(name);
    AcceptLoss(&retire);
    ASSERT_OK(lifecycle_->mounts().Retire(retire));
    Settle();
  }
  // All pages, which must be in order and without repetition.
  std::vector<std::string> List(v1::ImageHealth health,
                                const std::string& mount = "",
                                int page_size = 2) {
    v1::ListImagesRequest request;
    request.set_health(health);
    request.set_mount(mount);
    request.set_page_size(page_size);
    std::vector<std::string> names;
    do {
      const auto page = lifecycle_->images().List(request);
      EXPECT_OK(page.status());
      if (!page.ok()) {
        break;
      }
      EXPECT_LE(page->images_size(), page_size);
      for (const v1::Image& image : page->images()) {
        EXPECT_EQ(image.health(), health);
        EXPECT_TRUE(names.empty() || names.back() < image.name());
        names.push_back(image.name());
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return names;
  }
  static std::vector<std::string> Names(std::vector<Uuid> images) {
    std::sort(images.begin(), images.end());
    std::vector<std::string> names;
    for (const Uuid& id : images) {
      names.push_back("images/" + id.ToString());
    }
    return names;
  }
};

// The table of docs/architecture.md, row by row.
TEST_F(ImageHealthTest, FollowsTheHealthOfTheMount) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid id = PutRow({a});
  const struct {
    v1::Health seen;
    v1::ImageHealth health;
    bool at_risk;
    int readable;
  } cases[] = {
      {v1::HEALTH_ONLINE, v1::IMAGE_HEALTH_HEALTHY, false, 1},
      {v1::HEALTH_SLOW, v1::IMAGE_HEALTH_HEALTHY, false, 1},
      {v1::HEALTH_READ_ONLY, v1::IMAGE_HEALTH_HEALTHY, true, 1},
      {v1::HEALTH_SUSPECT, v1::IMAGE_HEALTH_HEALTHY, true, 1},
      {v1::HEALTH_HUNG, v1::IMAGE_HEALTH_DEGRADED, false, 0},
      {v1::HEALTH_FAILED, v1::IMAGE_HEALTH_DEGRADED, false, 0},
      {v1::HEALTH_ABSENT, v1::IMAGE_HEALTH_DEGRADED, false, 0},
      {v1::HEALTH_ONLINE, v1::IMAGE_HEALTH_HEALTHY, false, 1},
  };
  for (const auto& c : cases) {
    Say(a, c.seen);
    const v1::Image image = Get(id);
    EXPECT_EQ(image.health(), c.health) << c.seen;
    EXPECT_EQ(image.at_risk(), c.at_risk) << c.seen;
    EXPECT_EQ(image.readable_copies(), c.readable) << c.seen;
    EXPECT_EQ(image.health_detail().empty(),
              c.health == v1::IMAGE_HEALTH_HEALTHY && !c.at_risk)
        << image.health_detail();
  }
  a->Lose();
  EXPECT_EQ(Get(id).health(), v1::IMAGE_HEALTH_HEALTHY)
      << "a broken connection is no broken disk yet";
  clock_.Advance(absl::Seconds(16));
  const v1::Image silent = Get(id);
  EXPECT_EQ(silent.health(), v1::IMAGE_HEALTH_DEGRADED);
  EXPECT_THAT(silent.health_detail(),
              HasSubstr("mounts/a is UNREACHABLE: its agent has been silent"));
  Retire("a");
  const v1::Image lost = Get(id);
  EXPECT_EQ(lost.health(), v1::IMAGE_HEALTH_LOST);
  EXPECT_EQ(lost.readable_copies(), 0);
  EXPECT_THAT(lost.health_detail(), HasSubstr("mounts/a was retired"));
}

TEST_F(ImageHealthTest, AFaultyCopyIsShownWithItsReason) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid damaged = PutRow({a, b});
  PutFault(damaged, a, storage::v1::COPY_FAULT_DAMAGED);
  v1::Image image = Get(damaged);
  EXPECT_EQ(image.health(), v1::IMAGE_HEALTH_DEGRADED);
  EXPECT_EQ(image.readable_copies(), 1);
  EXPECT_EQ(image.copies(0).mount(), "mounts/b");
  EXPECT_EQ(image.copies(1).mount(), "mounts/a") << "the last resort";
  EXPECT_EQ(image.copies(1).fault(), v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(image.copies(1).fault_detail(), HasSubstr("MiB 7"));
  EXPECT_TRUE(image.copies(1).has_fault_time());
  EXPECT_THAT(image.health_detail(),
              HasSubstr("the copy on mounts/a is damaged: MiB 7"));
  PutFault(damaged, b, storage::v1::COPY_FAULT_MISSING);
  image = Get(damaged);
  EXPECT_EQ(image.readable_copies(), 0);
  EXPECT_EQ(image.copies(0).mount(), "mounts/a")
      << "bytes that may be damaged stand before none";
  EXPECT_EQ(image.copies(1).fault(), v1::COPY_FAULT_MISSING);
}

// Many images elsewhere: the lists come from the mounts, not from the table.
TEST_F(ImageHealthTest, TheDegradedAreListedOnceEachInPages) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  std::vector<Uuid> on_a;
  std::vector<Uuid> faulty;
  for (int i = 0; i < 7; ++i) {
    on_a.push_back(PutRow({a}));
    PutRow({b});
    const Uuid id = PutRow({c});
    if (i % 3 == 0) {
      PutFault(id, c,
               i == 0 ? storage::v1::COPY_FAULT_MISSING
                      : storage::v1::COPY_FAULT_DAMAGED);
      faulty.push_back(id);
    }
  }
  PutFault(on_a[0], a, storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED).size(), 4);
  Say(a, v1::HEALTH_ABSENT);
  std::vector<Uuid> all = on_a;
  all.insert(all.end(), faulty.begin(), faulty.end());
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED), ElementsAreArray(Names(all)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED, "a"),
              ElementsAreArray(Names(on_a)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED, "mounts/c"),
              ElementsAreArray(Names(faulty)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED, "b"), IsEmpty());
  EXPECT_THAT(List(v1::IMAGE_HEALTH_LOST), IsEmpty());
  EXPECT_THAT(List(v1::IMAGE_HEALTH_HEALTHY).size(), 21 - all.size());
  EXPECT_THAT(List(v1::IMAGE_HEALTH_HEALTHY, "c").size(), 7 - faulty.size());
  Retire("a");
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED), ElementsAreArray(Names(faulty)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_LOST), ElementsAreArray(Names(on_a)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_LOST, "a"), ElementsAreArray(Names(on_a)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_LOST, "c"), IsEmpty());
}

TEST_F(ImageHealthTest, AnImageWithASecondCopyIsFoundFromEitherMount) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  const Uuid both = PutRow({a, b});
  const Uuid only_a = PutRow({a});
  PutRow({c});
  Say(a, v1::HEALTH_HUNG);
  EXPECT_EQ(Get(both).readable_copies(), 1);
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED, "b"),
              ElementsAreArray(Names({both})));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED),
              ElementsAreArray(Names({both, only_a})));
  Say(b, v1::HEALTH_ABSENT);
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED),
              ElementsAreArray(Names({both, only_a})))
      << "on two such mounts, and listed once";
  Retire("a");
  EXPECT_THAT(List(v1::IMAGE_HEALTH_LOST), ElementsAreArray(Names({only_a})));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED), ElementsAreArray(Names({both})));
}

// So many that the scan reads the whole table: with few others beside them.
TEST_F(ImageHealthTest, ALargePartOfAllImagesIsReadInOrder) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  std::vector<Uuid> on_a;
  for (int i = 0; i < 1100; ++i) {
    on_a.push_back(PutRow({a}));
    if (i % 2 == 0) {
      PutRow({b});
    }
  }
  Say(a, v1::HEALTH_FAILED);
  EXPECT_THAT(List(v1::IMAGE_HEALTH_DEGRADED, "", 300),
              ElementsAreArray(Names(on_a)));
  EXPECT_THAT(List(v1::IMAGE_HEALTH_HEALTHY, "", 300).size(), 550);
}

TEST_F(ImageHealthTest, APageTokenBelongsToItsFilter) {
  FakeAgent* const a = AddConnected("a", 1);
  PutRow({a});
  PutRow({a});
  Say(a, v1::HEALTH_ABSENT);
  v1::ListImagesRequest request;
  request.set_page_size(1);
  request.set_health(v1::IMAGE_HEALTH_DEGRADED);
  ASSERT_OK_AND_ASSIGN(const v1::ListImagesResponse page,
                       lifecycle_->images().List(request));
  request.set_page_token(page.next_page_token());
  request.set_health(v1::IMAGE_HEALTH_LOST);
  EXPECT_THAT(lifecycle_->images().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  request.clear_page_token();
  request.set_health(static_cast<v1::ImageHealth>(99));
  EXPECT_THAT(lifecycle_->images().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("99")));
}

}  // namespace
}  // namespace predella::testing
