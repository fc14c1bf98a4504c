// Listings and their digests, step by step on a disk thread.
#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/control/agent_core.h"
#include "agent/fs/errno_status.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/errors.h"
#include "common/listing_digest.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class AgentInventoryTest : public CoreTest {
 protected:
  AgentInventoryTest() { fs.SetMountId(31); }

  static control::v1::Command List(bool digest_only) {
    control::v1::Command command;
    command.mutable_list_mount()->set_listing_id("listing");
    command.mutable_list_mount()->set_digest_only(digest_only);
    return command;
  }
  // Without running anything.
  void Send(control::v1::Command command) {
    command.set_number(++number);
    control::v1::CoordinatorMessage message;
    *message.mutable_command() = std::move(command);
    core.OnMessage(session, message);
  }
  void Store() {
    upload_id = ids.NextUuid();
    image_id = ids.NextUuid();
    ++generation.n;
    Prepare(kBlockBytes);
    FakeStream* stream = nullptr;
    const auto handle = OpenStream(&stream);
    Write(handle, 0, kBlockBytes);
    Commit(handle, kBlockBytes);
    AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
    images.push_back(image_id);
  }
  std::string Record(const Uuid& image) {
    return ".predella/records/" + image.ToString().substr(0, 2) + "/" +
           image.ToString();
  }
  std::string Digest() {
    Command(List(/*digest_only=*/true));
    EXPECT_FALSE(Result()->has_error()) << Result()->error().message();
    EXPECT_EQ(Result()->listing_digest().digest().size(), 16u);
    return Result()->listing_digest().SerializeAsString();
  }
  // Of what the coordinator is told by a whole listing.
  std::string DigestOfListing() {
    link->inventory = std::make_shared<FakeInventory>();
    Command(List(/*digest_only=*/false));
    EXPECT_FALSE(Result()->has_error()) << Result()->error().message();
    EXPECT_FALSE(Result()->has_listing_digest());
    ListingSum sum;
    for (const auto& part : link->inventory->parts) {
      for (const auto& entry : part.entries()) {
        sum.Add(entry);
      }
    }
    return sum.ToProto().SerializeAsString();
  }
  // The next call of `op` below `path` is interrupted so.
  void During(const std::string& op, const std::string& path,
              std::function<void()> what) {
    testing::Fault fault;
    fault.op = op;
    fault.path = path;
    fault.status = absl::OkStatus();
    fault.perform = true;
    fault.during = std::move(what);
    fs.Inject(fault);
  }

  std::vector<Uuid> images;
};

TEST_F(AgentInventoryTest, HelloSaysThatDigestsAreMade) {
  Register();
  const control::v1::AgentMessage* hello =
      Last([](const control::v1::AgentMessage& m) { return m.has_hello(); });
  ASSERT_NE(hello, nullptr);
  EXPECT_THAT(hello->hello().capabilities(),
              Contains(std::string(kListingDigestCapability)));
}

TEST_F(AgentInventoryTest, TheDigestIsThatOfTheListingAndNothingIsReported) {
  Register();
  const std::string empty = Digest();
  Store();
  Store();
  EXPECT_TRUE(link->inventory->parts.empty());
  EXPECT_EQ(Result()->listing_digest().images(), 0) << "of the last that asked";
  const std::string two = Digest();
  EXPECT_EQ(Result()->listing_digest().images(), 2);
  EXPECT_NE(two, empty);
  EXPECT_EQ(two, DigestOfListing());
  // An upload that is under way is no part of it.
  upload_id = ids.NextUuid();
  image_id = ids.NextUuid();
  Prepare(kBlockBytes);
  FakeStream* stream = nullptr;
  Write(OpenStream(&stream), 0, kBlockBytes);
  EXPECT_EQ(Digest(), two);
}

