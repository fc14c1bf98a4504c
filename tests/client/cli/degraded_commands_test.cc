// Commands about what is degraded, lost, or happened.
#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/mocks/mock_connection.h"
#include "common/errors.h"
#include "tests/client/cli/command_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Invoke;
using ::testing::Not;
using ::testing::Return;

constexpr char kDegradedImage[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

class DegradedCommandsTest : public CommandFixture {
 protected:
  static v1::ExplainImpactResponse Impact(int64_t count) {
    v1::ExplainImpactResponse impact;
    impact.set_image_count(count);
    impact.set_image_bytes(count << 30);
    impact.set_only_copy_count(count);
    impact.set_only_copy_bytes(count << 30);
    v1::ImpactedImage* const image = impact.add_images();
    image->set_name(std::string("images/") + kDegradedImage);
    image->set_size_bytes(int64_t{1} << 30);
    image->add_mounts("mounts/store-2");
    return impact;
  }
  static absl::Status NotEmpty() {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountNotEmpty, "not accepted",
                     {{"image_count", "12"}, {"lost_digest", "0a1b"}});
  }
};

// A time that JSON has no form for: an error, and not {} with exit code 0.
TEST_F(DegradedCommandsTest, WhatHasNoJsonFormIsAnError) {
  constexpr int64_t kYear10000 = 253'402'300'800;
  v1::ListMountsResponse mounts;
  v1::Mount* const mount = mounts.add_mounts();
  mount->set_name("mounts/store-1");
  mount->mutable_maintenance_until_time()->set_seconds(kYear10000);
  ON_CALL(*connection_, ListMounts).WillByDefault(Return(mounts));
  EXPECT_EQ(Run({"mount", "ls", "-o", "json"}), kExitFailed);
  EXPECT_EQ(out_.str(), "");
  EXPECT_THAT(err_.str(), HasSubstr("has no JSON form"));
  v1::ListEventsResponse events;
  events.add_events()->mutable_time()->set_seconds(kYear10000);
  ON_CALL(*connection_, ListEvents).WillByDefault(Return(events));
  EXPECT_EQ(Run({"events", "-o", "json"}), kExitFailed);
  mount->mutable_maintenance_until_time()->set_seconds(kYear10000 - 1);
  ON_CALL(*connection_, ListMounts).WillByDefault(Return(mounts));
  EXPECT_EQ(Run({"mount", "ls", "-o", "json"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("9999-12-31T23:59:59Z"));
}

// A mount that waits to be confirmed is ONLINE in `mount ls`, and no
// maintenance excuses it.
TEST_F(DegradedCommandsTest, TheHintOfMissingMountsSaysConfirm) {
  EXPECT_CALL(*connection_, GetImage)
      .WillOnce(Return(MakeError(absl::StatusCode::kUnavailable,
                                 reason::kMountsMissing, "UNCONFIRMED")));
  EXPECT_EQ(Run({"image", "stat", kDegradedImage}), kExitUnavailable);
  EXPECT_THAT(err_.str(), HasSubstr("predella mount confirm"));
}

TEST_F(DegradedCommandsTest, AListOfTheDegradedSaysWhy) {
  v1::ListImagesResponse page;
  v1::Image* const image = page.add_images();
  image->set_name(std::string("images/") + kDegradedImage);
  image->set_health(v1::IMAGE_HEALTH_DEGRADED);
  image->set_health_detail("mounts/store-2 is ABSENT: no label");
  v1::Image* const risky = page.add_images();
  risky->set_name(std::string("images/") + kDegradedImage);
  risky->set_health(v1::IMAGE_HEALTH_HEALTHY);
  risky->set_at_risk(true);
  EXPECT_CALL(*connection_, ListImages)
      .WillOnce(Invoke([&](const v1::ListImagesRequest& request) {
        EXPECT_EQ(request.health(), v1::IMAGE_HEALTH_DEGRADED);
        EXPECT_EQ(request.mount(), "mounts/store-2");
        return page;
      }));
  EXPECT_EQ(
      Run({"image", "ls", "--degraded", "--mount", "store-2", "-o", "wide"}),
      kExitDone);
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("DEGRADED"), HasSubstr("AT_RISK"),
                    HasSubstr("mounts/store-2 is ABSENT: no label\n")));
  EXPECT_EQ(Run({"image", "ls", "--degraded", "--lost"}), kExitUsage);
}

