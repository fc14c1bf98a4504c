// Checks of what stands between this host and its images.
#ifndef PREDELLA_CLIENT_CLI_DOCTOR_H_
#define PREDELLA_CLIENT_CLI_DOCTOR_H_

#include <functional>
#include <ostream>
#include <string>

#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/local_mount.h"
#include "predella/client.h"

namespace predella::cli {

struct DoctorOptions {
  Reach reach;
  // This machine's name: mounts of this host are looked at directly.
  std::string host;
  std::function<LocalMount(const std::string& path)> look;
  absl::Time now;
  // Also store, read back, compare and delete a small image.
  bool write_test = false;
};

// The lines, and whether one of them was FAIL.
class Findings {
 public:
  explicit Findings(std::ostream* out) : out_(out) {}
  void Ok(const std::string& what) { Line("OK  ", what, ""); }
  void Warn(const std::string& what, const std::string& next);
  void Fail(const std::string& what, const std::string& next);
  // The last line, with the counts; returns the exit code: 0, or 6 when
  // something failed.
  int Sum();

 private:
  void Line(const std::string& mark, const std::string& what,
            const std::string& next);
  std::ostream* const out_;
  int warnings_ = 0;
  int failures_ = 0;
};

// Whether the socket of `endpoint` is there and may be used by this user.
// False: it was said why not. Host names are left to the connection.
bool CheckEndpoint(const std::string& endpoint, Findings* found);

// Checks, each with a line OK, WARN or FAIL and the next step: the
// coordinator and its checks, versions, the clock, the mounts (health, label,
// reach, space, inodes, trust), and whether a new image would find a place.
void Diagnose(Client* client, const DoctorOptions& options, Findings* found);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_DOCTOR_H_