// Whatever the coordinator would be told: another digest.
TEST_F(AgentInventoryTest, WhatIsDamagedOrUnknownChangesTheDigest) {
  Register();
  for (int i = 0; i < 3; ++i) {
    Store();
  }
  testing::MemFileSystem whole;
  whole.CloneFrom(&mem);
  const std::string before = Digest();
  const std::string name = images[1].ToString();
  const std::string record = Record(images[1]);
  const std::string content = *mem.GetFile(name);
  const std::string header = *mem.GetFile(record);
  const std::string stranger = ids.NextUuid().ToString();
  const auto refuse = [&](const std::string& op, const std::string& path) {
    testing::Fault fault;
    fault.op = op;
    fault.path = path;
    fault.status = absl::PermissionDeniedError("not for you");
    fault.forever = true;
    fs.Inject(fault);
  };
  const struct {
    const char* what;
    std::function<void()> change;
  } kCases[] = {
      {"a file is gone", [&] { ASSERT_OK(mem.Unlink(name)); }},
      {"a file is shorter",
       [&] { ASSERT_OK(mem.PutFile(name, content.substr(1))); }},
      {"a file is empty", [&] { ASSERT_OK(mem.PutFile(name, "")); }},
      {"a record is gone", [&] { ASSERT_OK(mem.Unlink(record)); }},
      {"a record is empty", [&] { ASSERT_OK(mem.PutFile(record, "")); }},
      {"a record is cut",
       [&] { ASSERT_OK(mem.PutFile(record, header.substr(0, 100))); }},
      {"a bit of a record", [&] { ASSERT_OK(mem.FlipByte(record, 40)); }},
      {"another image's record",
       [&] {
         ASSERT_OK(mem.PutFile(record, *mem.GetFile(Record(images[0]))));
       }},
      {"a record that may not be read", [&] { refuse("open", record); }},
      {"a name that may not be looked at", [&] { refuse("stat", name); }},
      {"a file that may not be read",
       [&] {
         const auto file = mem.Open(name, OpenMode::kReadWrite);
         ASSERT_OK(file.status());
         ASSERT_OK((*file)->SetOwnership(0, std::nullopt));
       }},
      {"a directory in its place",
       [&] {
         ASSERT_OK(mem.Unlink(name));
         ASSERT_OK(mem.Mkdir(name, 0700));
       }},
      {"a stranger", [&] { ASSERT_OK(mem.PutFile(stranger, "a")); }},
      {"a stranger of another size",
       [&] { ASSERT_OK(mem.PutFile(stranger, "ab")); }},
      {"a stranger that is a directory",
       [&] { ASSERT_OK(mem.Mkdir(stranger, 0700)); }},
  };
  std::vector<std::string> seen = {before};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.what);
    c.change();
    const std::string after = Digest();
    EXPECT_NE(after, before);
    EXPECT_EQ(after, DigestOfListing());
    fs.Reset();
    mem.CloneFrom(&whole);
    EXPECT_EQ(Digest(), before) << "as it was, whatever happened between";
  }
  // Told apart from each other where the listing tells them apart.
  ASSERT_OK(mem.PutFile(stranger, "a"));
  const std::string one = Digest();
  ASSERT_OK(mem.PutFile(stranger, "ab"));
  EXPECT_NE(Digest(), one);
}

TEST_F(AgentInventoryTest, ADirectoryThatCannotBeReadFailsIt) {
  Register();
  Store();
  for (const char* path : {"", ".predella/records/7f"}) {
    for (const bool digest_only : {true, false}) {
      testing::Fault fault;
      fault.op = "list";
      fault.path = path;
      fault.status = MakeError(absl::StatusCode::kUnavailable,
                               reason::kMountFailed, "Input/output error");
      fault.forever = true;
      fs.Inject(fault);
      Command(List(digest_only));
      EXPECT_EQ(Result()->number(), number);
      EXPECT_TRUE(Result()->has_error());
      EXPECT_FALSE(Result()->has_listing_digest());
      fs.Reset();
    }
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_SUSPECT) << "as of any call";
  EXPECT_FALSE(Digest().empty()) << "and the next one is made";
}