TEST_F(DegradedCommandsTest, ALongTableHasOneHeader) {
  v1::ListImagesResponse page;
  for (int i = 0; i < 2500; ++i) {
    page.add_images()->set_name(std::string("images/") + kDegradedImage);
  }
  EXPECT_CALL(*connection_, ListImages).WillOnce(Return(page));
  EXPECT_EQ(Run({"image", "ls", "--lost"}), kExitDone);
  const std::string text = out_.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2501);
  EXPECT_EQ(text.find("ID "), 0u);
  EXPECT_EQ(text.find("ID ", 1), std::string::npos);
}

TEST_F(DegradedCommandsTest, AnImageShowsItsFault) {
  v1::Image image;
  image.set_name(std::string("images/") + kDegradedImage);
  image.set_health(v1::IMAGE_HEALTH_DEGRADED);
  image.set_health_detail("the copy on mounts/store-2 is damaged: MiB 7");
  v1::Copy* const copy = image.add_copies();
  copy->set_mount("mounts/store-2");
  copy->set_health(v1::HEALTH_ONLINE);
  copy->set_fault(v1::COPY_FAULT_DAMAGED);
  copy->set_fault_detail("MiB 7");
  EXPECT_CALL(*connection_, GetImage).WillOnce(Return(image));
  EXPECT_EQ(Run({"image", "stat", kDegradedImage}), kExitDone);
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("DEGRADED, 0 of 1 copies readable"),
                    HasSubstr("the copy on mounts/store-2 is damaged"),
                    HasSubstr("store-2 ONLINE, DAMAGED since -: MiB 7")));
}

TEST_F(DegradedCommandsTest, ImpactSaysTheNumbersAndAllTheNames) {
  v1::ExplainImpactResponse first = Impact(2);
  first.set_next_page_token("more");
  EXPECT_CALL(*connection_, ExplainImpact)
      .WillOnce(Return(first))
      .WillOnce(Return(first))
      .WillOnce(Invoke([](const v1::ExplainImpactRequest& request) {
        EXPECT_EQ(request.page_token(), "more");
        EXPECT_EQ(request.names_size(), 2);
        return Impact(2);
      }));
  EXPECT_EQ(Run({"mount", "impact", "store-2", "store-3"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "on store-2, store-3: 2 images, 2 GiB\n"
            "no copy elsewhere: 2 images, 2 GiB\n");
  EXPECT_EQ(Run({"mount", "impact", "store-2", "store-3", "--images"}),
            kExitDone);
  const std::string text = out_.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5);
}

TEST_F(DegradedCommandsTest, RetireNamesWhatWouldBeLost) {
  EXPECT_CALL(*connection_, ListOrphans)
      .WillOnce(Return(v1::ListOrphansResponse()));
  EXPECT_CALL(*connection_, RetireMount).WillOnce(Return(NotEmpty()));
  EXPECT_CALL(*connection_, ExplainImpact).WillOnce(Return(Impact(12)));
  EXPECT_EQ(Run({"mount", "retire", "store-2", "--dry-run"}), kExitConflict);
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("lost with store-2: 12 images, 12 GiB"),
                    HasSubstr(kDegradedImage), HasSubstr("and 11 more")));
  EXPECT_THAT(err_.str(), HasSubstr("predella mount retire store-2 "
                                    "--accept-lost 12:0a1b --yes"));
}

