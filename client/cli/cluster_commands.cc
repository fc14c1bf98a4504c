#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "absl/time/clock.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

struct PlacementArguments {
  std::string size;
  std::string image;
};

absl::StatusOr<int> Status(const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Cluster cluster, client.GetCluster());
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(cluster, context.out));
  } else {
    PrintCluster(cluster, absl::Now(), context.out);
  }
  return cluster.health() == v1::CLUSTER_HEALTH_OK ? kExitDone : kExitUnhealthy;
}

absl::StatusOr<int> Explain(const PlacementArguments& a,
                            const Context& context) {
  std::optional<int64_t> size;
  if (!a.size.empty()) {
    ASSIGN_OR_RETURN(size, ParseSize(a.size));
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::PlacementDecision decision,
                   client.ExplainPlacement(size, a.image));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(decision, context.out));
  } else {
    PrintDecision(decision, context.format() == Format::kWide, context.out);
  }
  return decision.winner().empty() ? kExitUnhealthy : kExitDone;
}

}  // namespace

void AddClusterCommands(CLI::App* app, Context* context) {
  CLI::App* cluster =
      app->add_subcommand("cluster", "See all mounts and images as one.");
  cluster->require_subcommand(1);
  CLI::App* status = cluster->add_subcommand(
      "status", "Say how the cluster is; exit code 6 unless all is well.");
  status->footer(
      "Example:\n"
      "  predella cluster status -o json | jq -r .health");
  AddOutputOption(status, context);
  status->callback(
      [context] { context->run = [context] { return Status(*context); }; });

  CLI::App* placement =
      app->add_subcommand("placement", "Where images go, and why.");
  placement->require_subcommand(1);
  const auto a = std::make_shared<PlacementArguments>();
  CLI::App* explain = placement->add_subcommand(
      "explain",
      "Say where an image would go, and why; changes nothing. Exit code 6 if "
      "no mount can take it.");
  explain->footer(
      "Example:\n"
      "  predella placement explain --size 20GiB -o wide");
  explain->add_option("--size", a->size,
                      "Size of the image (20GiB); default: unknown.");
  explain->add_option("--image", a->image, "UUID of the image.");
  AddOutputOption(explain, context);
  explain->callback([context, a] {
    context->run = [context, a] { return Explain(*a, *context); };
  });
}

}  // namespace predella::cli
