#include "agent/agent.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/posix_file_system.h"
#include "agent/fs/watched_file_system.h"
#include "agent/scrub/idle_io.h"
#include "agent/service/network.h"
#include "agent/store/image_store.h"
#include "common/config/service_manager.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(250);
// A task that has not come back by then hangs.
constexpr std::chrono::seconds kDiskTimeout(10);
// Where the mount is known to hang.
constexpr std::chrono::seconds kHungDiskTimeout(1);
constexpr char kChunkServiceName[] = "predella.v1.ChunkService";

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

// On a disk thread. With --require-mountpoint an unmounted directory is
// refused even if it bears a label.
absl::Status CheckMountpoint(const std::string& path) {
  struct stat own {};
  struct stat parent {};
  if (stat(path.c_str(), &own) == 0 &&
      stat(absl::StrCat(path, "/..").c_str(), &parent) == 0 &&
      own.st_dev == parent.st_dev && own.st_ino != parent.st_ino) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountIdentityMismatch,
                     absl::StrCat("nothing is mounted on ", path,
                                  ", and --require-mountpoint was given"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileSystem>> OpenRoot(
    const AgentOptions& options) {
  if (options.require_mountpoint) {
    const absl::Status mounted = CheckMountpoint(options.path);
    if (!mounted.ok()) {
      return mounted;
    }
  }
  return PosixFileSystem::Open(options.path);
}

// The store and the files below it, let go in this order.
struct OpenedStore {
  std::unique_ptr<FileSystem> fs;
  std::unique_ptr<ImageStore> store;
};

absl::StatusOr<std::shared_ptr<ImageStore>> OpenStore(
    const AgentOptions& options, DiskCalls* calls, const MountMemory& memory) {
  absl::StatusOr<std::unique_ptr<WatchedFileSystem>> fs =
      WatchedFileSystem::Open(calls, options.path,
                              [&options] { return OpenRoot(options); });
  if (!fs.ok()) {
    return fs.status();
  }
  StoreOptions store_options;
  store_options.mount_name = options.name;
  store_options.file_mode = options.file_mode_bits;
  store_options.file_group = options.file_group_id;
  store_options.thin = options.thin;
  store_options.memory = memory;
  store_options.calls = calls;
  store_options.holder = absl::StrCat("predella-agent ", options.name, " on ",
                                      HostName(), ", pid ", getpid());
  absl::StatusOr<std::unique_ptr<ImageStore>> store =
      ImageStore::Open(fs->get(), RealClock(), RandomIds(), store_options);
  if (!store.ok()) {
    return store.status();
  }
  // Shared by the core and its tasks.
  auto opened = std::make_shared<OpenedStore>();
  opened->fs = std::move(*fs);
  opened->store = std::move(*store);
  ImageStore* const raw = opened->store.get();
  return std::shared_ptr<ImageStore>(std::move(opened), raw);
}

AgentIdentity MakeIdentity(const AgentOptions& options) {
  AgentIdentity identity;
  identity.version = PREDELLA_VERSION;
  identity.mount_name = options.name;
  identity.path = options.path;
  identity.host = HostName();
  identity.boot_id = BootId();
  identity.pid = getpid();
  identity.priority = options.priority;
  identity.addresses = options.advertise;
  identity.space_group = options.space_group;
  identity.failure_domain = options.failure_domain;
  return identity;
}

}  // namespace

Agent::Agent(const AgentOptions& options, std::unique_ptr<DiskThreads> disk)
    : options_(options),
      calls_(RealClock(), options.disk_threads),
      disk_(std::move(disk)) {
  AgentSeams seams;
  seams.clock = RealClock();
  seams.ids = RandomIds();
  seams.disk = disk_->data();
  seams.probe = disk_->probe();
  seams.peer = &peer_;
  seams.calls = &calls_;
  seams.replace_threads = [this](int stuck) { disk_->Replace(stuck); };
  seams.missing_threads = [this] { return disk_->missing(); };
  seams.idle_io = SetIdleIo;
  seams.scrub.bytes_per_second = options_.scrub_bytes_per_second;
  seams.health.slow_above = options_.slow_above;
  seams.open_store = [this](const MountMemory& memory) {
    return OpenStore(options_, &calls_, memory);
  };
  seams.look_again = [this]() -> uint64_t {
    if (watcher_ == nullptr) {
      return 0;
    }
    const uint64_t ticket = watcher_->LookAgain();
    // From a disk thread its descriptor would be a file of the mount.
    HandToNetwork([watcher = watcher_] { watcher->Wake(); });
    return ticket;
  };
  seams.fatal = [](const absl::Status& status) {
    std::fprintf(stderr, "predella-agent: %s\n",
                 std::string(status.message()).c_str());
    // Not exit(): disk threads are at work and can not be joined from one.
    std::_Exit(1);
  };
  core_ = std::make_unique<AgentCore>(MakeIdentity(options_),
                                      options_.reserve_bytes, std::move(seams));
  chunks_ = std::make_unique<ChunkServiceImpl>(core_.get());
}

absl::StatusOr<std::unique_ptr<Agent>> Agent::Start(
    const AgentOptions& options, std::unique_ptr<DiskThreads> disk) {
  StartNetworkThreads();
  std::unique_ptr<Agent> agent(new Agent(options, std::move(disk)));
  agent->StartWatcher();
  ServerOptions server;
  server.listen = options.listen_addresses;
  server.health_listen = options.health_addresses;
  absl::StatusOr<std::unique_ptr<ServerRunner>> started =
      ServerRunner::Start(server, {agent->chunks_.get()});
  if (!started.ok()) {
    return started.status();
  }
  agent->server_ = std::move(*started);
  agent->server_->SetServing(kChunkServiceName, false);
  agent->StartDescriptors();
  if (options.advertise.empty()) {
    std::vector<std::string> addresses;
    for (const Address& address : agent->server_->addresses()) {
      addresses.push_back(address.ToString());
    }
    agent->core_->SetAddresses(std::move(addresses));
  }
  agent->session_ = std::make_unique<GrpcCoordinatorSession>(
      agent->core_.get(), options.coordinator, RandomIds());
  agent->ticks_ = std::thread([raw = agent.get()] { raw->RunTicks(); });
  agent->session_->Start();
  return agent;
}

void Agent::StartWatcher() {
  absl::StatusOr<std::unique_ptr<MountTable>> table = OpenMountTable();
  if (!table.ok()) {
    LogWarning("mount_table_unreadable",
               {{"error", table.status().ToString()},
                {"meaning",
                 "an unmount is noticed by the probe alone, which a hung mount "
                 "holds up"}});
    return;
  }
  watcher_ = std::make_shared<MountWatcher>(
      *std::move(table), options_.path,
      [core = core_.get()](const MountSighting& seen) {
        core->OnMountSeen(seen);
      });
  // Left behind at the end, should it read links in a directory that hangs.
  std::thread([watcher = watcher_] { watcher->Run(); }).detach();
}

void Agent::StartDescriptors() {
  auto started = DescriptorServer::Start(core_.get(), disk_->descriptors(),
                                         server_->addresses());
  if (!started.ok()) {
    LogWarning("descriptors_not_served",
               {{"error", started.status().ToString()},
                {"meaning", "clients on this host read as others do, slower"}});
    return;
  }
  descriptors_ = *std::move(started);
}

std::string Agent::StatusLine() {
  return absl::StrCat("mount ", options_.name, " at ", options_.path,
                      core_->Serving()
                          ? ": is served"
                          : ": waits for its directory or its coordinator");
}

void Agent::RunTicks() {
  bool serving = false;
  while (true) {
    core_->Tick();
    if (core_->Serving() != serving) {
      serving = !serving;
      server_->SetServing(kChunkServiceName, serving);
      NotifyStatus(StatusLine());
    }
    MutexLock lock(&mu_);
    if (!stop_ticks_) {
      cv_.WaitFor(&mu_, absl::ToChronoNanoseconds(kTick));
    }
    if (stop_ticks_) {
      return;
    }
  }
}

bool Agent::Stop(absl::Duration drain) {
  core_->Drain();
  LogInfo("draining", {{"streams", core_->uploads()->open_streams()}});
  // Publishes of streams that end meanwhile still need session and ticks.
  const absl::Duration until = RealClock()->Boot() + drain;
  server_->Shutdown(drain);
  if (descriptors_ != nullptr) {
    descriptors_->Shutdown(
        std::max(absl::ZeroDuration(), until - RealClock()->Boot()));
  }
  session_->Stop();
  {
    MutexLock lock(&mu_);
    stop_ticks_ = true;
    cv_.SignalAll();
  }
  ticks_.join();
  if (watcher_ != nullptr) {
    watcher_->Stop();
  }
  core_->Stop([] {});
  // Joined on a thread of its own: a call that hangs in the kernel is not
  // waited for for ever. Shared with that thread, which may outlive this.
  struct Waiter {
    Mutex mu;
    CondVar cv;
    bool done ABSL_GUARDED_BY(mu) = false;
  };
  auto waiter = std::make_shared<Waiter>();
  std::thread([waiter, disk = disk_.get()] {
    disk->Join();
    MutexLock lock(&waiter->mu);
    waiter->done = true;
    waiter->cv.SignalAll();
  }).detach();
  const bool hung = core_->View().health == v1::HEALTH_HUNG;
  MutexLock lock(&waiter->mu);
  while (!waiter->done) {
    if (!waiter->cv.WaitFor(&waiter->mu,
                            hung ? kHungDiskTimeout : kDiskTimeout)) {
      return waiter->done;
    }
  }
  return true;
}

Agent::~Agent() {
  if (ticks_.joinable()) {
    Stop(absl::ZeroDuration());
  }
  if (watcher_ != nullptr) {
    watcher_->Stop();
  }
  server_.reset();
  descriptors_.reset();
  // Joined while the core is there for their last tasks.
  disk_->Join();
}

}  // namespace predella::agent
