// Whole-process transfers beside their references, in shuffled rounds.
//
//   transfer_bench --dir DIR [--bin DIR] [--gib 1] [--files 1000] [--rounds 5]
//                  [--only WORD] [--json FILE]
//
// Starts `predella serve` over three directories under DIR, and measures, in
// each round and in random order: a plain durable write (256 KiB calls,
// fdatasync, rename, directory fsync), a plain read, the bare gRPC ceiling (a
// sink in this process), and Predella's upload and download, that through the
// open file and through gRPC. What counts is
// the median of the ratios inside a round: the machine is noisy.
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/ids.h"
#include "common/process_tuning.h"
#include "predella/client.h"
#include "tests/bench/median.h"
#include "tests/bench/serve_process.h"
#include "tests/bench/sink_server.h"

namespace predella::bench {
namespace {

using Seconds = std::chrono::duration<double>;

struct Options {
  std::string dir;
  std::string bin;
  int64_t gib_bytes = int64_t{1} << 30;
  int files = 1000;
  int rounds = 5;
  std::string only;  // works whose name holds this; empty: all
  std::string json;
};

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kPlainWrite = size_t{256} << 10;
constexpr size_t kSmall = size_t{64} << 10;

void Check(const absl::Status& status, const char* what) {
  if (!status.ok()) {
    Fail(absl::StrCat(what, ": ", status.ToString()));
  }
}

const std::string& Piece() {
  static const std::string* const piece =
      new std::string(RandomIds()->RandomBytes(kPiece));
  return *piece;
}

// One file as the plain reference writes it.
void PlainDurable(const std::string& dir, const std::string& name,
                  int64_t bytes) {
  const std::string temporary = absl::StrCat(dir, "/", name, ".tmp");
  const int fd =
      open(temporary.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0640);
  if (fd < 0) {
    Fail("cannot create " + temporary);
  }
  for (int64_t done = 0; done < bytes;) {
    const size_t n = static_cast<size_t>(
        std::min<int64_t>(static_cast<int64_t>(kPlainWrite), bytes - done));
    if (write(fd, Piece().data(), n) != static_cast<ssize_t>(n)) {
      Fail("short write to " + temporary);
    }
    done += static_cast<int64_t>(n);
  }
  if (fdatasync(fd) != 0 || close(fd) != 0 ||
      rename(temporary.c_str(), absl::StrCat(dir, "/", name).c_str()) != 0) {
    Fail("cannot finish " + temporary);
  }
  const int directory = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  fsync(directory);
  close(directory);
}

void PlainRead(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string buffer(kPiece, '\0');
  while (read(fd, buffer.data(), buffer.size()) > 0) {
  }
  close(fd);
}

std::string Upload(Client* client, int64_t bytes) {
  const std::string id = RandomIds()->NextUuid().ToString();
  UploadOptions options;
  options.image = id;
  options.size_bytes = bytes;
  auto writer = client->StartUpload(options);
  Check(writer.status(), "StartUpload");
  for (int64_t done = 0; done < bytes;) {
    const size_t n = static_cast<size_t>(
        std::min<int64_t>(static_cast<int64_t>(kPiece), bytes - done));
    Check((*writer)->Write(absl::string_view(Piece()).substr(0, n)), "Write");
    done += static_cast<int64_t>(n);
  }
  Check((*writer)->Commit().status(), "Commit");
  return id;
}

void Download(Client* client, const std::string& id) {
  ReadOptions options;
  options.image = id;
  auto reader = client->ReadImage(options);
  Check(reader.status(), "ReadImage");
  while (true) {
    auto data = (*reader)->Read();
    Check(data.status(), "Read");
    if (data->empty()) {
      return;
    }
  }
}

// Runs `work(i)` for i in [0, count) on some threads.
template <typename Work>
void Parallel(int threads, int count, const Work& work) {
  std::vector<std::thread> pool;
  pool.reserve(static_cast<size_t>(threads));
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      for (int i = t; i < count; i += threads) {
        work(i);
      }
    });
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
}

