// `predella mount scrub`.
#include <algorithm>
#include <memory>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "client/cli/progress.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(500);
// Longer than a coordinator needs to start again.
constexpr absl::Duration kGiveUp = absl::Minutes(2);

struct ScrubArguments {
  std::string name;
  std::string rate;
  bool wait = false;
  bool pause = false;
  bool restart = false;
};

std::string Short(v1::ScrubState state) {
  return state == v1::SCRUB_STATE_UNSPECIFIED
             ? "NEVER"
             : std::string(absl::StripPrefix(v1::ScrubState_Name(state),
                                             "SCRUB_STATE_"));
}

std::string RateOf(const v1::Scrub& scrub) {
  return scrub.bytes_per_second() == 0
             ? "default"
             : absl::StrCat(ShortSize(scrub.bytes_per_second()), "/s");
}

void PrintScrubs(const v1::ListMountsResponse& mounts, std::ostream* out) {
  Table table({"NAME", "SCRUB", "REQUIRED", "IMAGES", "READ", "OF", "FAULTS",
               "RATE", "BEGAN", "LAST"});
  for (const v1::Mount& mount : mounts.mounts()) {
    const v1::Scrub& scrub = mount.scrub();
    table.Add(
        {Bare(mount.name()), Short(scrub.state()),
         scrub.required() ? "yes" : "no", absl::StrCat(scrub.image_count()),
         ShortSize(scrub.bytes()), ShortSize(mount.image_bytes()),
         absl::StrCat(scrub.fault_count()), RateOf(scrub),
         scrub.has_create_time() ? Moment(scrub.create_time()) : "-",
         scrub.has_complete_time() ? Moment(scrub.complete_time()) : "-"});
  }
  table.Print(out);
  for (const v1::Mount& mount : mounts.mounts()) {
    if (!mount.scrub().detail().empty()) {
      *out << Bare(mount.name()) << ": " << Shown(mount.scrub().detail())
           << "\n";
    }
  }
}

absl::StatusOr<int> ListScrubs(const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::ListMountsResponse mounts, client.ListMounts());
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(mounts, context.out));
  } else {
    PrintScrubs(mounts, context.out);
  }
  return kExitDone;
}

// Until it is done or paused. Time passes between two looks.
absl::StatusOr<v1::Mount> Wait(Client* client, const std::string& name,
                               const Context& context) {
  ASSIGN_OR_RETURN(v1::Mount mount, client->GetMount(name));
  absl::Time seen = absl::Now();
  Progress progress(context.progress ? context.err : nullptr,
                    mount.image_bytes(), RealClock());
  while (mount.scrub().state() == v1::SCRUB_STATE_RUNNING) {
    progress.Update(std::min(mount.scrub().bytes(), mount.image_bytes()));
    absl::SleepFor(kPoll);
    const auto now = client->GetMount(name);
    // The scrub goes on while nobody can be asked.
    if (absl::IsUnavailable(now.status()) && absl::Now() - seen < kGiveUp) {
      continue;
    }
    RETURN_IF_ERROR(now.status());
    mount = *now;
    seen = absl::Now();
  }
  return mount;
}

absl::StatusOr<int> Scrub(const ScrubArguments& a, const Context& context) {
  if (a.name.empty()) {
    if (a.wait || a.pause || a.restart || !a.rate.empty()) {
      return absl::InvalidArgumentError("NAME says which mount is meant");
    }
    return ListScrubs(context);
  }
  if (a.pause && (a.wait || a.restart || !a.rate.empty())) {
    return absl::InvalidArgumentError("--pause goes with no other option");
  }
  int64_t rate = 0;
  if (!a.rate.empty()) {
    const auto parsed = ParseSize(a.rate);
    RETURN_IF_ERROR(Annotate(parsed.status(), "--rate"));
    rate = *parsed;
    if (rate <= 0) {
      return absl::InvalidArgumentError(
          "--rate is a size a second, such as 50MiB");
    }
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  absl::StatusOr<v1::Mount> mount =
      a.pause ? client.PauseScrub(a.name)
              : client.ScrubMount(a.name, rate, a.restart);
  RETURN_IF_ERROR(mount.status());
  if (a.wait) {
    mount = Wait(&client, a.name, context);
    RETURN_IF_ERROR(mount.status());
  }
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(*mount, context.out));
  } else {
    *context.out << Bare(mount->name()) << ": " << ScrubLine(*mount) << "\n";
  }
  if (!a.wait) {
    if (!a.pause) {
      *context.err << "next: predella mount scrub shows how far it is\n";
    }
    return kExitDone;
  }
  if (mount->scrub().state() != v1::SCRUB_STATE_DONE) {
    return kExitFailed;  // somebody paused it
  }
  return mount->scrub().fault_count() > 0 ? kExitUnhealthy : kExitDone;
}

}  // namespace

std::string ScrubLine(const v1::Mount& mount) {
  const v1::Scrub& scrub = mount.scrub();
  std::string line = Short(scrub.state());
  if (scrub.state() != v1::SCRUB_STATE_UNSPECIFIED) {
    absl::StrAppend(&line, ", ", scrub.image_count(), " images with ",
                    FormatSize(scrub.bytes()), " read, ", scrub.fault_count(),
                    " not whole, began ", Moment(scrub.create_time()));
  }
  if (scrub.has_complete_time()) {
    absl::StrAppend(&line, ", last finished ", Moment(scrub.complete_time()));
  }
  if (scrub.required()) {
    absl::StrAppend(&line, ", required before it takes new images");
  }
  if (!scrub.detail().empty()) {
    absl::StrAppend(&line, "; ", Shown(scrub.detail()));
  }
  return line;
}

void AddMountScrubCommand(CLI::App* mount, Context* context) {
  const auto a = std::make_shared<ScrubArguments>();
  CLI::App* scrub = mount->add_subcommand(
      "scrub", "Read all images of a mount and check them.");
  scrub->footer(
      "Reads cold, slowly and behind everything else. Goes on where it was a\n"
      "minute before when agent or coordinator start again. A copy that is "
      "not\n"
      "whole makes its image DEGRADED. Without NAME: how far each mount is.\n"
      "With --wait it exits with 6 when copies are not whole.\n"
      "Examples:\n"
      "  predella mount scrub store-1 --wait\n"
      "  predella mount scrub store-1 --rate 200MiB\n"
      "  predella mount scrub");
  scrub->add_option("NAME", a->name, "Name of the mount.");
  scrub->add_flag("--wait", a->wait, "Until it has ended.");
  scrub->add_flag("--pause", a->pause, "Stop it; the next one goes on.");
  scrub->add_flag("--restart", a->restart, "From the first image.");
  scrub->add_option("--rate", a->rate,
                    "Size a second; default: as before, or the agent's "
                    "--scrub-rate.");
  AddOutputOption(scrub, context);
  scrub->callback([context, a] {
    context->run = [context, a] { return Scrub(*a, *context); };
  });
}

}  // namespace predella::cli
