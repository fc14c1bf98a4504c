#include "server/coordinator.h"

#include <errno.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "server/index/rocksdb_kv_store.h"

namespace predella::server {
namespace {

constexpr int kPoolThreads = 64;
constexpr absl::Duration kTick = absl::Seconds(1);
// An agent syncs the pair it was told within a second.
constexpr absl::Duration kFenceSync = absl::Milliseconds(1200);
constexpr absl::Duration kServerGrace = absl::Seconds(2);

constexpr const char* kServices[] = {
    "predella.v1.ImageService", "predella.v1.MountService",
    "predella.v1.ClusterService", "predella.control.v1.AgentSessionService"};

absl::Status SystemError(absl::string_view what, const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

absl::StatusOr<std::vector<Address>> ParseAddresses(
    const std::vector<std::string>& texts, bool insecure) {
  std::vector<Address> out;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(Address address, ParseAddress(text));
    RETURN_IF_ERROR(CheckPlaintextAllowed(address, insecure));
    out.push_back(std::move(address));
  }
  return out;
}

}  // namespace

absl::Status Coordinator::Validate(const CoordinatorOptions& options) {
  if (options.state_dir.empty() || options.state_dir[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("--state-dir is \"", options.state_dir,
                     "\": it has to be an absolute path"));
  }
  if (!options.backup_dir.empty() && options.backup_dir[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("--backup-dir is \"", options.backup_dir,
                     "\": it has to be an absolute path"));
  }
  if (options.backup_keep < 1 ||
      options.backup_interval < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "--backup-keep has to be 1 or more, --backup-interval 0s or longer");
  }
  if (options.listen.empty()) {
    return absl::InvalidArgumentError(
        "--listen names no address: give unix:/PATH or HOST:PORT");
  }
  const double near = options.registry.placement.near_full_percent;
  if (near <= 0 || near > options.registry.placement.full_percent) {
    return absl::InvalidArgumentError(
        absl::StrCat("--near-full is ", near,
                     ": it has to be above 0 and at "
                     "most ",
                     options.registry.placement.full_percent));
  }
  for (const absl::Duration duration :
       {options.lifecycle.upload_ttl, options.lifecycle.outcome_ttl,
        options.registry.unreachable_after}) {
    if (duration <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError(
          "--upload-ttl, --outcome-ttl and --unreachable-after have to be "
          "above 0");
    }
  }
  RETURN_IF_ERROR(
      ParseAddresses(options.listen, options.insecure_plaintext_on_network)
          .status());
  // Health alone is harmless on any address.
  return ParseAddresses(options.health_listen, /*insecure=*/true).status();
}

Coordinator::Coordinator(const CoordinatorOptions& options,
                         std::function<void()> failed)
    : options_(options), failed_(std::move(failed)) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    const CoordinatorOptions& options, std::function<void()> failed) {
  RETURN_IF_ERROR(Validate(options));
  // The constructor is private: make_unique cannot reach it.
  std::unique_ptr<Coordinator> coordinator(
      new Coordinator(options, std::move(failed)));
  RETURN_IF_ERROR(coordinator->Open());
  RETURN_IF_ERROR(coordinator->Serve());
  return coordinator;
}

absl::Status Coordinator::Open() {
  RETURN_IF_ERROR(MakeDirectories(options_.state_dir));
  ASSIGN_OR_RETURN(state_lock_, StateLock::Take(options_.state_dir));
  // The index holds the cluster's key; the sockets beside it are for others.
  const std::string index = absl::StrCat(options_.state_dir, "/index");
  if ((mkdir(index.c_str(), 0700) != 0 && errno != EEXIST) ||
      chmod(index.c_str(), 0700) != 0) {
    return SystemError("cannot make the directory", index);
  }
  ASSIGN_OR_RETURN(kv_, RocksDbKvStore::Open(index));
  epoch_file_ = MakePosixEpochFile(options_.state_dir);
  PlacementIndex::OpenOptions open;
  open.above_epoch = options_.above_epoch;
  ASSIGN_OR_RETURN(
      index_, PlacementIndex::Open(kv_.get(), epoch_file_.get(), RealClock(),
                                   RandomIds(), open));
  BackupOptions backup;
  backup.index = index;
  backup.directory = options_.backup_dir.empty()
                         ? absl::StrCat(options_.state_dir, "/backups")
                         : options_.backup_dir;
  backup.interval = options_.backup_interval;
  backup.keep = options_.backup_keep;
  backups_ = std::make_unique<IndexBackups>(kv_.get(), RealClock(), backup);
  registry_ = std::make_unique<MountRegistry>(RealClock(), RandomIds(),
                                              options_.registry);
  pool_ = std::make_unique<ThreadPool>("coordinator", kPoolThreads);
  LifecycleDeps deps;
  deps.index = index_.get();
  deps.registry = registry_.get();
  deps.clock = RealClock();
  deps.ids = RandomIds();
  deps.pool = pool_.get();
  deps.options = options_.lifecycle;
  ASSIGN_OR_RETURN(lifecycle_,
                   Lifecycle::Create(deps, options_.registry.placement));
  return absl::OkStatus();
}