struct Work {
  std::string name;
  std::string reference;  // empty: is one
  double target = 0;      // of the ratio of speeds
  double units = 0;       // bytes or files, for the table
  const char* unit = "MB/s";
  std::function<void()> run;
};

void Report(const std::vector<Work>& works,
            const std::map<std::string, std::vector<double>>& seconds,
            const Options& options) {
  std::string json = "[\n";
  absl::PrintF("%-34s %12s %22s %8s\n", "work", "median", "ratio (min-max)",
               "target");
  for (const Work& work : works) {
    const std::vector<double>& times = seconds.at(work.name);
    const double speed = work.units / Median(times);
    std::vector<double> ratios;
    const auto found = seconds.find(work.reference);
    if (found != seconds.end()) {  // else --only left it out, or it is one
      const std::vector<double>& reference = found->second;
      for (size_t i = 0; i < times.size(); ++i) {
        ratios.push_back(reference[i] / times[i]);
      }
    }
    std::string ratio;
    if (!ratios.empty()) {
      ratio = absl::StrFormat("%.2f (%.2f-%.2f)", Median(ratios),
                              *std::min_element(ratios.begin(), ratios.end()),
                              *std::max_element(ratios.begin(), ratios.end()));
    }
    absl::PrintF(
        "%-34s %7.0f %-4s %22s %8s\n", work.name, speed, work.unit, ratio,
        work.target > 0 ? absl::StrFormat(">= %.2f", work.target) : "");
    absl::StrAppendFormat(
        &json,
        "  {\"work\": \"%s\", \"speed\": %.1f, \"unit\": \"%s\", "
        "\"ratio\": %.3f, \"reference\": \"%s\", \"target\": %.2f}%s\n",
        work.name, speed, work.unit, Median(ratios), work.reference,
        work.target, &work == &works.back() ? "" : ",");
  }
  absl::StrAppend(&json, "]\n");
  if (!options.json.empty()) {
    std::ofstream(options.json) << json;
  }
}

