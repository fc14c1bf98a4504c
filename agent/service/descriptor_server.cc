#include "agent/service/descriptor_server.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "agent/service/descriptor_client.h"
#include "agent/service/network.h"
#include "common/clock.h"
#include "common/descriptor_socket.h"
#include "common/errors.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// How often clients' deadlines are looked at, and when accepting is tried again
// after there was no room for another descriptor.
constexpr int kLookMillis = 1000;

}  // namespace

class DescriptorServer::Loop final : public DescriptorLoop,
                                     public std::enable_shared_from_this<Loop> {
 public:
  Loop(AgentCore* core, DescriptorPipe* pipe) : core_(core), pipe_(pipe) {}

  AgentCore* core() override { return core_; }
  DescriptorPipe* pipe() override { return pipe_; }
  uint64_t NextNumber() override { return ++last_number_; }
  void Post(std::function<void()> task) override ABSL_LOCKS_EXCLUDED(mu_);
  OwnedDescriptor Take(uint64_t number) override;

  absl::Status Listen(const std::vector<Address>& listen);
  void Run();
  void Stop(absl::Duration grace);

 private:
  using Clients = std::vector<std::shared_ptr<DescriptorClient>>;

  void RunTasks() ABSL_LOCKS_EXCLUDED(mu_);
  bool Over() ABSL_LOCKS_EXCLUDED(mu_);
  void Accept(int listener);

  AgentCore* const core_;
  DescriptorPipe* const pipe_;
  OwnedDescriptor wake_;
  std::atomic<uint64_t> last_number_{0};

  // Of the loop's thread.
  std::vector<OwnedDescriptor> listeners_;
  std::vector<std::string> paths_;
  Clients clients_;
  std::map<uint64_t, OwnedDescriptor> arrived_;
  bool full_ = false;  // no room for another descriptor, as of the last look

  Mutex mu_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration stop_at_ ABSL_GUARDED_BY(mu_);
};

absl::Status DescriptorServer::Loop::Listen(
    const std::vector<Address>& listen) {
  wake_ = OwnedDescriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "this process has no room for another descriptor");
  }
  for (const Address& address : listen) {
    if (address.unix_socket) {
      const std::string path = DescriptorSocketOf(address.path);
      ASSIGN_OR_RETURN(OwnedDescriptor listener, ListenForDescriptors(path));
      listeners_.push_back(std::move(listener));
      paths_.push_back(path);
    }
  }
  return absl::OkStatus();
}

void DescriptorServer::Loop::Post(std::function<void()> task) {
  // A disk thread has another table: the number to wake by is none of its own.
  OnNetwork([self = shared_from_this(), task = std::move(task)]() mutable {
    {
      MutexLock lock(&self->mu_);
      if (self->ended_) {
        task();  // which posts nothing here any more: all is closed
        return;
      }
      self->tasks_.push_back(std::move(task));
    }
    static_cast<void>(eventfd_write(self->wake_.get(), 1));  // full wakes too
  });
}

void DescriptorServer::Loop::RunTasks() {
  eventfd_t value = 0;
  static_cast<void>(eventfd_read(wake_.get(), &value));  // empty is fine
  std::deque<std::function<void()>> tasks;
  {
    MutexLock lock(&mu_);
    tasks.swap(tasks_);
  }
  for (const auto& task : tasks) {
    task();
  }
}

OwnedDescriptor DescriptorServer::Loop::Take(uint64_t number) {
  while (arrived_.find(number) == arrived_.end()) {
    absl::StatusOr<DescriptorPipe::Passed> passed = pipe_->Receive();
    if (!passed.ok()) {
      return OwnedDescriptor();
    }
    arrived_[passed->number] = std::move(passed->descriptor);
  }
  OwnedDescriptor found = std::move(arrived_[number]);
  arrived_.erase(number);
  return found;
}

void DescriptorServer::Loop::Accept(int listener) {
  while (clients_.size() < static_cast<size_t>(kMostClients)) {
    absl::StatusOr<OwnedDescriptor> socket = AcceptOne(listener);
    if (!socket.ok()) {
      full_ = true;
      return;
    }
    if (!socket->valid()) {
      return;
    }
    clients_.push_back(std::make_shared<DescriptorClient>(shared_from_this(),
                                                          *std::move(socket)));
  }
  // Sent away at once: it has another way to read.
  static_cast<void>(AcceptOne(listener));
}

bool DescriptorServer::Loop::Over() {
  MutexLock lock(&mu_);
  return stopping_ && (clients_.empty() || RealClock()->Boot() >= stop_at_);
}

void DescriptorServer::Loop::Run() {
  pthread_setname_np(pthread_self(), "descriptors");
  while (!Over()) {
    std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
    bool stopping = false;
    {
      MutexLock lock(&mu_);
      stopping = stopping_;
    }
    const size_t listeners = full_ || stopping ? 0 : listeners_.size();
    for (size_t i = 0; i < listeners; ++i) {
      polled.push_back({listeners_[i].get(), POLLIN, 0});
    }
    const Clients clients = clients_;
    for (const auto& client : clients) {
      polled.push_back({client->socket(), client->events(), 0});
    }
    const bool look = full_ || stopping || !clients.empty();
    // An error of it shows nothing of any of them.
    poll(polled.data(), polled.size(), look ? kLookMillis : -1);
    full_ = false;
    RunTasks();
    for (size_t i = 0; i < clients.size(); ++i) {
      if (!clients[i]->closed()) {
        clients[i]->Handle(polled[1 + listeners + i].revents);
      }
    }
    for (size_t i = 0; i < listeners; ++i) {
      if (polled[1 + i].revents != 0) {
        Accept(listeners_[i].get());
      }
    }
    std::erase_if(clients_, [](const auto& c) { return c->closed(); });
  }
  for (const auto& client : std::exchange(clients_, {})) {
    client->Close();
  }
  listeners_.clear();
  for (const std::string& path : paths_) {
    unlink(path.c_str());
  }
  MutexLock lock(&mu_);
  ended_ = true;
  for (const auto& task : std::exchange(tasks_, {})) {
    task();
  }
}

void DescriptorServer::Loop::Stop(absl::Duration grace) {
  {
    MutexLock lock(&mu_);
    if (!stopping_) {
      stopping_ = true;
      stop_at_ = RealClock()->Boot() + grace;
    }
  }
  Post([] {});
}

DescriptorServer::DescriptorServer(std::shared_ptr<Loop> loop)
    : loop_(std::move(loop)), thread_([loop = loop_] { loop->Run(); }) {}

absl::StatusOr<std::unique_ptr<DescriptorServer>> DescriptorServer::Start(
    AgentCore* core, DescriptorPipe* pipe, const std::vector<Address>& listen) {
  StartNetworkThreads();
  auto loop = std::make_shared<Loop>(core, pipe);
  RETURN_IF_ERROR(loop->Listen(listen));
  return std::unique_ptr<DescriptorServer>(
      new DescriptorServer(std::move(loop)));
}

void DescriptorServer::Shutdown(absl::Duration grace) {
  loop_->Stop(grace);
  if (thread_.joinable()) {
    thread_.join();
  }
}

DescriptorServer::~DescriptorServer() { Shutdown(absl::ZeroDuration()); }

}  // namespace predella::agent
