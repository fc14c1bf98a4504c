#include "client/cli/output.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/json_util.h"

#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

bool IsSet(const google::protobuf::Timestamp& time) {
  return time.seconds() != 0 || time.nanos() != 0;
}

std::string OrDash(std::string text) {
  return text.empty() ? "-" : std::move(text);
}

std::string Percent(double value) { return absl::StrFormat("%.0f%%", value); }

std::string MountsOf(const v1::Image& image) {
  std::vector<std::string> names;
  for (const v1::Copy& copy : image.copies()) {
    names.push_back(Bare(copy.mount()));
  }
  return OrDash(absl::StrJoin(names, ","));
}

std::string SpaceBefore(const std::string& text) { return "  " + text; }

void PrintUnreachable(const std::vector<std::string>& mounts,
                      std::ostream* out) {
  if (!mounts.empty()) {
    *out << "not there: " << absl::StrJoin(mounts, ", ") << "\n";
  }
}

template <typename Names>
std::vector<std::string> BareAll(const Names& names) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    out.push_back(Bare(name));
  }
  return out;
}

// "key      value", aligned.
class Facts {
 public:
  void Add(const std::string& key, const std::string& value) {
    facts_.emplace_back(key, OrDash(Shown(value)));
  }
  void Print(std::ostream* out) const {
    size_t width = 0;
    for (const auto& [key, value] : facts_) {
      width = std::max(width, key.size());
    }
    for (const auto& [key, value] : facts_) {
      *out << key << std::string(width - key.size() + 2, ' ') << value << "\n";
    }
  }

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

}  // namespace

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

Table::Table(std::vector<std::string> header) { Add(std::move(header)); }

void Table::Add(std::vector<std::string> row) {
  for (std::string& cell : row) {
    cell = OrDash(Shown(cell));
  }
  rows_.push_back(std::move(row));
}

void Table::Print(std::ostream* out, bool header) const {
  std::vector<size_t> widths(rows_[0].size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  for (size_t r = header ? 0 : 1; r < rows_.size(); ++r) {
    const std::vector<std::string>& row = rows_[r];
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) {
        line.append(widths[i] - row[i].size() + 2, ' ');
      }
    }
    *out << line << "\n";
  }
}

std::string Shown(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", byte);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string ShortSize(int64_t bytes) {
  if (bytes < 0) {
    return absl::StrCat("-", ShortSize(-bytes));
  }
  if (bytes < kKiB) {
    return absl::StrCat(bytes);
  }
  constexpr std::array<char, 5> kUnits = {'K', 'M', 'G', 'T', 'P'};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  // Two digits are enough to compare by eye.
  const double tenths = std::round(value * 10) / 10;
  if (tenths >= 10 || tenths == std::floor(tenths)) {
    return absl::StrFormat("%.0f%c", std::round(value), kUnits[unit]);
  }
  return absl::StrFormat("%.1f%c", tenths, kUnits[unit]);
}

std::string Age(const google::protobuf::Timestamp& time, absl::Time now) {
  if (!IsSet(time)) {
    return "-";
  }
  const int64_t seconds =
      std::max<int64_t>(0, absl::ToInt64Seconds(now - ToTime(time)));
  if (seconds < 120) {
    return absl::StrCat(seconds, "s");
  }
  if (seconds < 2 * 3600) {
    return absl::StrCat(seconds / 60, "m");
  }
  if (seconds < 48 * 3600) {
    return absl::StrCat(seconds / 3600, "h");
  }
  return absl::StrCat(seconds / 86400, "d");
}

std::string Moment(const google::protobuf::Timestamp& time) {
  if (!IsSet(time)) {
    return "-";
  }
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", ToTime(time),
                          absl::UTCTimeZone());
}

std::string Short(v1::Health health) {
  return std::string(absl::StripPrefix(v1::Health_Name(health), "HEALTH_"));
}
std::string Short(v1::ImageHealth health) {
  return std::string(
      absl::StripPrefix(v1::ImageHealth_Name(health), "IMAGE_HEALTH_"));
}
std::string Short(v1::AdminState state) {
  return std::string(
      absl::StripPrefix(v1::AdminState_Name(state), "ADMIN_STATE_"));
}
std::string Short(v1::ClusterHealth health) {
  return std::string(
      absl::StripPrefix(v1::ClusterHealth_Name(health), "CLUSTER_HEALTH_"));
}