// Names lie in the root: what one of 256 directories keeps back takes none of
// them away, nor any other directory's records.
TEST_F(AgentInventoryTest, OneDirectoryOfRecordsKeepsNoMountFromBeingListed) {
  Register();
  Store();
  Store();
  const std::string directory = layout::ShardPathOf(images[0]);
  ASSERT_NE(directory, layout::ShardPathOf(images[1]));
  const std::string whole = Digest();
  const auto listed = [&] {
    link->inventory = std::make_shared<FakeInventory>();
    Command(List(/*digest_only=*/false));
    EXPECT_FALSE(Result()->has_error()) << Result()->error().message();
    std::map<std::string, control::v1::InventoryEntry> out;
    for (const auto& part : link->inventory->parts) {
      for (const auto& entry : part.entries()) {
        out[entry.image_id()] = entry;
      }
    }
    return out;
  };
  for (const bool all_of_it : {false, true}) {
    for (const int error : {EACCES, EIO}) {
      SCOPED_TRACE(absl::StrCat(all_of_it, " ", error));
      testing::Fault fault;
      fault.op = all_of_it ? "" : "list";
      fault.path = directory;
      fault.status = ErrnoStatus(error, "look at it");
      fault.forever = true;
      fs.Inject(fault);
      if (error == EIO) {
        // The mount's first, as one of any other call.
        Command(List(/*digest_only=*/true));
        EXPECT_TRUE(Result()->has_error());
        EXPECT_THAT(Result()->error().message(),
                    HasSubstr(all_of_it ? "2 files" : directory));
        EXPECT_EQ(core.View().health, v1::HEALTH_SUSPECT);
        fs.Reset();  // the checks of its place are not what is tried here
        for (int i = 0; i < 60; ++i) {
          Tick();
        }
        fs.Inject(fault);
      }
      const auto seen = listed();
      EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
      ASSERT_EQ(seen.size(), 2u) << "each by its name";
      EXPECT_TRUE(seen.at(images[1].bytes()).has_record());
      const auto& kept_back = seen.at(images[0].bytes());
      EXPECT_TRUE(kept_back.named());
      EXPECT_EQ(kept_back.has_record(), !all_of_it);
      EXPECT_EQ(kept_back.read_error().empty(), !all_of_it);
      if (error == EACCES) {
        EXPECT_EQ(Digest() == whole, !all_of_it);
      }
      EXPECT_THAT(*opened.lock()->ListIds(), ::testing::SizeIs(2))
          << "for the scrub";
      // Nothing is said to be removed there without a word.
      EXPECT_EQ(opened.lock()
                    ->Remove(images[0], Generation{9, 9, 9}, ids.NextUuid())
                    .ok(),
                !all_of_it);
      fs.Reset();
      EXPECT_EQ(listed().at(images[0].bytes()).has_record(), true);
      EXPECT_EQ(Digest(), whole);
    }
  }
  // One that is missing, or another thing, is the mount's.
  for (const int error : {ENOENT, ENOTDIR}) {
    testing::Fault fault;
    fault.op = "list";
    fault.path = directory;
    fault.status = ErrnoStatus(error, "look at it");
    fs.Inject(fault);
    Command(List(/*digest_only=*/true));
    EXPECT_TRUE(Result()->has_error());
  }
}

TEST_F(AgentInventoryTest, WhatIsPublishedMeanwhileIsToldAlsoThere) {
  Register();
  Store();
  const std::string name = images[0].ToString();
  const std::string content = *mem.GetFile(name);
  const std::string whole = Digest();
  ASSERT_OK(mem.Unlink(name));  // as if it were still to come
  testing::Fault fault;
  fault.op = "list";
  fault.path = layout::ShardPathOf(images[0]);
  fault.status = ErrnoStatus(EACCES, "list it");
  fault.forever = true;
  fault.during = [&] { ASSERT_OK(mem.PutFile(name, content)); };
  fs.Inject(fault);
  EXPECT_EQ(Digest(), whole);
  EXPECT_EQ(Digest(), whole) << "and once, where it was there all the time";
}

