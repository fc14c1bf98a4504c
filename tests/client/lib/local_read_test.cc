// Reading through the open file: the stream over a fake of it.
#include "client/internal/local_read.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/internal/local_image.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "tests/client/lib/open_image.h"
#include "tests/testing/matchers.h"

namespace predella::client_internal {
namespace {

using ::predella::testing::AnswerFor;
using ::predella::testing::HasReason;
using ::predella::testing::kBlock;
using ::predella::testing::kOpenGeneration;
using ::predella::testing::OpenBytes;
using ::predella::testing::StatusIs;

struct FakeFile {
  std::string bytes;
  v1::OpenImageResponse answer;
  std::atomic<bool> withdrawn{false};
  std::atomic<int> reads{0};
  // Called before each read, with its offset.
  std::function<void(int64_t)> on_read = [](int64_t) {};
};

class FakeImage final : public LocalImage {
 public:
  explicit FakeImage(std::shared_ptr<FakeFile> file) : file_(std::move(file)) {}
  const v1::OpenImageResponse& answer() const override { return file_->answer; }
  absl::StatusOr<size_t> Read(int64_t offset, size_t size, char* out) override {
    ++file_->reads;
    file_->on_read(offset);
    const std::string part =
        file_->bytes.substr(static_cast<size_t>(offset), size);
    std::copy(part.begin(), part.end(), out);
    return part.size();
  }
  bool Withdrawn() override { return file_->withdrawn; }

 private:
  const std::shared_ptr<FakeFile> file_;
};

class LocalReadTest : public ::testing::Test {
 protected:
  LocalReadTest() {
    file_->bytes = OpenBytes(10 * kBlock + 77);
    file_->answer = AnswerFor(file_->bytes);
  }
  std::unique_ptr<ReadStream> Start(int64_t offset, int64_t end) {
    return StartLocalRead(
        [file = file_] { return std::make_unique<FakeImage>(file); }, offset,
        end);
  }
  // All chunks, each with the checksum that it bears.
  static absl::Status ReadAll(ReadStream* stream, int64_t offset,
                              std::string* out) {
    ReadMessage message;
    absl::Status status;
    while (true) {
      switch (stream->Wait(absl::Seconds(20), &message, &status)) {
        case StreamEvent::kMessage:
          break;
        case StreamEvent::kEnd:
          return status;
        case StreamEvent::kTimeout:
          return absl::DeadlineExceededError("nothing came");
      }
      if (message.message.has_header()) {
        EXPECT_EQ(message.message.header().generation(), kOpenGeneration);
        continue;
      }
      std::string bytes;
      for (const grpc::Slice& slice : message.data) {
        bytes.append(reinterpret_cast<const char*>(slice.begin()),
                     slice.size());
      }
      EXPECT_EQ(message.message.chunk().offset(),
                offset + static_cast<int64_t>(out->size()));
      EXPECT_EQ(message.message.chunk().crc32c(), Crc32c(bytes));
      *out += bytes;
    }
  }

  // Shared with threads that outlive their stream.
  const std::shared_ptr<FakeFile> file_ = std::make_shared<FakeFile>();
};

TEST_F(LocalReadTest, RangesAreWhatTheyWere) {
  const auto size = static_cast<int64_t>(file_->bytes.size());
  const std::pair<int64_t, int64_t> kRanges[] = {{0, size},
                                                 {0, 1},
                                                 {kBlock - 1, kBlock + 1},
                                                 {kBlock, 2 * kBlock},
                                                 {5 * kBlock, size},
                                                 {size - 1, size},
                                                 {17, 4 * kBlock + 3}};
  for (const auto& [offset, end] : kRanges) {
    auto stream = Start(offset, end);
    std::string read;
    EXPECT_OK(ReadAll(stream.get(), offset, &read));
    EXPECT_TRUE(read == file_->bytes.substr(static_cast<size_t>(offset),
                                            static_cast<size_t>(end - offset)))
        << offset << " to " << end;
  }
}

TEST_F(LocalReadTest, APartOfADamagedBlockIsNotGiven) {
  file_->bytes[kBlock + 5] ^= 1;
  auto stream = Start(kBlock + 100, kBlock + 200);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), kBlock + 100, &read),
              HasReason(reason::kChecksumMismatch));
  EXPECT_EQ(read, "");
}

