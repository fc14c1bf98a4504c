// Checks of what stands between this host and its images.
#ifndef PREDELLA_CLIENT_CLI_DOCTOR_H_
#define PREDELLA_CLIENT_CLI_DOCTOR_H_

#include <functional>
#include <ostream>
#include <string>

#include "absl/status/status.h"

#include "predella/client.h"

namespace predella::cli {

// Whether an agent answers under an address.
using Reach = std::function<absl::Status(const std::string& address)>;

// Prints a line for each check, OK, WARN or FAIL, with the next step; returns
// the exit code: 0, or 6 when something failed.
int Diagnose(Client* client, const Reach& reach, std::ostream* out);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_DOCTOR_H_
