// The bare gRPC ceiling: a server that takes WriteImage streams and forgets
// them, and a client that sends them without checksums.
#ifndef PREDELLA_TESTS_BENCH_SINK_SERVER_H_
#define PREDELLA_TESTS_BENCH_SINK_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

namespace predella::bench {

class SinkServer {
 public:
  explicit SinkServer(const std::string& socket_path);
  ~SinkServer();
  // Sends `bytes` in messages of `piece`.
  void Upload(const std::string& piece, int64_t bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace predella::bench

#endif  // PREDELLA_TESTS_BENCH_SINK_SERVER_H_
