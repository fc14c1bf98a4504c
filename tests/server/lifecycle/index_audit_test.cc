// A check of the index against what agents list, in pages.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

FakeAgent::File StrayFile(int64_t bytes) {
  FakeAgent::File file;
  file.size_bytes = bytes;
  file.has_record = false;
  return file;
}

class IndexAuditTest : public LifecycleFixture {
 protected:
  struct Outcome {
    std::vector<v1::IndexFinding> findings;
    std::vector<std::string> compared;
    // Of the last page that named any.
    std::vector<std::string> awaited;
    int64_t rows = 0;
  };
  // All pages; ticks while listings are awaited, `patience` times.
  Outcome Check(bool index_only = false, int patience = 6, int page_size = 0) {
    Outcome out;
    v1::CheckIndexRequest request;
    request.set_index_only(index_only);
    request.set_page_size(page_size);
    do {
      const auto page = lifecycle_->index_audit().Check(request);
      EXPECT_OK(page);
      if (!page.ok()) {
        return out;
      }
      Settle();
      out.findings.insert(out.findings.end(), page->findings().begin(),
                          page->findings().end());
      out.compared.insert(out.compared.end(), page->compared().begin(),
                          page->compared().end());
      out.rows += page->row_count();
      if (page->awaited_size() > 0) {
        out.awaited.assign(page->awaited().begin(), page->awaited().end());
        if (--patience < 0) {
          return out;
        }
        Tick();
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return out;
  }
  // code:mount.
  static std::vector<std::string> Codes(const Outcome& outcome) {
    std::vector<std::string> codes;
    for (const v1::IndexFinding& finding : outcome.findings) {
      EXPECT_FALSE(finding.detail().empty());
      EXPECT_FALSE(finding.next_step().empty());
      codes.push_back(absl::StrCat(finding.code(), ":", finding.mount()));
    }
    return codes;
  }
};

TEST_F(IndexAuditTest, NothingIsFoundWhereNothingIsWrong) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  const Outcome outcome = Check();
  EXPECT_THAT(Codes(outcome), IsEmpty());
  EXPECT_THAT(outcome.compared, UnorderedElementsAre("mounts/a", "mounts/b"));
  EXPECT_GT(outcome.rows, 0);
}

// Without a restart, and without waiting for the next rescan.
TEST_F(IndexAuditTest, TheDirectoriesAreListedForIt) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid gone = ids_.NextUuid();
  const Uuid cut = ids_.NextUuid();
  const Uuid copied = ids_.NextUuid();
  const Uuid other = ids_.NextUuid();
  for (const Uuid& image : {gone, cut, copied, other}) {
    Upload(a, image, ids_.NextUuid());
  }
  Tick();
  Tick();
  EXPECT_THAT(Codes(Check()), IsEmpty());
  a->Take(gone);
  FakeAgent::File file = *a->file(cut);
  file.record_size_bytes = file.size_bytes;
  --file.size_bytes;
  a->Put(cut, file);
  b->Put(copied, *a->file(copied));
  file = *a->file(other);
  file.generation.set_n(file.generation.n() + 100);
  b->Put(other, file);
  b->Put(ids_.NextUuid(), StrayFile(5));
  b->Plant(ids_.NextUuid(), ids_.NextUuid(), file.generation);
  EXPECT_THAT(Codes(Check()),
              UnorderedElementsAre(
                  "COPY_MISSING:mounts/a", "COPY_DAMAGED:mounts/a",
                  "COPY_UNKNOWN:mounts/b", "GENERATION_DIFFERS:mounts/b",
                  "FILE_WITHOUT_RECORD:mounts/b", "FILE_UNKNOWN:mounts/b"));
  // In whatever pages.
  EXPECT_THAT(Codes(Check(false, 6, 1)), ::testing::SizeIs(6));
  // Nothing was repaired.
  EXPECT_TRUE(b->Has(copied));
  EXPECT_FALSE(a->Has(gone));
}

TEST_F(IndexAuditTest, WithoutListingsOnlyTheIndexIsLookedAt) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid gone = ids_.NextUuid();
  Upload(a, gone, ids_.NextUuid());
  Tick();
  a->Take(gone);
  const size_t before = a->commands().size();
  const Outcome outcome = Check(/*index_only=*/true);
  EXPECT_THAT(Codes(outcome), IsEmpty());
  EXPECT_THAT(outcome.compared, IsEmpty());
  EXPECT_EQ(a->commands().size(), before);
}