absl::Status Coordinator::Serve() {
  runner_ = std::make_unique<CallRunner>(pool_.get());
  images_ = std::make_unique<ImageServiceImpl>(
      runner_.get(), &lifecycle_->images(), &lifecycle_->uploads());
  mounts_ = std::make_unique<MountServiceImpl>(
      runner_.get(), &lifecycle_->mounts(), &lifecycle_->orphans());
  cluster_ = std::make_unique<ClusterServiceImpl>(
      runner_.get(), &lifecycle_->cluster(), &lifecycle_->events(),
      &lifecycle_->index_audit(), pool_.get(),
      [this] { return backups_->Make(); });
  sessions_ = std::make_unique<AgentSessionServiceImpl>(
      runner_.get(), &lifecycle_->sessions(), pool_.get());
  ServerOptions server;
  ASSIGN_OR_RETURN(
      server.listen,
      ParseAddresses(options_.listen, options_.insecure_plaintext_on_network));
  ASSIGN_OR_RETURN(server.health_listen,
                   ParseAddresses(options_.health_listen, /*insecure=*/true));
  for (const Address& address : server.listen) {
    const size_t slash = address.path.rfind('/');
    if (address.unix_socket && slash != 0 && slash != std::string::npos) {
      RETURN_IF_ERROR(MakeDirectories(address.path.substr(0, slash)));
    }
  }
  ASSIGN_OR_RETURN(
      server_, ServerRunner::Start(server, {images_.get(), mounts_.get(),
                                            cluster_.get(), sessions_.get()}));
  SetServing(true);
  ticker_ = std::thread([this] { TickUntilStopped(); });
  for (const Address& address : server_->addresses()) {
    LogInfo("coordinator_serving",
            {{"address", address.ToString()}, {"epoch", index_->epoch()}});
  }
  return absl::OkStatus();
}

void Coordinator::SetServing(bool serving) {
  for (const char* service : kServices) {
    server_->SetServing(service, serving);
  }
  server_->SetServing("", serving);
}

void Coordinator::TickUntilStopped() {
  MutexLock lock(&mu_);
  while (!stopping_) {
    stop_cv_.WaitFor(&mu_, absl::ToChronoNanoseconds(kTick));
    if (stopping_) {
      return;
    }
    mu_.Unlock();
    lifecycle_->Tick();
    CheckIndex();
    if (backups_->Due()) {
      pool_->Post([this] {
        LogIfError(backups_->Make().status(),
                   "the next one is made after the interval");
      });
    }
    mu_.Lock();
  }
}

// A full disk heals by itself, or serves reads until somebody helps. After any
// other write error the outcome of the last commit is unknown until the index
// is opened again.
void Coordinator::CheckIndex() {
  if (failed_said_ || index_->write_error().empty()) {
    return;
  }
  const absl::Status status = index_->Commit(index_->Begin());
  if (status.ok() || HasReason(status, reason::kIndexReadOnly)) {
    return;
  }
  failed_said_ = true;
  LogError("index_failed", {{"error", status.ToString()},
                            {"next",
                             "the coordinator ends so that its "
                             "supervisor starts it again"}});
  failed_();
}

// Every mount syncs the last pair before the index is marked as cleanly
// closed: the mark counts at the next start because a mount holds that pair.
void Coordinator::SyncFences() {
  if (!lifecycle_->sessions().any_attached()) {
    return;
  }
  lifecycle_->sessions().TellSyncedPair();
  std::this_thread::sleep_for(absl::ToChronoNanoseconds(kFenceSync));
}

void Coordinator::Stop() {
  {
    MutexLock lock(&mu_);
    if (stopping_) {
      return;
    }
    stopping_ = true;
    stop_cv_.SignalAll();
  }
  if (ticker_.joinable()) {
    ticker_.join();
  }
  if (server_ != nullptr) {
    SetServing(false);
    runner_->StartDraining();
    lifecycle_->events().WakeAll();  // whoever follows is told to dial again
    if (!runner_->WaitIdle(options_.drain)) {
      LogWarning("drain_ended",
                 {{"waited", absl::FormatDuration(options_.drain)}});
    }
    SyncFences();
    const absl::Status closed = index_->CloseCleanly();
    LogInfo("coordinator_stopped", {{"clean", closed.ok() ? "true" : "false"},
                                    {"error", closed.ToString()}});
    lifecycle_->sessions().CloseAll(
        MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                  "the coordinator is stopping: dial again in a moment"));
    server_->Shutdown(kServerGrace);
  }
  if (pool_ != nullptr) {
    pool_->Shutdown();
  }
}

Coordinator::~Coordinator() { Stop(); }

}  // namespace predella::server
