// What the commands that change a mount say in the end.
#ifndef PREDELLA_CLIENT_CLI_MOUNT_REPORT_H_
#define PREDELLA_CLIENT_CLI_MOUNT_REPORT_H_

#include <string>

#include "client/cli/context.h"
#include "predella/v1/mount_service.pb.h"

namespace predella::cli {

// Says what was done, or would be, and what comes next. Returns the exit code.
int ReportMount(const Context& context, bool dry_run, const std::string& done,
                const v1::Mount& mount, const std::string& next);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_MOUNT_REPORT_H_