std::string Short(v1::CopyFault fault) {
  return std::string(
      absl::StripPrefix(v1::CopyFault_Name(fault), "COPY_FAULT_"));
}

std::string Bare(const std::string& name) {
  const size_t slash = name.find('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}

absl::StatusOr<std::string> JsonOf(const google::protobuf::Message& message,
                                   bool one_line) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = !one_line;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("the answer has no JSON form: ", status.ToString()));
  }
  return json;
}

absl::Status PrintJson(const google::protobuf::Message& message,
                       std::ostream* out) {
  ASSIGN_OR_RETURN(const std::string json, JsonOf(message, /*one_line=*/false));
  *out << json;
  return absl::OkStatus();
}

void ImageTable::Print(const v1::ListImagesResponse& images) {
  std::vector<std::string> header = {"ID", "SIZE", "HEALTH", "MOUNTS"};
  if (wide_) {
    header.insert(header.end(), {"GENERATION", "CRC32C", "READABLE"});
  }
  header.push_back("AGE");
  if (wide_) {
    header.push_back("WHY");
  }
  Table table(header);
  for (const v1::Image& image : images.images()) {
    std::vector<std::string> row = {
        Bare(image.name()), ShortSize(image.size_bytes()),
        image.at_risk() ? "AT_RISK" : Short(image.health()), MountsOf(image)};
    if (wide_) {
      row.insert(row.end(), {image.generation(), image.crc32c_hex(),
                             absl::StrCat(image.readable_copies())});
    }
    row.push_back(Age(image.create_time(), now_));
    if (wide_) {
      row.push_back(image.health_detail());
    }
    table.Add(std::move(row));
  }
  table.Print(out_, !std::exchange(began_, true));
  PrintUnreachable(BareAll(images.unreachable()), out_);
}

void PrintImage(const v1::Image& image, std::ostream* out) {
  Facts facts;
  facts.Add("id", Bare(image.name()));
  facts.Add("size", absl::StrCat(image.size_bytes(), " (",
                                 FormatSize(image.size_bytes()), ")"));
  facts.Add("health", absl::StrCat(Short(image.health()),
                                   image.at_risk() ? ", at risk" : "", ", ",
                                   image.readable_copies(), " of ",
                                   image.copies_size(), " copies readable"));
  if (!image.health_detail().empty()) {
    facts.Add("why", image.health_detail());
  }
  for (const v1::Copy& copy : image.copies()) {
    facts.Add("copy",
              copy.fault() == v1::COPY_FAULT_UNSPECIFIED
                  ? absl::StrCat(Bare(copy.mount()), " ", Short(copy.health()))
                  : absl::StrCat(Bare(copy.mount()), " ", Short(copy.health()),
                                 ", ", Short(copy.fault()), " since ",
                                 Moment(copy.fault_time()), ": ",
                                 copy.fault_detail()));
  }
  for (const v1::ImageConflict& other : image.conflicts()) {
    facts.Add(
        "conflict",
        absl::StrCat("generation ", other.generation(), " on ",
                     Bare(other.mount()), ", ", FormatSize(other.size_bytes()),
                     ", stored ", Moment(other.create_time())));
  }
  facts.Add("crc32c", image.crc32c_hex());
  for (const v1::Hash& hash : image.hashes()) {
    facts.Add(hash.algorithm(), hash.hex());
  }
  facts.Add("generation", image.generation());
  facts.Add("upload", Bare(image.upload()));
  facts.Add("created", Moment(image.create_time()));
  facts.Print(out);
}

void PrintUploads(const v1::ListUploadsResponse& uploads, bool wide,
                  absl::Time now, std::ostream* out) {
  std::vector<std::string> header = {"ID", "MOUNT", "SIZE", "AGE", "QUIET"};
  if (wide) {
    header.insert(header.end(), {"IMAGE", "EXPIRES"});
  }
  Table table(std::move(header));
  for (const v1::Upload& upload : uploads.uploads()) {
    std::vector<std::string> row = {
        Bare(upload.name()), OrDash(Bare(upload.target().mount())),
        upload.has_size_bytes() ? ShortSize(upload.size_bytes()) : "-",
        Age(upload.create_time(), now), Age(upload.live_time(), now)};
    if (wide) {
      row.push_back(Bare(upload.image()));
      row.push_back(Moment(upload.expire_time()));
    }
    table.Add(std::move(row));
  }
  table.Print(out);
}