// As an error of any other call, and what was read beside it is not the whole;
// but one bad sector does not keep its mount from being listed.
TEST_F(AgentInventoryTest, AnErrorOfTheDiskAtOneFileIsTheMountsFirst) {
  Register();
  Store();
  Store();
  for (const bool digest_only : {true, false}) {
    for (const std::string& path : {Record(images[0]), images[0].ToString()}) {
      SCOPED_TRACE(path);
      fs.Reset();
      ASSERT_FALSE(Digest().empty());
      for (int i = 0; i < 60; ++i) {
        Tick();
      }
      ASSERT_EQ(core.View().health, v1::HEALTH_ONLINE);
      testing::Fault fault;
      fault.path = path;
      fault.status = ErrnoStatus(EIO, "look at it");
      fault.forever = true;
      fs.Inject(fault);
      Command(List(digest_only));
      ASSERT_TRUE(Result()->has_error());
      EXPECT_THAT(Result()->error().message(),
                  AllOf(HasSubstr("1 files could not be read"),
                        HasSubstr(images[0].ToString())));
      EXPECT_EQ(core.View().health, v1::HEALTH_SUSPECT);
      EXPECT_EQ(core.View().error, "EIO");
      // Nor as long as no probe says that it is not all of the mount.
      Command(List(digest_only));
      EXPECT_TRUE(Result()->has_error());
      for (int i = 0; i < 60; ++i) {
        Tick();
      }
      ASSERT_EQ(core.View().health, v1::HEALTH_ONLINE) << "the probes are good";
      link->inventory = std::make_shared<FakeInventory>();
      Command(List(/*digest_only=*/false));
      EXPECT_FALSE(Result()->has_error()) << Result()->error().message();
      EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE) << "it says nothing new";
      ASSERT_EQ(link->inventory->parts.size(), 1u);
      int unreadable = 0;
      for (const auto& entry : link->inventory->parts[0].entries()) {
        if (entry.image_id() == images[0].bytes()) {
          ++unreadable;
          EXPECT_TRUE(entry.named());
          EXPECT_FALSE(entry.has_record());
          EXPECT_THAT(entry.read_error(), HasSubstr("EIO: "));
          EXPECT_EQ(entry.size_bytes(),
                    path == images[0].ToString() ? 0 : kBlockBytes)
              << "as far as it is known";
        }
      }
      EXPECT_EQ(unreadable, 1);
    }
  }
}

// A record without a name is nobody's, and an error of the disk all the same.
TEST_F(AgentInventoryTest, AnErrorAtARecordWithoutANameCountsToo) {
  Register();
  Store();
  ASSERT_OK(mem.Unlink(images[0].ToString()));
  testing::Fault fault;
  fault.path = Record(images[0]);
  fault.status = ErrnoStatus(EIO, "look at it");
  fault.forever = true;
  fs.Inject(fault);
  Command(List(/*digest_only=*/true));
  EXPECT_TRUE(Result()->has_error());
  EXPECT_EQ(core.View().health, v1::HEALTH_SUSPECT);
}

