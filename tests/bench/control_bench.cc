// Small calls beside their references, and what processes take of memory.
//
//   control_bench --dir DIR [--bin DIR] [--seconds 3] [--rounds 3]
//                 [--work calls|memory|uploads]
//
//   GetImage, 64 in flight, against an empty call (health Check) of the same
//     server over the same channel;
//   StartUpload + Published, 64 at once: the coordinator's logic over RocksDB
//     in this process with an agent in memory, against synced puts of RocksDB
//     from 64 threads, halved, since an upload takes two commits;
//   resident memory of one agent: idle, and with 8 and 100 uploads open.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "rocksdb/db.h"

#include "common/ids.h"
#include "common/logging.h"
#include "common/process_tuning.h"
#include "predella/client.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/lifecycle/lifecycle.h"
#include "tests/bench/median.h"
#include "tests/bench/serve_process.h"
#include "tests/server/lifecycle/fake_agent.h"

namespace predella::bench {
namespace {

constexpr int kInFlight = 64;

using SteadyClock = std::chrono::steady_clock;

struct Options {
  std::string dir;
  std::string bin = "build/release/bin";
  double seconds = 3;
  int rounds = 3;
  std::string work;  // empty: all
};

double Since(SteadyClock::time_point began) {
  return std::chrono::duration<double>(SteadyClock::now() - began).count();
}

// Calls of one method, always so many in flight; per second.
class CallLoop {
 public:
  CallLoop(const std::string& endpoint, std::string method,
           const std::string& request)
      : stub_(
            grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials())),
        method_(std::move(method)) {
    const grpc::Slice slice(request);
    request_ = grpc::ByteBuffer(&slice, 1);
  }

  double Run(double seconds) {
    const auto began = SteadyClock::now();
    end_ = began + std::chrono::duration_cast<SteadyClock::duration>(
                       std::chrono::duration<double>(seconds));
    done_ = 0;
    live_ = kInFlight;
    for (int i = 0; i < kInFlight; ++i) {
      Start();
    }
    while (live_ > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return static_cast<double>(done_) / Since(began);
  }

 private:
  struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer response;
  };

  void Start() {
    auto call = std::make_shared<Call>();  // kept by its callback
    stub_.UnaryCall(&call->context, method_, grpc::StubOptions(), &request_,
                    &call->response, [this, call](const grpc::Status& status) {
                      if (!status.ok()) {
                        Fail(method_ + ": " + status.error_message());
                      }
                      ++done_;
                      if (SteadyClock::now() < end_) {
                        Start();
                      } else {
                        --live_;
                      }
                    });
  }