void PrintOrphans(const v1::ListOrphansResponse& orphans, std::ostream* out) {
  Table table({"MOUNT", "ID", "SIZE", "GENERATION", "DETAIL"});
  for (const v1::Orphan& orphan : orphans.orphans()) {
    table.Add({Bare(orphan.mount()), Bare(orphan.image()),
               ShortSize(orphan.size_bytes()), OrDash(orphan.generation()),
               orphan.detail()});
  }
  table.Print(out);
}

void PrintMounts(const v1::ListMountsResponse& mounts, bool wide,
                 absl::Time now, std::ostream* out) {
  std::vector<std::string> header = {"NAME", "HEALTH", "ADMIN",
                                     "SIZE", "ALLOC",  "RSVD",
                                     "FREE", "CAP",    "IMAGES"};
  if (wide) {
    header.insert(header.end(), {"PRIO", "STORED", "HOST", "PATH", "HEARD"});
  }
  header.push_back("AGE");
  Table table(header);
  for (const v1::Mount& mount : mounts.mounts()) {
    std::vector<std::string> row = {
        Bare(mount.name()),
        Short(mount.health()),
        Short(mount.admin_state()),
        ShortSize(mount.size_bytes()),
        ShortSize(mount.allocated_bytes()),
        ShortSize(mount.promised_bytes() + mount.reserve_bytes()),
        ShortSize(mount.available_bytes()),
        Percent(mount.used_percent()),
        absl::StrCat(mount.image_count())};
    if (wide) {
      row.insert(row.end(), {absl::StrCat(mount.priority()),
                             ShortSize(mount.image_bytes()), mount.host(),
                             mount.path(), Age(mount.heartbeat_time(), now)});
    }
    row.push_back(Age(mount.create_time(), now));
    table.Add(std::move(row));
  }
  table.Print(out);
  for (const v1::Mount& mount : mounts.mounts()) {
    if (!mount.health_detail().empty()) {
      *out << Bare(mount.name()) << ": " << Shown(mount.health_detail())
           << "\n";
    }
    if (mount.stuck_call_count() > 0) {
      *out << Bare(mount.name())
           << ": calls to its directory that did not come back within their "
              "limit: "
           << mount.stuck_call_count() << "\n";
    }
  }
}

void PrintMount(const v1::Mount& mount, absl::Time now, std::ostream* out) {
  Facts facts;
  facts.Add("name", Bare(mount.name()));
  facts.Add("health", mount.health_detail().empty()
                          ? Short(mount.health())
                          : absl::StrCat(Short(mount.health()), ": ",
                                         mount.health_detail()));
  if (IsSet(mount.health_time())) {
    facts.Add("seen so since", mount.health_error().empty()
                                   ? Moment(mount.health_time())
                                   : absl::StrCat(Moment(mount.health_time()),
                                                  ", ", mount.health_error()));
  }
  facts.Add("admin state", mount.admin_reason().empty()
                               ? Short(mount.admin_state())
                               : absl::StrCat(Short(mount.admin_state()), ": ",
                                              mount.admin_reason()));
  if (IsSet(mount.maintenance_until_time())) {
    facts.Add("maintenance until", Moment(mount.maintenance_until_time()));
  }
  facts.Add("uid", mount.uid());
  facts.Add("path", absl::StrCat(mount.host(), ":", mount.path()));
  facts.Add("agent", absl::StrCat("pid ", mount.agent_pid(), ", version ",
                                  OrDash(mount.agent_version()), ", heard ",
                                  Age(mount.heartbeat_time(), now), " ago"));
  facts.Add("addresses", absl::StrJoin(mount.addresses(), " "));
  facts.Add("priority", absl::StrCat(mount.priority()));
  facts.Add("size", FormatSize(mount.size_bytes()));
  facts.Add("allocated", FormatSize(mount.allocated_bytes()));
  facts.Add("promised", FormatSize(mount.promised_bytes()));
  facts.Add("reserve", FormatSize(mount.reserve_bytes()));
  facts.Add("available",
            absl::StrCat(
                FormatSize(mount.available_bytes()),
                mount.available_inodes() < 0
                    ? ""
                    : absl::StrCat(", ", mount.available_inodes(), " inodes")));
  facts.Add("used", mount.fullness() == v1::FULLNESS_NEAR ||
                            mount.fullness() == v1::FULLNESS_FULL
                        ? absl::StrCat(Percent(mount.used_percent()), ", ",
                                       absl::StripPrefix(
                                           v1::Fullness_Name(mount.fullness()),
                                           "FULLNESS_"))
                        : Percent(mount.used_percent()));
  facts.Add("images", absl::StrCat(mount.image_count(), " (",
                                   FormatSize(mount.image_bytes()), ")"));
  facts.Add("missing or damaged", absl::StrCat(mount.fault_count()));
  facts.Add("stuck calls", absl::StrCat(mount.stuck_call_count()));
  facts.Add("scrub", ScrubLine(mount));
  facts.Add("unknown files", absl::StrCat(mount.orphan_count()));
  if (mount.held_upload_count() > 0) {
    facts.Add("held garbage",
              absl::StrCat(mount.held_upload_count(), " uploads (",
                           FormatSize(mount.held_upload_bytes()), ")"));
  }
  facts.Add("removals pending", absl::StrCat(mount.pending_removal_count()));
  facts.Add("trusted", mount.trusted() ? "yes" : "no");
  facts.Add("registered", Moment(mount.create_time()));
  facts.Print(out);
}

