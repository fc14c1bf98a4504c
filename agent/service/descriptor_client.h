// One client of DescriptorServer, from its request to the end of its reading.
#ifndef PREDELLA_AGENT_SERVICE_DESCRIPTOR_CLIENT_H_
#define PREDELLA_AGENT_SERVICE_DESCRIPTOR_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "agent/control/agent_core.h"
#include "agent/control/descriptor_pipe.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/descriptor_socket.h"
#include "common/executor.h"

namespace predella::agent {

// What serves the clients.
class DescriptorLoop {
 public:
  virtual ~DescriptorLoop() = default;
  virtual AgentCore* core() = 0;
  virtual DescriptorPipe* pipe() = 0;
  // For the next file that is sent through the pipe.
  virtual uint64_t NextNumber() = 0;
  // From any thread: runs it on the loop's thread, or, when that has ended, in
  // its place.
  virtual void Post(std::function<void()> task) = 0;
  // On the loop's thread: the file that was sent with that number; not valid:
  // it could not come.
  virtual OwnedDescriptor Take(uint64_t number) = 0;
};

// For a request to come, or an answer to be taken.
inline constexpr absl::Duration kDescriptorPatience = absl::Seconds(10);

// ReadStream: its end is asked for where the mount hangs or goes away.
class DescriptorClient final
    : public ReadStream,
      public std::enable_shared_from_this<DescriptorClient> {
 public:
  DescriptorClient(std::shared_ptr<DescriptorLoop> loop, OwnedDescriptor socket)
      : loop_(std::move(loop)),
        strand_(loop_->core()->disk()),
        socket_(std::move(socket)) {}
  // The strand has let go of what it held; where it was shut down before, the
  // numbers of descriptors mean other files here, and are left alone.
  ~DescriptorClient() override;

  void Stalled(const absl::Status& why) override {
    loop_->Post([self = shared_from_this(), why] { self->Withdraw(why); });
  }

  // ---- on the loop's thread
  int socket() const { return socket_.get(); }
  bool closed() const { return state_ == State::kClosed; }
  // What to poll for.
  short events() const;
  void Handle(short seen);
  void Close();

 private:
  enum class State {
    kRequest,  // it comes
    kDisk,     // the file is being opened
    kAnswer,   // it goes, with the file or an error
    kHeld,     // the client has the file
    kClosed,
  };

  void Read();
  void Parse();
  void Write();
  void Answer(const absl::Status& status);
  void Opened(uint64_t number, std::string frame);
  void Withdraw(const absl::Status& why);
  // The disk's own descriptor of the file goes after this table's, which then
  // is not the last one: that may wait for the disk when the file was removed.
  void LetGo();

  // ---- on the strand
  void Open(const ReadGrant& grant, int64_t offset);
  absl::StatusOr<std::string> Pass(uint64_t number);

  const std::shared_ptr<DescriptorLoop>
      loop_;  // shared: a disk task may outlive it
  Strand strand_;

  // Of the loop's thread.
  OwnedDescriptor socket_;
  State state_ = State::kRequest;
  absl::Duration deadline_ = RealClock()->Boot() + kDescriptorPatience;
  std::string in_;
  std::string out_;
  size_t sent_ = 0;
  OwnedDescriptor file_;
  bool held_after_ = false;  // the answer bears the file

  // Of the strand: they hold descriptors of the disk threads.
  std::unique_ptr<ImageReader> reader_;
  std::shared_ptr<ImageStore> store_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_DESCRIPTOR_CLIENT_H_
