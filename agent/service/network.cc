#include "agent/service/network.h"

#include <cstdlib>

#include "absl/base/thread_annotations.h"

#include "agent/control/disk_executor.h"
#include "common/executor.h"
#include "common/logging.h"
#include "common/mutex.h"

namespace predella::agent {
namespace {

constexpr int kThreads = 2;

struct Network {
  Mutex mu;
  // Lives for ever: tasks may come until the process ends.
  ThreadPool* threads ABSL_GUARDED_BY(mu) = nullptr;
};

Network& TheNetwork() {
  static Network* const network = new Network();
  return *network;
}

}  // namespace

void StartNetworkThreads() {
  Network& network = TheNetwork();
  MutexLock lock(&network.mu);
  if (network.threads == nullptr) {
    if (OnDiskThread()) {
      // They would share the disk threads' descriptors: going on would write
      // to a number that is something else.
      LogError("network_threads_from_disk", {{"bug", "started too late"}});
      std::abort();
    }
    network.threads = new ThreadPool("network", kThreads);
  }
}

void HandToNetwork(std::function<void()> task) {
  StartNetworkThreads();
  ThreadPool* threads = nullptr;
  {
    Network& network = TheNetwork();
    MutexLock lock(&network.mu);
    threads = network.threads;
  }
  threads->Post(std::move(task));
}

void OnNetwork(std::function<void()> task) {
  if (OnDiskThread()) {
    HandToNetwork(std::move(task));
  } else {
    task();
  }
}

}  // namespace predella::agent