// Never silently left out.
TEST_F(IndexAuditTest, MountsThatCanNotBeComparedAreNamed) {
  AddConnected("a", 1);
  AddConnected("away", 2)->Lose();
  // Its agent is gone, too: that it hung is what an operator has to know.
  FakeAgent* const hung = AddConnected("hung", 3);
  Say(hung, v1::HEALTH_HUNG);
  hung->Lose();
  AddConnected("failing", 4)->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("readdir: EIO");
  });
  v1::RetireMountRequest retire;
  AddConnected("retired", 5)->Lose();
  retire.set_name("mounts/retired");
  Settle();
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  const Outcome outcome = Check();
  EXPECT_THAT(Codes(outcome),
              UnorderedElementsAre("MOUNT_NOT_COMPARED:mounts/away",
                                   "MOUNT_NOT_COMPARED:mounts/hung",
                                   "MOUNT_NOT_COMPARED:mounts/failing"));
  EXPECT_THAT(outcome.compared, ElementsAre("mounts/a"));
  for (const v1::IndexFinding& finding : outcome.findings) {
    EXPECT_THAT(finding.detail(),
                HasSubstr(finding.mount() == "mounts/away"   ? "not connected"
                          : finding.mount() == "mounts/hung" ? "HUNG"
                                                             : "readdir: EIO"));
  }
}

// One that was asked for before is not enough.
TEST_F(IndexAuditTest, AListingThatRunsIsWaitedForAndMadeAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  Tick();
  const Outcome outcome = Check(false, /*patience=*/2);
  EXPECT_THAT(outcome.awaited, ElementsAre("mounts/a"));
  EXPECT_THAT(outcome.compared, IsEmpty());
}

// Two who ask at once get one listing; who asks after it gets another.
TEST_F(IndexAuditTest, ASecondCheckJoinsTheListingsThatRun) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto listings = [&](FakeAgent* agent) {
    int count = 0;
    for (const control::v1::Command& command : agent->commands()) {
      count += command.has_list_mount() ? 1 : 0;
    }
    return count;
  };
  Tick();
  Tick();
  ASSERT_EQ(listings(a), 1);
  // b is listed for the first check when the second one begins.
  const auto begin = [&] {
    const auto page = lifecycle_->index_audit().Check({});
    EXPECT_OK(page);
    return page.ok() ? page->next_page_token() : "";
  };
  b->Behave([](FakeAgent::Behaviour* x) { x->ignore_commands = true; });
  const std::string first = begin();
  Settle();
  Tick();
  ASSERT_EQ(listings(a), 2);
  ASSERT_EQ(listings(b), 2);
  EXPECT_EQ(begin(), first);
  Settle();
  Tick();
  EXPECT_EQ(listings(a), 2);
  // Given up with its session, b is not waited for, and the round is over.
  b->Lose();
  Settle();
  EXPECT_NE(begin(), first);
  Settle();
  Tick();
  EXPECT_EQ(listings(a), 3);
}

TEST_F(IndexAuditTest, InRecoveringNoMountIsCompared) {
  FakeAgent* const a = AddConnected("a", 1);
  const auto old = kv_->Contents();
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  AddConnected("b", 2)->Lose();
  RestartFrom(old);
  Connect(a);
  ASSERT_TRUE(lifecycle_->trust().recovering());
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  const Outcome outcome = Check();
  ASSERT_THAT(Codes(outcome), ElementsAre("MOUNT_NOT_COMPARED:mounts/a"));
  EXPECT_THAT(outcome.findings[0].detail(), HasSubstr("RECOVERING"));
}