TEST_F(AgentInventoryTest, ItRunsAtIdlePriorityAndOthersGoBetween) {
  Register();
  Store();
  for (int i = 0; i < 500; ++i) {
    ASSERT_OK(mem.PutFile(ids.NextUuid().ToString(), "whose is this"));
  }
  bool idle = false;
  During("list", "", [&] { idle = idle_io; });
  Send(List(/*digest_only=*/true));
  const int64_t listing = number;
  ASSERT_TRUE(disk.RunOne());
  EXPECT_TRUE(idle);
  EXPECT_FALSE(idle_io) << "what comes next on this thread is not idle";
  // Asked for while it runs, and done before it.
  control::v1::Command drop;
  drop.mutable_drop_tombstones();
  Send(drop);
  int steps = 0;
  while (Result() == nullptr || Result()->number() != number) {
    ASSERT_TRUE(disk.RunOne());
    ASSERT_LT(++steps, 5) << "others wait for the listing";
    EXPECT_FALSE(idle_io);
  }
  int64_t before = fs.calls();
  while (disk.RunOne()) {
    EXPECT_LE(fs.calls() - before, 300) << "of one step";
    before = fs.calls();
  }
  EXPECT_EQ(Result()->number(), listing);
  EXPECT_EQ(Result()->listing_digest().images(), 501);
}

TEST_F(AgentInventoryTest, ItEndsWithItsSession) {
  Register();
  for (int i = 0; i < 500; ++i) {
    ASSERT_OK(mem.PutFile(ids.NextUuid().ToString(), "whose is this"));
  }
  Send(List(/*digest_only=*/false));
  ASSERT_TRUE(disk.RunOne());
  core.OnDisconnected(session);
  fs.Trace(true);
  Run();
  EXPECT_TRUE(fs.trace().empty()) << "nobody reads on for nobody";
}

// A part of a listing is never taken for the whole.
TEST_F(AgentInventoryTest, ACallThatEndsBeforeItIsAnError) {
  Register();
  for (int i = 0; i < 2500; ++i) {
    ASSERT_OK(mem.PutFile(ids.NextUuid().ToString(), ""));
  }
  link->inventory->broken_at = 1;
  Command(List(/*digest_only=*/false));
  EXPECT_EQ(link->inventory->parts.size(), 1u);
  EXPECT_TRUE(Result()->has_error());
}

// The mount was let go while a listing hung in it: what comes back late says
// nothing of the listing of the next one.
TEST_F(AgentInventoryTest, ALateListingDoesNotEndTheNextOne) {
  Register();
  const int64_t first = number + 1;
  During("list", "", [&] {
    core.OnMountSeen({looks, 31, "tmpfs none on /mem"});
    core.OnMountSeen({looks, 22, "ext4 /dev/sda1 on /"});
    other_mem.CloneFrom(&mem);
    root = &other_mem;
    core.OnMountSeen({looks, 40, "tmpfs none on /mem"});
    Tick();
    Register();
    Send(List(/*digest_only=*/true));
  });
  Send(List(/*digest_only=*/true));
  ASSERT_TRUE(disk.RunOne());
  ASSERT_EQ(root, &other_mem);
  const int64_t second = number;
  ASSERT_EQ(second, first + 1);
  ASSERT_TRUE(disk.RunOne()) << "a step of the second one";
  // The first one ends, at its next step at the latest.
  ASSERT_TRUE(disk.RunOne());
  Send(List(/*digest_only=*/true));
  ASSERT_NE(Result(), nullptr);
  EXPECT_EQ(Result()->number(), number) << "the second one still runs";
  EXPECT_TRUE(Result()->has_error());
  Run();
  EXPECT_EQ(Result()->number(), second);
  EXPECT_FALSE(Result()->has_error());
}

// One at a time, and not at the cost of a minute for whoever comes next.
TEST_F(AgentInventoryTest, TheListingOfASessionThatEndedMakesRoom) {
  Register();
  Store();
  During("list", "", [&] {
    Register();
    Send(List(/*digest_only=*/true));
  });
  Send(List(/*digest_only=*/true));
  Run();
  ASSERT_NE(Result(), nullptr);
  EXPECT_EQ(Result()->number(), number);
  EXPECT_FALSE(Result()->has_error());
  EXPECT_EQ(Result()->listing_digest().images(), 1);
}

}  // namespace
}  // namespace predella::agent