TEST_F(DegradedCommandsTest, RetireAndImpactSayWhichDeletesAreNotedThere) {
  v1::ExplainImpactResponse impact = Impact(0);
  impact.set_only_delete_copy_count(3);
  EXPECT_CALL(*connection_, RetireMount).WillOnce(Return(v1::Mount()));
  EXPECT_CALL(*connection_, ExplainImpact).WillRepeatedly(Return(impact));
  EXPECT_CALL(*connection_, ListOrphans)
      .WillOnce(Return(v1::ListOrphansResponse()));
  EXPECT_EQ(Run({"mount", "retire", "store-2", "--dry-run"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("noted nowhere else: 3 deletes"));
  EXPECT_EQ(Run({"mount", "impact", "store-2"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("noted nowhere else: 3 deletes"));
}

// Its agent's silence may be seen as UNREACHABLE by then.
TEST_F(DegradedCommandsTest, ConfirmSaysWhatItDid) {
  v1::Mount mount;
  mount.set_name("mounts/store-2");
  mount.set_health(v1::HEALTH_UNREACHABLE);
  mount.set_stale(true);
  EXPECT_CALL(*connection_, GetMount).WillRepeatedly([&] { return mount; });
  EXPECT_CALL(*connection_, ConfirmMount).WillRepeatedly([&] { return mount; });
  EXPECT_EQ(Run({"mount", "confirm", "store-2"}), kExitDone);
  EXPECT_THAT(out_.str() + err_.str(), HasSubstr("the copy that is there is"));
  mount.set_stale(false);
  mount.set_health(v1::HEALTH_ONLINE);
  EXPECT_EQ(Run({"mount", "confirm", "store-2"}), kExitDone);
  EXPECT_THAT(out_.str() + err_.str(), HasSubstr("nothing to confirm"));
}

TEST_F(DegradedCommandsTest, RetireSaysWhatTheIndexDoesNotName) {
  v1::Mount mount;
  mount.set_name("mounts/store-3");
  mount.set_unconfirmed(true);
  EXPECT_CALL(*connection_, RetireMount).WillRepeatedly(Return(mount));
  EXPECT_CALL(*connection_, ExplainImpact).WillRepeatedly(Return(Impact(0)));
  v1::ListOrphansResponse files;
  for (int i = 0; i < 21; ++i) {
    v1::Orphan* const file = files.add_orphans();
    file->set_mount("mounts/store-3");
    file->set_image(absl::StrCat("images/", i, kDegradedImage));
    file->set_size_bytes(int64_t{1} << 30);
    file->set_detail("a whole image that the index does not know");
  }
  EXPECT_CALL(*connection_, ListOrphans)
      .WillOnce(Invoke([&](const v1::ListOrphansRequest& request) {
        EXPECT_EQ(request.mount(), "mounts/store-3");
        return files;
      }));
  const auto look = [&] {
    return Run(
        {"mount", "retire", "store-3", "--accept-unlisted", "--dry-run"});
  };
  EXPECT_EQ(look(), kExitDone);
  EXPECT_THAT(
      out_.str(),
      AllOf(HasSubstr("besides 21 files that the index does not name:\n"),
            HasSubstr(absl::StrCat("19", kDegradedImage)), HasSubstr("1G "),
            HasSubstr("and 1 more: predella orphan ls store-3"),
            ::testing::Not(HasSubstr(absl::StrCat("20", kDegradedImage)))));
  // Where nobody looked, nobody says that there is nothing.
  files.clear_orphans();
  files.add_unlisted("mounts/store-3");
  EXPECT_CALL(*connection_, ListOrphans).WillOnce(Return(files));
  EXPECT_EQ(look(), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("not known, store-3 was not compared"));
}

TEST_F(DegradedCommandsTest, FilesThatTheIndexDoesNotNameAreAcceptedByName) {
  EXPECT_CALL(*connection_, RetireMount)
      .WillOnce(Invoke([](const v1::RetireMountRequest& request) {
        EXPECT_TRUE(request.accept_unlisted());
        return MakeError(absl::StatusCode::kFailedPrecondition,
                         reason::kMountNotEmpty, "not accepted",
                         {{"image_count", "1"},
                          {"unnamed_count", "1"},
                          {"lost_digest", "0a1b"}});
      }));
  EXPECT_CALL(*connection_, ExplainImpact).WillOnce(Return(Impact(0)));
  v1::ListOrphansResponse files;
  v1::Orphan* const file = files.add_orphans();
  file->set_mount("mounts/store-3");
  file->set_image(std::string("images/") + kDegradedImage);
  EXPECT_CALL(*connection_, ListOrphans).WillOnce(Return(files));
  EXPECT_EQ(Run({"mount", "retire", "store-3", "--accept-unlisted", "--yes"}),
            kExitConflict);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("1 file that the index does not"),
                                HasSubstr(kDegradedImage)));
  EXPECT_THAT(err_.str(),
              AllOf(HasSubstr("1 of them files that the index does not name"),
                    HasSubstr("predella mount retire store-3 --accept-lost "
                              "1:0a1b --accept-unlisted --yes")));
}

TEST_F(DegradedCommandsTest, ANumberDoesNotSayWhichImagesAreLost) {
  EXPECT_CALL(*connection_, RetireMount).Times(0);
  EXPECT_CALL(*connection_, ReplaceMount).Times(0);
  for (const char* accept : {"12", "12:", "x", "-1:0a1b"}) {
    EXPECT_EQ(
        Run({"mount", "retire", "store-2", "--accept-lost", accept, "--yes"}),
        kExitUsage);
    EXPECT_THAT(err_.str(), HasSubstr("mount retire store-2 --dry-run"));
    EXPECT_EQ(
        Run({"mount", "replace", "store-2", "--accept-lost", accept, "--yes"}),
        kExitUsage);
    EXPECT_THAT(err_.str(), HasSubstr("mount replace store-2 --dry-run"));
  }
}

TEST_F(DegradedCommandsTest, OtherImagesThanTheAcceptedAreShown) {
  EXPECT_CALL(*connection_, ListOrphans)
      .WillOnce(Return(v1::ListOrphansResponse()));
  EXPECT_CALL(*connection_, ReplaceMount).WillOnce(Return(NotEmpty()));
  EXPECT_CALL(*connection_, ExplainImpact).WillOnce(Return(Impact(12)));
  EXPECT_EQ(Run({"mount", "replace", "store-2", "--new-uid", kDegradedImage,
                 "--accept-lost", "12:ffff", "--yes"}),
            kExitConflict);
  EXPECT_THAT(out_.str(), HasSubstr(kDegradedImage));
  EXPECT_THAT(err_.str(),
              AllOf(HasSubstr("not the 12:ffff that was accepted"),
                    HasSubstr(absl::StrCat(
                        "predella mount replace store-2 --accept-lost 12:0a1b "
                        "--new-uid ",
                        kDegradedImage, " --yes"))));
}

// An image with another copy is not lost, whether that one can be read now or
// not.
TEST_F(DegradedCommandsTest, RetireNamesOnlyWhatHasNoOtherCopy) {
  const auto id = [](int n) {
    return absl::StrCat("7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f", n);
  };
  v1::ExplainImpactResponse impact = Impact(3);
  impact.set_only_copy_count(1);
  impact.set_only_copy_bytes(int64_t{1} << 30);
  impact.clear_images();
  for (int n = 1; n <= 3; ++n) {
    v1::ImpactedImage* const image = impact.add_images();
    image->set_name("images/" + id(n));
    image->set_other_readable_copies(n == 1 ? 1 : 0);
  }
  EXPECT_CALL(*connection_, ListOrphans)
      .WillOnce(Return(v1::ListOrphansResponse()));
  EXPECT_CALL(*connection_, RetireMount).WillOnce(Return(NotEmpty()));
  EXPECT_CALL(*connection_, ExplainImpact)
      .WillOnce(Return(impact))
      .WillOnce(Return(impact));
  EXPECT_CALL(*connection_, GetImage)
      .WillRepeatedly(Invoke([&](const v1::GetImageRequest& request) {
        v1::Image image;
        image.set_name(request.name());
        image.add_copies()->set_mount("mounts/store-2");
        if (request.name() == "images/" + id(2)) {
          image.add_copies()->set_mount("mounts/store-3");  // absent now
        }
        return image;
      }));
  EXPECT_EQ(Run({"mount", "retire", "store-2", "--dry-run"}), kExitConflict);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("lost with store-2: 1 image, 1 GiB"),
                                HasSubstr(id(3)), Not(HasSubstr(id(1))),
                                Not(HasSubstr(id(2))), Not(HasSubstr("more"))));
}

