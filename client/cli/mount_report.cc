#include "client/cli/mount_report.h"

#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace predella::cli {

int ReportMount(const Context& context, bool dry_run, const std::string& done,
                const v1::Mount& mount, const std::string& next) {
  *context.out << (dry_run ? "would be " : "") << Bare(mount.name()) << ": "
               << done << " (" << Short(mount.admin_state()) << ", "
               << Short(mount.health()) << ", " << mount.image_count()
               << " images)\n";
  if (!dry_run) {
    *context.err << "next: " << next << "\n";
  }
  return kExitDone;
}

}  // namespace predella::cli
