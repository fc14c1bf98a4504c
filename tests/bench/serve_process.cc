#include "tests/bench/serve_process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"

namespace predella::bench {

void Fail(const std::string& what) {
  std::cerr << "bench: " << what << "\n";
  exit(1);
}

ServeProcess::ServeProcess(const std::string& bin, const std::string& dir,
                           int mounts) {
  std::string datadirs;
  for (int i = 1; i <= mounts; ++i) {
    const std::string store = absl::StrCat(dir, "/store-", i);
    mkdir(store.c_str(), 0755);
    absl::StrAppend(&datadirs, datadirs.empty() ? "" : ",", store, ":100");
  }
  const std::string state = dir + "/state";
  const std::string log = dir + "/serve.log";
  const std::string out = dir + "/serve.out";
  endpoint_ = absl::StrCat("unix:", state, "/run/coordinator.sock");
  fflush(nullptr);  // else the child writes it as well
  pid_ = fork();
  if (pid_ == 0) {
    freopen(log.c_str(), "w", stderr);
    freopen(out.c_str(), "w", stdout);
    const std::string predella = bin + "/predella";
    execl(predella.c_str(), "predella", "serve", "--init", "--datadirs",
          datadirs.c_str(), "--state-dir", state.c_str(), nullptr);
    _exit(127);
  }
  for (int i = 0; i < 200; ++i) {
    std::ifstream ready(out);
    std::string line;
    while (std::getline(ready, line)) {
      if (line.rfind("READY", 0) == 0) {
        return;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  Fail("serve did not become ready; see " + log);
}

ServeProcess::~ServeProcess() {
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

int64_t ServeProcess::ResidentBytes(const std::string& name) const {
  int64_t kib = 0;
  const std::string parent = absl::StrCat("PPid:\t", pid_);
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream status(entry.path() / "status");
    std::string line;
    bool named = false;
    bool child = false;
    while (std::getline(status, line)) {
      named = named || line == "Name:\t" + name.substr(0, 15);
      child = child || line == parent;
      if (named && child && line.rfind("VmRSS:", 0) == 0) {
        kib += std::stoll(line.substr(6));
      }
    }
  }
  return kib << 10;
}

}  // namespace predella::bench
