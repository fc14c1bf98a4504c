// `predella serve` as a child, and what benches share.
#ifndef PREDELLA_TESTS_BENCH_SERVE_PROCESS_H_
#define PREDELLA_TESTS_BENCH_SERVE_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace predella::bench {

// Ends the bench with a sentence.
[[noreturn]] void Fail(const std::string& what);

// Runs `work(i)` for i in [0, count) on some threads.
template <typename Work>
void Parallel(int threads, int count, const Work& work) {
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&work, threads, count, t] {
      for (int i = t; i < count; i += threads) {
        work(i);
      }
    });
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
}

// Serves `mounts` directories under `dir`, of one priority, until it is
// destroyed. Fails when it is not READY within 20 s.
class ServeProcess {
 public:
  ServeProcess(const std::string& bin, const std::string& dir, int mounts);
  ~ServeProcess();
  ServeProcess(const ServeProcess&) = delete;
  ServeProcess& operator=(const ServeProcess&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  // Resident memory of its children whose command begins with `name` (15
  // characters, as the kernel keeps it), together.
  int64_t ResidentBytes(const std::string& name) const;

 private:
  pid_t pid_ = 0;
  std::string endpoint_;
};

}  // namespace predella::bench

#endif  // PREDELLA_TESTS_BENCH_SERVE_PROCESS_H_
