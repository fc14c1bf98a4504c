// `predella index check`.
#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

// Between two looks whether the mounts were listed.
constexpr absl::Duration kListingPoll = absl::Seconds(1);

struct CheckArguments {
  bool index_only = false;
};

struct ClassText {
  const char* severity;
  const char* repairable;
};

ClassText TextOf(v1::FindingClass finding_class) {
  switch (finding_class) {
    case v1::FINDING_CLASS_FATAL:
      return {"FATAL", "no"};
    case v1::FINDING_CLASS_FATAL_REPAIRABLE:
      return {"FATAL", "yes"};
    case v1::FINDING_CLASS_ERROR:
      return {"ERROR", "no"};
    case v1::FINDING_CLASS_ERROR_REPAIRABLE:
      return {"ERROR", "yes"};
    default:
      return {"UNKNOWN", "no"};  // of a newer coordinator
  }
}

// mount/image, or the key of a row.
std::string ObjectOf(const v1::IndexFinding& finding) {
  std::vector<std::string> parts;
  for (const std::string& name : {finding.mount(), finding.image()}) {
    if (!name.empty()) {
      parts.push_back(Bare(name));
    }
  }
  if (parts.empty() && !finding.row().empty()) {
    parts.push_back(finding.row());
  }
  return parts.empty() ? "-" : absl::StrJoin(parts, "/");
}

// Shows findings as they come, and keeps none of them: there may be one for
// every image.
class CheckReport {
 public:
  CheckReport(bool json, std::ostream* out) : json_(json), out_(out) {}

  absl::Status Add(const v1::IndexFinding& finding) {
    ++counts_[finding.finding_class()];
    if (json_) {
      ASSIGN_OR_RETURN(const std::string json, JsonOf(finding, true));
      *out_ << json << "\n";
      return absl::OkStatus();
    }
    if (findings() == 1) {
      Row("CLASS", "REPAIR", "CODE", "OBJECT", "DETAIL");
    }
    const ClassText text = TextOf(finding.finding_class());
    Row(text.severity, text.repairable, Shown(finding.code()),
        Shown(ObjectOf(finding)), Shown(finding.detail()));
    if (!finding.next_step().empty()) {
      next_.try_emplace(finding.code(), finding.next_step());
    }
    return absl::OkStatus();
  }
  void AddRows(int64_t rows) { rows_ += rows; }
  void AddCompared(const std::string& mount) {
    compared_.push_back(Bare(mount));
  }

  void End(bool index_only) const {
    const auto count = [&](v1::FindingClass finding_class) {
      const auto it = counts_.find(finding_class);
      return it == counts_.end() ? int64_t{0} : it->second;
    };
    const std::array<int64_t, 4> counts = {
        count(v1::FINDING_CLASS_FATAL),
        count(v1::FINDING_CLASS_FATAL_REPAIRABLE),
        count(v1::FINDING_CLASS_ERROR),
        count(v1::FINDING_CLASS_ERROR_REPAIRABLE)};
    if (json_) {
      *out_ << absl::StrFormat(
          "{\"summary\":{\"findings\":%d,\"fatal\":%d,\"fatalRepairable\":%d,"
          "\"error\":%d,\"errorRepairable\":%d,\"rows\":%d,\"indexOnly\":%s,"
          "\"compared\":[%s]}}\n",
          findings(), counts[0], counts[1], counts[2], counts[3], rows_,
          index_only ? "true" : "false",
          absl::StrJoin(compared_, ",",
                        [](std::string* out, const std::string& name) {
                          absl::StrAppend(out, "\"", name, "\"");
                        }));
      return;
    }
    for (const auto& [code, step] : next_) {
      *out_ << "next (" << Shown(code) << "): " << Shown(step) << "\n";
    }
    *out_ << findings() << " findings: " << counts[0] + counts[1] << " fatal ("
          << counts[1] << " repairable), " << counts[2] + counts[3]
          << " others (" << counts[3] << " repairable); " << rows_
          << " rows read, "
          << (index_only ? std::string("no mount was listed")
              : compared_.empty()
                  ? std::string("no mount could be compared")
                  : absl::StrCat("compared with ",
                                 absl::StrJoin(compared_, ", ")))
          << "\n";
  }

  int64_t findings() const {
    int64_t sum = 0;
    for (const auto& [finding_class, count] : counts_) {
      sum += count;
    }
    return sum;
  }

 private:
  void Row(absl::string_view severity, absl::string_view repairable,
           absl::string_view code, absl::string_view object,
           absl::string_view detail) {
    *out_ << absl::StrFormat("%-7s  %-6s  %-24s  %-45s  %s\n", severity,
                             repairable, code, object, detail);
  }

  const bool json_;
  std::ostream* const out_;
  std::map<int, int64_t> counts_;
  // The first of each code.
  std::map<std::string, std::string> next_;
  std::vector<std::string> compared_;
  int64_t rows_ = 0;
};

absl::StatusOr<int> CheckIndex(const CheckArguments& a,
                               const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  CheckReport report(context.format() == Format::kJson, context.out);
  std::string token;
  std::string awaited;
  do {
    ASSIGN_OR_RETURN(const v1::CheckIndexResponse page,
                     client.CheckIndex(a.index_only, token));
    for (const v1::IndexFinding& finding : page.findings()) {
      RETURN_IF_ERROR(report.Add(finding));
    }
    report.AddRows(page.row_count());
    for (const std::string& mount : page.compared()) {
      report.AddCompared(mount);
    }
    token = page.next_page_token();
    if (page.awaited().empty()) {
      continue;
    }
    const std::string now = absl::StrJoin(
        page.awaited(), ", ", [](std::string* out, const std::string& mount) {
          absl::StrAppend(out, Bare(mount));
        });
    if (now != awaited) {
      *context.err << "being listed: " << Shown(now) << "\n" << std::flush;
      awaited = now;
    }
    absl::SleepFor(kListingPoll);
  } while (!token.empty());
  report.End(a.index_only);
  return report.findings() > 0 ? kExitUnhealthy : kExitDone;
}

}  // namespace

void AddIndexCheckCommand(CLI::App* index, Context* context) {
  CLI::App* check = index->add_subcommand(
      "check",
      "Compare the index with itself and with what lies on the mounts, which "
      "are listed for it; repairs nothing.");
  check->footer(
      "Exit code 0: nothing was found; 6: findings, or a mount that could not "
      "be compared. With -o json one finding a line, and a summary.\n"
      "Examples:\n"
      "  predella index check\n"
      "  predella index check --index-only -o json");
  const auto a = std::make_shared<CheckArguments>();
  check->add_flag("--index-only", a->index_only, "List no mount.");
  AddOutputOption(check, context);
  check->callback([context, a] {
    context->run = [context, a] { return CheckIndex(*a, *context); };
  });
}

}  // namespace predella::cli