TEST_F(IndexAuditTest, ACheckDoesNotGoOnAfterARestart) {
  AddConnected("a", 1);
  v1::CheckIndexRequest request;
  ASSERT_OK_AND_ASSIGN(const v1::CheckIndexResponse page,
                       lifecycle_->index_audit().Check(request));
  Settle();
  Restart();
  request.set_page_token(page.next_page_token());
  EXPECT_THAT(lifecycle_->index_audit().Check(request),
              StatusIs(absl::StatusCode::kAborted));
  request.set_index_only(true);
  EXPECT_THAT(lifecycle_->index_audit().Check(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  request.Clear();
  request.set_page_size(-1);
  EXPECT_THAT(lifecycle_->index_audit().Check(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(IndexAuditTest, AFileThatCanNotBeReadIsSaidToBeThat) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid image = ids_.NextUuid();
  Upload(a, image, ids_.NextUuid());
  FakeAgent::File file = StrayFile(4096);
  file.read_error = "EACCES: open records/00/x";
  a->Put(image, file);
  a->Put(ids_.NextUuid(), file);
  file.read_error = "EIO: open records/00/x";
  a->Put(ids_.NextUuid(), file);
  const Outcome outcome = Check();
  EXPECT_THAT(Codes(outcome), UnorderedElementsAre("COPY_MISSING:mounts/a",
                                                   "FILE_UNREADABLE:mounts/a",
                                                   "FILE_UNREADABLE:mounts/a"));
  for (const v1::IndexFinding& finding : outcome.findings) {
    const bool disk = absl::StrContains(finding.detail(), "EIO: ");
    EXPECT_THAT(finding.detail(),
                AllOf(HasSubstr("could not be read"),
                      HasSubstr(disk ? "EIO: open" : "EACCES: open"),
                      Not(HasSubstr("without a record"))));
    if (finding.code() == "FILE_UNREADABLE") {
      EXPECT_EQ(
          finding.finding_class(),
          disk ? v1::FINDING_CLASS_ERROR : v1::FINDING_CLASS_ERROR_REPAIRABLE);
    } else {
      EXPECT_EQ(finding.finding_class(), v1::FINDING_CLASS_FATAL);
    }
    EXPECT_THAT(finding.next_step(), Not(HasSubstr("orphan rm")));
  }
}

// A disk that gives no record says nothing of what is there: the copy is not
// missing, and nobody is told to delete it for that.
TEST_F(IndexAuditTest, ACopyThatTheDiskDoesNotGiveIsNotMissing) {
  FakeAgent* const a = AddConnected("a", 1);
  std::vector<Uuid> images;
  for (int i = 0; i < 3; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
    FakeAgent::File file = StrayFile(i == 0 ? 0 : 300'000);
    file.read_error = "EIO: could not read records/00/x: Input/output error";
    a->Put(images.back(), file);
  }
  const Outcome outcome = Check();
  EXPECT_THAT(Codes(outcome), UnorderedElementsAre("COPY_DAMAGED:mounts/a",
                                                   "COPY_DAMAGED:mounts/a",
                                                   "COPY_DAMAGED:mounts/a"));
  for (const v1::IndexFinding& finding : outcome.findings) {
    EXPECT_THAT(finding.detail(), AllOf(HasSubstr("it can not be read: EIO"),
                                        Not(HasSubstr(" 0 bytes"))));
    EXPECT_EQ(absl::StrContains(finding.detail(), "300000 bytes"),
              finding.image() != "images/" + images[0].ToString());
    EXPECT_THAT(finding.next_step(), HasSubstr("a whole file may lie there"));
  }
  std::string codes;
  const v1::Cluster cluster = lifecycle_->cluster().Get();
  for (const v1::HealthCheck& check : cluster.checks()) {
    codes += check.code() + " ";
    if (check.code() == "COPIES_DAMAGED") {
      EXPECT_THAT(check.next_step(),
                  AllOf(HasSubstr("may be whole"),
                        Not(HasSubstr("or delete the images"))));
    }
  }
  EXPECT_THAT(codes, AllOf(HasSubstr("COPIES_DAMAGED"),
                           Not(HasSubstr("COPIES_MISSING")),
                           Not(HasSubstr("INVENTORY_SUSPICIOUS"))));
}

// The file may be the only whole copy: nothing advises to remove it.
TEST_F(IndexAuditTest, WhatMayBeNeededIsNotAdvisedToBeRemoved) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid whole = ids_.NextUuid();
  const Uuid damaged = ids_.NextUuid();
  Upload(a, whole, ids_.NextUuid());
  Upload(a, damaged, ids_.NextUuid());
  b->Put(whole, *a->file(whole));
  b->Put(damaged, *a->file(damaged));
  PutFault(damaged, a, storage::v1::COPY_FAULT_DAMAGED);
  std::string steps[3];
  for (const v1::IndexFinding& finding : Check().findings) {
    if (finding.code() == "COPY_UNKNOWN") {
      steps[finding.image() == "images/" + whole.ToString() ? 0 : 1] =
          finding.next_step();
    } else if (finding.code() == "COPY_DAMAGED") {
      steps[2] = finding.next_step();
    }
  }
  EXPECT_THAT(steps[2],
              AllOf(HasSubstr("orphan adopt b"), Not(HasSubstr("image rm"))));
  EXPECT_THAT(steps[0], AllOf(HasSubstr("predella image stat"),
                              HasSubstr("orphan rm"), HasSubstr("--dry-run")));
  EXPECT_THAT(steps[1], AllOf(HasSubstr("keep it"), HasSubstr("orphan adopt b"),
                              Not(HasSubstr("orphan rm"))));
}

}  // namespace
}  // namespace predella::testing