void PrintCluster(const v1::Cluster& cluster, absl::Time now,
                  std::ostream* out) {
  Facts facts;
  facts.Add("health", Short(cluster.health()));
  facts.Add("uid", cluster.uid());
  facts.Add("coordinator",
            absl::StrCat("version ", OrDash(cluster.coordinator_version()),
                         ", epoch ", cluster.epoch(), ", up ",
                         Age(cluster.start_time(), now)));
  facts.Add("mounts", absl::StrCat(cluster.mounts_online(), " of ",
                                   cluster.mount_count(), " online"));
  facts.Add("images", absl::StrCat(cluster.image_count(), " (",
                                   FormatSize(cluster.image_bytes()), ")"));
  facts.Add("space",
            absl::StrCat(FormatSize(cluster.available_bytes()), " of ",
                         FormatSize(cluster.size_bytes()), " available"));
  facts.Add("open uploads", absl::StrCat(cluster.open_upload_count()));
  facts.Add("tombstones", absl::StrCat(cluster.tombstone_count()));
  facts.Print(out);
  for (const v1::HealthCheck& check : cluster.checks()) {
    *out << Short(check.severity()) << " " << check.code() << ": "
         << Shown(check.detail()) << "\n";
    if (!check.next_step().empty()) {
      *out << SpaceBefore(Shown(check.next_step())) << "\n";
    }
  }
}

void PrintDecision(const v1::PlacementDecision& decision, bool wide,
                   std::ostream* out) {
  if (decision.winner().empty()) {
    *out << "no mount can take the image; " << decision.considered()
         << " were considered\n";
  } else {
    *out << Bare(decision.winner()) << " takes the image";
    if (!decision.runner_up().empty()) {
      *out << ", before " << Bare(decision.runner_up());
    }
    if (!decision.rule().empty()) {
      *out << ": " << decision.rule();
    }
    *out << "\n";
  }
  std::vector<std::string> header = {"MOUNT", "VERDICT", "PRIO", "AVAILABLE"};
  if (wide) {
    header.push_back("NEEDED");
  }
  header.push_back("DETAIL");
  Table table(header);
  for (const v1::MountVerdict& verdict : decision.verdicts()) {
    std::vector<std::string> row = {
        Bare(verdict.mount()), verdict.verdict(),
        absl::StrCat(verdict.priority()),
        ShortSize(std::max<int64_t>(0, verdict.available_bytes()))};
    if (wide) {
      row.push_back(ShortSize(verdict.needed_bytes()));
    }
    row.push_back(verdict.detail());
    table.Add(std::move(row));
  }
  table.Print(out);
  // A map has no order; people want one.
  std::vector<std::string> refused;
  for (const auto& [reason, count] : decision.refused_by_reason()) {
    refused.push_back(absl::StrCat(reason, " ", count));
  }
  std::sort(refused.begin(), refused.end());
  if (!refused.empty()) {
    *out << "refused: " << absl::StrJoin(refused, ", ") << "\n";
  }
}

}  // namespace predella::cli
