// The list of directories, as Glance's configuration writes it:
//   /var/glance/store-1:100,/var/glance/store-2:200
// and with names of our own: fast=/mnt/nvme:1,slow=/mnt/nfs:2
#ifndef PREDELLA_CLIENT_CLI_SERVE_DATADIRS_H_
#define PREDELLA_CLIENT_CLI_SERVE_DATADIRS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella::cli {

struct Datadir {
  std::string name;  // given, or the last part of the path
  std::string path;  // absolute, without "." and ".." and double slashes
  int priority = 0;  // lower is preferred
};

// Where no priority is given at all, all are equal.
inline constexpr int kEqualPriority = 100;

// Looks at the text only. INVALID_ARGUMENT with a sentence that names the
// entry: no entry, a relative path, a priority that is not a number or is
// missing on some, a directory twice or inside another, a name that is not
// one or is given twice.
absl::StatusOr<std::vector<Datadir>> ParseDatadirs(absl::string_view text);

// Whether `inner` is below `outer`, by their parts.
bool IsInside(const std::string& inner, const std::string& outer);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_DATADIRS_H_