int Run(const Options& options) {
  const std::string plain = options.dir + "/plain";
  mkdir(plain.c_str(), 0755);
  ServeProcess serve(options.bin, options.dir, /*mounts=*/3);
  ClientOptions client_options;
  client_options.endpoint = serve.endpoint();
  auto connected = Client::Connect(client_options);
  Check(connected.status(), "Connect");
  Client client = *connected;
  client_options.local_reads = ClientOptions::LocalReads::kNever;
  auto by_grpc = Client::Connect(client_options);
  Check(by_grpc.status(), "Connect");
  Client remote = *by_grpc;
  SinkServer sink(options.dir + "/sink.sock");

  const int64_t big = options.gib_bytes;
  const double mb = static_cast<double>(big) / 1e6;
  const int files = options.files;
  PlainDurable(plain, "read", big);
  const std::string read_id = Upload(&client, big);
  const std::string small_id = Upload(&client, kSmall);
  std::vector<std::string> garbage;
  const auto drop = [&] {
    for (const std::string& id : garbage) {
      Check(client.DeleteImage(id), "DeleteImage");
    }
    garbage.clear();
  };
  std::vector<Work> works = {
      {"plain durable, 1 large", "", 0, mb, "MB/s",
       [&] { PlainDurable(plain, "large", big); }},
      {"bare gRPC sink, 1 large", "", 0, mb, "MB/s",
       [&] { sink.Upload(Piece(), big); }},
      {"upload, 1 large", "plain durable, 1 large", 0.50, mb, "MB/s",
       [&] { garbage.push_back(Upload(&client, big)); }},
      {"upload, 8 at once", "upload, 1 large", 0.90, mb, "MB/s",
       [&] {
         std::vector<std::string> ids(8);
         Parallel(8, 8, [&](int i) {
           ids[static_cast<size_t>(i)] = Upload(&client, big / 8);
         });
         garbage.insert(garbage.end(), ids.begin(), ids.end());
       }},
      {"plain read, 1 large", "", 0, mb, "MB/s",
       [&] { PlainRead(plain + "/read"); }},
      {"download by file, 1 large", "plain read, 1 large", 0.90, mb, "MB/s",
       [&] { Download(&client, read_id); }},
      {"download by gRPC, 1 large", "plain read, 1 large", 0.35, mb, "MB/s",
       [&] { Download(&remote, read_id); }},
      {"download by gRPC, 64 KiB", "", 0, static_cast<double>(files), "/s",
       [&] {
         for (int i = 0; i < files; ++i) {
           Download(&remote, small_id);
         }
       }},
      {"download by file, 64 KiB", "download by gRPC, 64 KiB", 0,
       static_cast<double>(files), "/s",
       [&] {
         for (int i = 0; i < files; ++i) {
           Download(&client, small_id);
         }
       }},
      {"plain durable, 64 KiB, 1", "", 0, static_cast<double>(files), "/s",
       [&] {
         for (int i = 0; i < files; ++i) {
           PlainDurable(plain, absl::StrCat("s", i), kSmall);
         }
       }},
      {"upload, 64 KiB, 1", "plain durable, 64 KiB, 1", 0.30,
       static_cast<double>(files), "/s",
       [&] {
         for (int i = 0; i < files; ++i) {
           garbage.push_back(Upload(&client, kSmall));
         }
       }},
      {"plain durable, 64 KiB, 32", "", 0, static_cast<double>(files), "/s",
       [&] {
         Parallel(32, files, [&](int i) {
           PlainDurable(plain, absl::StrCat("p", i), kSmall);
         });
       }},
      {"upload, 64 KiB, 32", "plain durable, 64 KiB, 32", 0.50,
       static_cast<double>(files), "/s",
       [&] {
         std::vector<std::string> ids(static_cast<size_t>(files));
         Parallel(32, files, [&](int i) {
           ids[static_cast<size_t>(i)] = Upload(&client, kSmall);
         });
         garbage.insert(garbage.end(), ids.begin(), ids.end());
       }},
  };
  works.erase(std::remove_if(works.begin(), works.end(),
                             [&](const Work& work) {
                               return !absl::StrContains(work.name,
                                                         options.only);
                             }),
              works.end());
  std::map<std::string, std::vector<double>> seconds;
  std::mt19937 shuffle(1);
  for (int round = 0; round < options.rounds; ++round) {
    std::vector<size_t> order(works.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), shuffle);
    for (const size_t i : order) {
      const auto began = std::chrono::steady_clock::now();
      works[i].run();
      seconds[works[i].name].push_back(
          Seconds(std::chrono::steady_clock::now() - began).count());
      drop();
    }
    std::cerr << "round " << round + 1 << " of " << options.rounds << "\n";
  }
  Report(works, seconds, options);
  return 0;
}

Options ParseFlags(int argc, char** argv) {
  Options options;
  options.bin = "build/release/bin";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const std::string value = argv[i + 1];
    double number = 0;
    if (flag == "--dir") {
      options.dir = value;
    } else if (flag == "--bin") {
      options.bin = value;
    } else if (flag == "--only") {
      options.only = value;
    } else if (flag == "--json") {
      options.json = value;
    } else if (flag == "--gib" && absl::SimpleAtod(value, &number)) {
      options.gib_bytes = static_cast<int64_t>(number * 0x1p30);
    } else if (!(flag == "--files" &&
                 absl::SimpleAtoi(value, &options.files)) &&
               !(flag == "--rounds" &&
                 absl::SimpleAtoi(value, &options.rounds))) {
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
  return predella::bench::Run(predella::bench::ParseFlags(argc, argv));
}