TEST_F(DegradedCommandsTest, CordonSaysThatItEndsAMaintenance) {
  v1::Mount before;
  before.set_name("mounts/store-2");
  before.set_admin_state(v1::ADMIN_STATE_MAINTENANCE);
  before.mutable_maintenance_until_time()->set_seconds(4'000'000'000);
  v1::Mount after = before;
  after.set_admin_state(v1::ADMIN_STATE_CORDONED);
  EXPECT_CALL(*connection_, CordonMount).WillRepeatedly(Return(after));
  EXPECT_CALL(*connection_, GetMount)
      .WillOnce(Return(before))
      .WillOnce(Return(after));
  EXPECT_EQ(Run({"mount", "cordon", "store-2"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("its maintenance until "
                                    "2096-10-02T07:06:40Z ends"));
  EXPECT_EQ(Run({"mount", "cordon", "store-2"}), kExitDone);
  EXPECT_THAT(out_.str(), Not(HasSubstr("maintenance")));
}

TEST_F(DegradedCommandsTest, AnOrphanIsRemovedInTheGenerationThatWasSeen) {
  EXPECT_CALL(*connection_, RemoveOrphan).Times(0);
  EXPECT_CALL(*connection_, ListOrphans).Times(0);
  EXPECT_EQ(Run({"orphan", "rm", "store-2", kDegradedImage, "--yes"}),
            kExitUsage);
  for (const std::string generation : {"7-20-00000003", "none"}) {
    EXPECT_CALL(*connection_, RemoveOrphan)
        .WillOnce(Invoke([&](const v1::RemoveOrphanRequest& request) {
          EXPECT_EQ(request.generation(),
                    generation == "none" ? "" : generation);
          EXPECT_FALSE(request.validate_only());
          return v1::Orphan();
        }));
    EXPECT_EQ(Run({"orphan", "rm", "store-2", kDegradedImage, "--generation",
                   generation.c_str(), "--yes"}),
              kExitDone);
  }
}

TEST_F(DegradedCommandsTest, ReplaceWantsYesAndSaysTheNewIdentity) {
  EXPECT_CALL(*connection_, ReplaceMount).Times(0);
  EXPECT_EQ(Run({"mount", "replace", "store-2"}), kExitUsage);
  v1::Mount mount;
  mount.set_name("mounts/store-2");
  mount.set_uid(kDegradedImage);
  EXPECT_CALL(*connection_, ReplaceMount)
      .WillOnce(Invoke([&](const v1::ReplaceMountRequest& request) {
        EXPECT_EQ(request.new_uid(), kDegradedImage);
        EXPECT_EQ(request.accept_lost_image_count(), 3);
        EXPECT_EQ(request.accept_lost_digest(), "0a1b");
        EXPECT_FALSE(request.validate_only());
        return mount;
      }));
  EXPECT_EQ(Run({"mount", "replace", "store-2", "--new-uid", kDegradedImage,
                 "--accept-lost", "3:0a1b", "--yes"}),
            kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr(std::string("is now ") + kDegradedImage));
}

TEST_F(DegradedCommandsTest, AnEventNamesItsImage) {
  v1::ListEventsResponse list;
  for (const char* mount : {"mounts/store-2", ""}) {
    v1::Event* const event = list.add_events();
    event->set_id(mount);
    event->set_kind("copy_missing");
    event->set_mount(mount);
    event->set_image(std::string("images/") + kDegradedImage);
    event->set_detail("not there");
  }
  EXPECT_CALL(*connection_, ListEvents).WillRepeatedly(Return(list));
  EXPECT_EQ(Run({"events"}), kExitDone);
  EXPECT_EQ(out_.str(), absl::StrCat("- copy_missing ", kDegradedImage,
                                     " not there\n- copy_missing store-2 ",
                                     kDegradedImage, " not there\n"));
}

// One that was written late happened when it says.
TEST_F(DegradedCommandsTest, EventsAreInTheOrderOfTheirTime) {
  v1::ListEventsResponse list;
  for (const int seconds : {40, 10, 30, 30}) {
    v1::Event* const event = list.add_events();
    event->set_id(absl::StrCat(list.events_size()));
    event->set_kind(absl::StrCat("kind", list.events_size()));
    event->mutable_time()->set_seconds(seconds);
  }
  EXPECT_CALL(*connection_, ListEvents).WillRepeatedly(Return(list));
  for (const bool json : {false, true}) {
    EXPECT_EQ(json ? Run({"events", "-o", "json"}) : Run({"events"}),
              kExitDone);
    const std::string text = out_.str();
    size_t at[5] = {};
    for (int i = 1; i <= 4; ++i) {
      at[i] = text.find(absl::StrCat("kind", i));
      ASSERT_NE(at[i], std::string::npos);
    }
    // Lines end with the newest, JSON begins with it.
    EXPECT_EQ(at[1] < at[3], json);
    EXPECT_EQ(at[3] < at[4], json);
    EXPECT_EQ(at[4] < at[2], json);
  }
}

TEST_F(DegradedCommandsTest, EventsAreShownNewestLastAndFollowed) {
  v1::ListEventsResponse list;
  for (const char* id : {"02", "01"}) {
    v1::Event* const event = list.add_events();
    event->set_id(id);
    event->set_kind("mount_health_changed");
    event->set_mount("mounts/store-2");
    event->set_detail("ONLINE -> FAILED");
    event->set_error(std::string(id) == "02" ? "EIO" : "");
    event->set_affected_image_count(7);
  }
  EXPECT_CALL(*connection_, ListEvents).WillRepeatedly(Return(list));
  EXPECT_EQ(Run({"events", "--mount", "store-2"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "- mount_health_changed store-2 ONLINE -> FAILED (7 images)\n"
            "- mount_health_changed store-2 ONLINE -> FAILED [EIO] (7 "
            "images)\n");
  const auto say = [](const char* id, const char* kind) {
    v1::Event event;
    event.set_id(id);
    event.set_kind(kind);
    return event;
  };
  EXPECT_CALL(*connection_, WatchEvents)
      .WillOnce(Invoke([&](const v1::WatchEventsRequest& request,
                           const std::function<bool(const v1::Event&)>& event) {
        EXPECT_EQ(request.after(), "02");
        EXPECT_TRUE(event(say("03", "mount_retired")));
        EXPECT_TRUE(event(say("04", "mount_cordoned")));
        return absl::UnavailableError("the coordinator stops");
      }))
      .WillOnce(Invoke([](const v1::WatchEventsRequest& request,
                          const std::function<bool(const v1::Event&)>&) {
        EXPECT_EQ(request.after(), "04") << "none is missed, none comes twice";
        return absl::OkStatus();
      }));
  EXPECT_EQ(Run({"events", "--follow", "--kind", "mount_retired"}), kExitDone);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("mount_retired"),
                                Not(HasSubstr("mount_cordoned"))));
}

}  // namespace
}  // namespace predella::cli
