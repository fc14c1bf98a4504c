#include <algorithm>
#include <chrono>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/timestamp.pb.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

struct EventArguments {
  std::string mount;
  std::string kind;
  int last = 50;
  bool follow = false;
};

constexpr int kEventPage = 1000;

std::string Line(const v1::Event& event) {
  const std::string about =
      absl::StrCat(Bare(event.mount()),
                   event.mount().empty() || event.image().empty() ? "" : " ",
                   Bare(event.image()));
  std::string line =
      absl::StrCat(Moment(event.time()), " ", event.kind(), " ",
                   about.empty() ? "-" : about, " ", event.detail());
  if (!event.error().empty()) {
    absl::StrAppend(&line, " [", event.error(), "]");
  }
  if (event.affected_image_count() > 0) {
    absl::StrAppend(&line, " (", event.affected_image_count(), " images)");
  }
  return Shown(line);
}

bool IsLater(const google::protobuf::Timestamp& one,
             const google::protobuf::Timestamp& other) {
  return one.seconds() != other.seconds() ? one.seconds() > other.seconds()
                                          : one.nanos() > other.nanos();
}

// The last that were written, in the order of their time, the newest first.
absl::StatusOr<v1::ListEventsResponse> Newest(const EventArguments& a,
                                              Client* client) {
  v1::ListEventsResponse all;
  std::string token;
  do {
    const int want = std::min(kEventPage, a.last - all.events_size());
    ASSIGN_OR_RETURN(const v1::ListEventsResponse page,
                     client->ListEvents(a.mount, a.kind, want, token));
    all.mutable_events()->MergeFrom(page.events());
    token = page.next_page_token();
  } while (!token.empty() && all.events_size() < a.last);
  // They come as they were written, and some were written late.
  std::stable_sort(all.mutable_events()->begin(), all.mutable_events()->end(),
                   [](const v1::Event& one, const v1::Event& other) {
                     return IsLater(one.time(), other.time());
                   });
  return all;
}

// `shown`: ids of those that are on the screen.
absl::StatusOr<int> Follow(const EventArguments& a, std::string after,
                           const std::set<std::string>& shown, Client* client,
                           const Context& context) {
  std::string mount;
  if (!a.mount.empty()) {
    ASSIGN_OR_RETURN(mount, ParseMountName(a.mount));
  }
  bool told = false;
  absl::Status unwritten;
  const auto show = [&](const v1::Event& event) {
    after = event.id();
    told = false;
    if (shown.contains(event.id())) {
      return true;
    }
    if ((mount.empty() || Bare(event.mount()) == mount) &&
        (a.kind.empty() || event.kind() == a.kind)) {
      const absl::StatusOr<std::string> line =
          context.format() == Format::kJson ? JsonOf(event, /*one_line=*/true)
                                            : Line(event);
      unwritten = line.status();
      if (!line.ok()) {
        return false;
      }
      *context.out << *line << "\n" << std::flush;
    }
    return context.out->good();
  };
  while (true) {
    const absl::Status ended = client->WatchEvents(after, show);
    RETURN_IF_ERROR(unwritten);
    if (!absl::IsUnavailable(ended)) {
      RETURN_IF_ERROR(ended);
      return kExitDone;
    }
    if (!told) {
      *context.err << "the coordinator does not answer; events go on when it "
                      "does\n";
      told = true;
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

absl::StatusOr<int> Events(const EventArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  // Of all events, not only of those that are asked for, and from before they
  // are listed: so that none is missed, whatever happens until the first.
  std::string after;
  if (a.follow) {
    ASSIGN_OR_RETURN(const v1::ListEventsResponse last,
                     client.ListEvents("", "", 1, ""));
    after = last.events().empty() ? "" : last.events(0).id();
  }
  ASSIGN_OR_RETURN(const v1::ListEventsResponse events, Newest(a, &client));
  const bool json = context.format() == Format::kJson;
  if (json && !a.follow) {
    RETURN_IF_ERROR(PrintJson(events, context.out));
    return kExitDone;
  }
  std::set<std::string> shown;
  for (int i = events.events_size() - 1; i >= 0; --i) {
    shown.insert(events.events(i).id());
    // One a line: whoever reads them waits for no bracket.
    ASSIGN_OR_RETURN(const std::string line,
                     json
                         ? JsonOf(events.events(i), /*one_line=*/true)
                         : absl::StatusOr<std::string>(Line(events.events(i))));
    *context.out << line << "\n";
  }
  context.out->flush();
  if (!a.follow) {
    return kExitDone;
  }
  return Follow(a, std::move(after), shown, &client, context);
}

}  // namespace

void AddEventCommands(CLI::App* app, Context* context) {
  const auto a = std::make_shared<EventArguments>();
  CLI::App* events = app->add_subcommand(
      "events", "What happened to mounts and images, the newest last.");
  events->footer(
      "A line has the time, the kind, the mount, the image where it is about\n"
      "one, and what happened. Of a mount that flaps, and while the index\n"
      "took no writes, events are written later, with the time at which it\n"
      "changed: --last takes those that were written last and shows them in\n"
      "the order of their time; --follow goes on with what is written.\n"
      "With --follow -o json each event is one line.\n"
      "Examples:\n"
      "  predella events --mount store-1\n"
      "  predella events --kind mount_health_changed --follow");
  events->add_option("--mount", a->mount, "Only those about this mount.");
  events->add_option("--kind", a->kind, "Only of this kind.");
  events
      ->add_option("-n,--last", a->last,
                   "So many: those that were written last.")
      ->check(CLI::Range(1, 100'000));
  events->add_flag("--follow", a->follow, "Goes on with what happens.");
  AddOutputOption(events, context);
  events->callback([context, a] {
    context->run = [context, a] { return Events(*a, *context); };
  });
}

}  // namespace predella::cli