  grpc::GenericStub stub_;
  const std::string method_;
  grpc::ByteBuffer request_;
  SteadyClock::time_point end_;
  std::atomic<int64_t> done_ = 0;
  std::atomic<int> live_ = 0;
};

std::unique_ptr<ImageWriter> Write(Client* client, int64_t bytes) {
  UploadOptions options;
  options.image = RandomIds()->NextUuid().ToString();
  options.size_bytes = 2 * bytes;
  auto writer = client->StartUpload(options);
  if (!writer.ok()) {
    Fail("StartUpload: " + writer.status().ToString());
  }
  static const std::string* const piece =
      new std::string(RandomIds()->RandomBytes(size_t{1} << 20));
  for (int64_t done = 0; done < bytes; done += 1 << 20) {
    if (const absl::Status status = (*writer)->Write(*piece); !status.ok()) {
      Fail("Write: " + status.ToString());
    }
  }
  return *std::move(writer);
}

Client Connect(const std::string& endpoint) {
  ClientOptions options;
  options.endpoint = endpoint;
  auto client = Client::Connect(options);
  if (!client.ok()) {
    Fail("Connect: " + client.status().ToString());
  }
  return *client;
}

void Calls(const Options& options) {
  const ServeProcess serve(options.bin, options.dir, 1);
  Client client = Connect(serve.endpoint());
  const std::string id = RandomIds()->NextUuid().ToString();
  UploadOptions upload;
  upload.image = id;
  auto writer = client.StartUpload(upload);
  if (!writer.ok() || !(*writer)->Write("x").ok() ||
      !(*writer)->Commit().ok()) {
    Fail("an image cannot be stored");
  }
  v1::GetImageRequest request;
  request.set_name("images/" + id);
  CallLoop empty(serve.endpoint(), "/grpc.health.v1.Health/Check", "");
  CallLoop get(serve.endpoint(), "/predella.v1.ImageService/GetImage",
               request.SerializeAsString());
  std::vector<double> rates, ratios;
  for (int i = 0; i < options.rounds; ++i) {
    const double reference = empty.Run(options.seconds);
    rates.push_back(get.Run(options.seconds));
    ratios.push_back(rates.back() / reference);
  }
  absl::PrintF(
      "GetImage, 64 in flight             %8.0f /s   %.2f of an empty "
      "call (>= 0.60)\n",
      Median(rates), Median(ratios));
}

void Memory(const Options& options) {
  const std::string dir = options.dir + "/memory";
  mkdir(dir.c_str(), 0755);
  ServeProcess serve(options.bin, dir, 1);
  Client client = Connect(serve.endpoint());
  const auto resident = [&] {
    return static_cast<double>(serve.ResidentBytes("predella-agent")) / 0x1p20;
  };
  const double idle = resident();
  absl::PrintF("agent, idle                        %8.1f MiB  (< 40)\n", idle);
  for (const int streams : {8, 100}) {
    std::vector<std::unique_ptr<ImageWriter>> open(
        static_cast<size_t>(streams));
    Parallel(streams, streams, [&](int i) {
      open[static_cast<size_t>(i)] = Write(&client, int64_t{16} << 20);
    });
    const double now = resident();
    absl::PrintF(
        "agent, %3d uploads open            %8.1f MiB, %.1f each"
        "  (<= 8 each; 100: < 512)\n",
        streams, now, (now - idle) / streams);
    for (auto& writer : open) {
      if (const absl::Status status = writer->Abort(); !status.ok()) {
        Fail("Abort: " + status.ToString());
      }
    }
  }
}

// A coordinator's logic with an agent in memory.
class Coordinator {
 public:
  explicit Coordinator(const std::string& path) {
    auto kv = server::RocksDbKvStore::Open(path);
    if (!kv.ok()) {
      Fail(kv.status().ToString());
    }
    kv_ = *std::move(kv);
    auto index = server::PlacementIndex::Open(kv_.get(), &epochs_, RealClock(),
                                              RandomIds(), {});
    if (!index.ok()) {
      Fail(index.status().ToString());
    }
    index_ = *std::move(index);
    registry_ = std::make_unique<server::MountRegistry>(
        RealClock(), RandomIds(), server::RegistryOptions());
    server::LifecycleDeps deps;
    deps.index = index_.get();
    deps.registry = registry_.get();
    deps.clock = RealClock();
    deps.ids = RandomIds();
    deps.pool = &pool_;
    auto lifecycle =
        server::Lifecycle::Create(deps, server::PlacementOptions());
    if (!lifecycle.ok()) {
      Fail(lifecycle.status().ToString());
    }
    lifecycle_ = *std::move(lifecycle);
    agent_ = std::make_unique<testing::FakeAgent>("a", RandomIds()->NextUuid(),
                                                  &pool_);
    agent_->Connect(&lifecycle_->sessions());
    while (!registry_->List().empty() ? !registry_->List()[0].trusted : true) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  ~Coordinator() {
    agent_->Lose();
    pool_.Shutdown();
  }

  void Upload() {
    const Uuid image = RandomIds()->NextUuid();
    const Uuid upload = RandomIds()->NextUuid();
    const auto started = lifecycle_->uploads().Start({image, upload, 4096});
    if (!started.ok() || !agent_->Write(upload, 4096, false) ||
        !agent_->Publish(upload)) {
      Fail("an upload failed: " + started.status().ToString());
    }
    agent_->AwaitAck(upload);
  }

 private:
  ThreadPool pool_{"bench", kInFlight};
  server::MemEpochFile epochs_;
  std::unique_ptr<server::KvStore> kv_;
  std::unique_ptr<server::PlacementIndex> index_;
  std::unique_ptr<server::MountRegistry> registry_;
  std::unique_ptr<server::Lifecycle> lifecycle_;
  std::unique_ptr<testing::FakeAgent> agent_;
};

// `work` from 64 threads for some seconds; per second.
double Rate(double seconds, const std::function<void()>& work) {
  const auto began = SteadyClock::now();
  std::atomic<int64_t> done = 0;
  Parallel(kInFlight, kInFlight, [&](int) {
    while (Since(began) < seconds) {
      work();
      ++done;
    }
  });
  return static_cast<double>(done) / Since(began);
}

void Uploads(const Options& options) {
  rocksdb::Options db_options;
  db_options.create_if_missing = true;
  rocksdb::DB* raw = nullptr;
  // New ones: an index of an earlier run knows another agent by this name.
  const std::string dir =
      absl::StrCat(options.dir, "/", RandomIds()->NextUuid().ToString());
  mkdir(dir.c_str(), 0755);
  if (!rocksdb::DB::Open(db_options, dir + "/plain", &raw).ok()) {
    Fail("cannot open a RocksDB under " + options.dir);
  }
  const std::unique_ptr<rocksdb::DB> db(raw);
  Coordinator coordinator(dir + "/index");
  const std::string value(400, 'v');
  std::vector<double> rates, ratios;
  for (int i = 0; i < options.rounds; ++i) {
    const double puts = Rate(options.seconds, [&] {
      rocksdb::WriteOptions write;
      write.sync = true;
      if (!db->Put(write, RandomIds()->RandomBytes(16), value).ok()) {
        Fail("a put failed");
      }
    });
    rates.push_back(Rate(options.seconds, [&] { coordinator.Upload(); }));
    ratios.push_back(rates.back() / (puts / 2));
  }
  absl::PrintF(
      "StartUpload + Published, 64 at once %7.0f /s   %.2f of synced "
      "puts, halved (>= 0.50)\n",
      Median(rates), Median(ratios));
}

Options ParseFlags(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const std::string value = argv[i + 1];
    if (flag == "--dir") {
      options.dir = value;
    } else if (flag == "--bin") {
      options.bin = value;
    } else if (flag == "--work") {
      options.work = value;
    } else if ((flag != "--seconds" ||
                !absl::SimpleAtod(value, &options.seconds)) &&
               (flag != "--rounds" ||
                !absl::SimpleAtoi(value, &options.rounds))) {
      Fail(absl::StrCat("unknown or bad: ", flag, " ", value));
    }
  }
  if (options.dir.empty()) {
    Fail("--dir is required");
  }
  return options;
}

}  // namespace
}  // namespace predella::bench

int main(int argc, char** argv) {
  predella::TuneProcess();
  predella::SetLogLevel("error");
  const predella::bench::Options options =
      predella::bench::ParseFlags(argc, argv);
  const auto wanted = [&options](const char* work) {
    return options.work.empty() || options.work == work;
  };
  if (wanted("calls")) {
    predella::bench::Calls(options);
  }
  if (wanted("memory")) {
    predella::bench::Memory(options);
  }
  if (wanted("uploads")) {
    predella::bench::Uploads(options);
  }
  return 0;
}