TEST_F(LocalReadTest, AWholeDamagedBlockBearsTheChecksumOfTheRecord) {
  const uint32_t want = file_->answer.block_crc32c(0);
  file_->bytes[3] ^= 1;
  auto stream = Start(0, kBlock);
  ReadMessage message;
  absl::Status status;
  do {
    ASSERT_EQ(stream->Wait(absl::Seconds(20), &message, &status),
              StreamEvent::kMessage);
  } while (!message.message.has_chunk());
  EXPECT_EQ(message.message.chunk().crc32c(), want);
}

TEST_F(LocalReadTest, AFileThatEndsEarlyIsDamaged) {
  file_->bytes.resize(2 * kBlock + 5);
  auto stream = Start(0, 4 * kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(read.size(), 2 * kBlock);
}

TEST_F(LocalReadTest, ATableOfAnotherSizeIsRefused) {
  file_->answer.mutable_block_crc32c()->RemoveLast();
  auto stream = Start(0, kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(file_->reads, 0);
}

TEST_F(LocalReadTest, WhatWasReadComesBeforeTheWithdrawal) {
  file_->on_read = [this](int64_t offset) {
    file_->withdrawn = offset == kBlock;
  };
  auto stream = Start(0, 5 * kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(read.size(), 2 * kBlock);
}

TEST_F(LocalReadTest, RunsOnlySoFarAheadAndEndsWithItsStream) {
  absl::Notification gone;
  absl::Notification ahead;
  struct Watch final : LocalImage {
    Watch(std::shared_ptr<FakeFile> file, absl::Notification* end)
        : image(std::move(file)), ended(end) {}
    ~Watch() override { ended->Notify(); }
    const v1::OpenImageResponse& answer() const override {
      return image.answer();
    }
    absl::StatusOr<size_t> Read(int64_t o, size_t s, char* b) override {
      return image.Read(o, s, b);
    }
    bool Withdrawn() override { return image.Withdrawn(); }
    FakeImage image;
    absl::Notification* ended;
  };
  file_->on_read = [&](int64_t offset) {
    if (offset == 7 * kBlock) {
      ahead.Notify();
    }
  };
  auto stream = StartLocalRead(
      [&] { return std::make_unique<Watch>(file_, &gone); }, 0, 10 * kBlock);
  ahead.WaitForNotification();
  // All buffers wait for the application, which takes none of them.
  EXPECT_EQ(file_->reads, 8);
  stream.reset();
  gone.WaitForNotification();
  EXPECT_EQ(file_->reads, 8);
}

TEST_F(LocalReadTest, ThreadsThatHangAreLeftBehindAndCounted) {
  absl::Notification go_on;
  std::atomic<int> hanging{0};
  std::atomic<int> ended{0};
  file_->on_read = [&](int64_t) {
    ++hanging;
    go_on.WaitForNotification();
    ++ended;
  };
  ReadMessage message;
  absl::Status status;
  for (int i = 0; i < kMostThreadsLeftBehind; ++i) {
    auto stream = Start(0, kBlock);
    ASSERT_NE(stream, nullptr);
    StreamEvent event = StreamEvent::kMessage;
    while (event == StreamEvent::kMessage) {  // the header
      event = stream->Wait(absl::Milliseconds(50), &message, &status);
    }
    EXPECT_EQ(event, StreamEvent::kTimeout);
  }
  EXPECT_EQ(Start(0, kBlock), nullptr);
  go_on.Notify();
  // They come back by and by, and count no more.
  std::unique_ptr<ReadStream> stream;
  while ((stream = Start(0, kBlock)) == nullptr) {
    std::this_thread::yield();
  }
  std::string read;
  EXPECT_OK(ReadAll(stream.get(), 0, &read));
  while (ended < hanging) {
    std::this_thread::yield();
  }
}

class LocalOfferTest : public LocalReadTest {
 protected:
  using Memory = std::shared_ptr<std::string>;

  static bool Offer(ReadStream* stream, int64_t offset, const Memory& memory) {
    return stream->Offer(offset, memory->data(), memory->size(), memory);
  }
  std::unique_ptr<ReadStream> Open(int64_t offset, int64_t end) {
    auto stream = StartLocalRead(
        [file = file_] { return std::make_unique<FakeImage>(file); }, offset,
        end,
        /*offers=*/true);
    ReadMessage header;
    absl::Status status;
    EXPECT_EQ(stream->Wait(absl::Seconds(20), &header, &status),
              StreamEvent::kMessage);
    return stream;
  }
};

TEST_F(LocalOfferTest, BlocksComeWhereTheyWereOffered) {
  const auto size = static_cast<int64_t>(file_->bytes.size());
  auto stream = Open(0, size);
  std::vector<Memory> memory;
  for (int64_t at = 0; at < size; at += kBlock) {
    memory.push_back(std::make_shared<std::string>(
        static_cast<size_t>(std::min(kBlock, size - at)), '\0'));
    EXPECT_TRUE(Offer(stream.get(), at, memory.back()));
  }
  ReadMessage message;
  absl::Status status;
  for (const Memory& one : memory) {
    ASSERT_EQ(stream->Wait(absl::Seconds(20), &message, &status),
              StreamEvent::kMessage);
    ASSERT_EQ(message.data.size(), 1);
    EXPECT_EQ(static_cast<const void*>(message.data[0].begin()), one->data());
    EXPECT_EQ(message.data[0].size(), one->size());
    EXPECT_TRUE(*one ==
                file_->bytes.substr(
                    static_cast<size_t>(message.message.chunk().offset()),
                    one->size()));
  }
  message.data.clear();
  stream.reset();
  for (const Memory& one : memory) {
    EXPECT_EQ(one.use_count(), 1);
  }
}

TEST_F(LocalOfferTest, WhereNothingWasOfferedItIsReadAllTheSame) {
  const auto size = static_cast<int64_t>(file_->bytes.size());
  auto stream = Open(0, size);
  auto third = std::make_shared<std::string>(kBlock, '\0');
  EXPECT_TRUE(Offer(stream.get(), 2 * kBlock, third));
  std::string read;
  EXPECT_OK(ReadAll(stream.get(), 0, &read));
  EXPECT_TRUE(read == file_->bytes);
  EXPECT_TRUE(*third == file_->bytes.substr(2 * kBlock, kBlock));
}

TEST_F(LocalOfferTest, OnlyWholeBlocksOfTheRangeAreTaken) {
  auto stream = Open(kBlock + 5, 3 * kBlock + 9);
  auto whole = std::make_shared<std::string>(kBlock, '\0');
  auto part = std::make_shared<std::string>(9, '\0');
  EXPECT_FALSE(Offer(stream.get(), 0, whole));       // not of the range
  EXPECT_FALSE(Offer(stream.get(), kBlock, whole));  // nor all of this one
  EXPECT_FALSE(Offer(stream.get(), 2 * kBlock + 1, whole));
  EXPECT_FALSE(Offer(stream.get(), 2 * kBlock, part));
  EXPECT_FALSE(Offer(stream.get(), 3 * kBlock, part));   // not all of it
  EXPECT_FALSE(Offer(stream.get(), 3 * kBlock, whole));  // more than is read
  EXPECT_TRUE(Offer(stream.get(), 2 * kBlock, whole));
  std::string read;
  EXPECT_OK(ReadAll(stream.get(), kBlock + 5, &read));
  EXPECT_TRUE(read == file_->bytes.substr(kBlock + 5, 2 * kBlock + 4));
  EXPECT_FALSE(Offer(stream.get(), 2 * kBlock, whole));  // it is over
}

TEST_F(LocalOfferTest, AThreadThatHangsKeepsTheMemory) {
  absl::Notification go_on;
  file_->on_read = [&](int64_t) { go_on.WaitForNotification(); };
  auto stream = Open(0, kBlock);
  auto memory = std::make_shared<std::string>(kBlock, '\0');
  const std::weak_ptr<std::string> watched = memory;
  EXPECT_TRUE(Offer(stream.get(), 0, memory));
  memory = nullptr;
  ReadMessage message;
  absl::Status status;
  EXPECT_EQ(stream->Wait(absl::Milliseconds(50), &message, &status),
            StreamEvent::kTimeout);
  stream.reset();
  EXPECT_FALSE(watched.expired());
  go_on.Notify();
  while (!watched.expired()) {
    std::this_thread::yield();
  }
}

}  // namespace
}  // namespace predella::client_internal
