#include "server/index/rocksdb_manifest.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/status.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

constexpr char kName[] = "/PREDELLA_MANIFEST";
constexpr absl::string_view kPrefix = "MANIFEST-";

struct Noted {
  std::string manifest;
  uint64_t number = 0;
  uint64_t size = 0;
  std::string crc32c;
};

absl::Status Damaged(const std::string& path, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kDataLoss, reason::kIndexUnavailable,
      absl::StrCat("the index at ", path, " is damaged (", why,
                   "); rows would be missing from it. It is never repaired "
                   "automatically, and nothing on the mounts is touched: keep "
                   "this directory, and put the newest copy of it in its "
                   "place"),
      {{"path", path}});
}

uint64_t NumberOf(absl::string_view manifest) {
  uint64_t number = 0;
  return absl::ConsumePrefix(&manifest, kPrefix) &&
                 absl::SimpleAtoi(manifest, &number)
             ? number
             : 0;
}

// "MANIFEST-000015 365 5b3a9c10 END\n"; anything else says nothing.
bool Parse(absl::string_view text, Noted* out) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::StripSuffix(text, "\n"), ' ');
  if (parts.size() != 4 || parts[3] != "END" ||
      !absl::SimpleAtoi(parts[1], &out->size)) {
    return false;
  }
  out->manifest = parts[0];
  out->number = NumberOf(parts[0]);
  out->crc32c = parts[2];
  return out->number > 0;
}

std::string CrcOf(absl::string_view bytes) {
  return absl::StrFormat("%08x", Crc32c(bytes));
}

absl::string_view View(const std::string& text) { return {text}; }

}  // namespace

absl::Status ManifestGuard::Check() {
  std::string text;
  Noted noted;
  if (!rocksdb::ReadFileToString(env_, path_ + kName, &text).ok() ||
      !Parse(View(text), &noted)) {
    return absl::OkStatus();
  }
  std::string current;
  if (!rocksdb::ReadFileToString(env_, path_ + "/CURRENT", &current).ok()) {
    return Damaged(path_, "its file CURRENT is missing");
  }
  current = std::string(absl::StripSuffix(View(current), "\n"));
  const uint64_t number = NumberOf(View(current));
  if (number > noted.number) {
    return absl::OkStatus();  // a newer one, not noted before a crash
  }
  if (current != noted.manifest) {
    return Damaged(path_,
                   absl::StrCat("CURRENT names ", current,
                                ", an older manifest than ", noted.manifest));
  }
  std::string manifest;
  if (const rocksdb::Status read = rocksdb::ReadFileToString(
          env_, absl::StrCat(path_, "/", current), &manifest);
      !read.ok()) {
    return Damaged(path_, absl::StrCat(current, ": ", read.ToString()));
  }
  if (manifest.size() < noted.size) {
    return Damaged(path_, absl::StrCat(current, " has ", manifest.size(),
                                       " of ", noted.size, " bytes"));
  }
  if (CrcOf(View(manifest).substr(0, noted.size)) != noted.crc32c) {
    return Damaged(path_, absl::StrCat("the first ", noted.size, " bytes of ",
                                       current, " are not those it had"));
  }
  return absl::OkStatus();
}

absl::Status ManifestGuard::Write(rocksdb::DB* db) {
  const auto ok = [](const rocksdb::Status& status) {
    return status.ok() ? absl::OkStatus()
                       : absl::UnavailableError(status.ToString());
  };
  std::vector<std::string> files;
  uint64_t size = 0;
  RETURN_IF_ERROR(ok(db->GetLiveFiles(files, &size, /*flush_memtable=*/false)));
  std::string name;
  for (const std::string& file : files) {
    if (absl::StartsWith(absl::StripPrefix(View(file), "/"), kPrefix)) {
      name = std::string(absl::StripPrefix(View(file), "/"));
    }
  }
  std::string bytes;
  RETURN_IF_ERROR(ok(
      rocksdb::ReadFileToString(env_, absl::StrCat(path_, "/", name), &bytes)));
  if (bytes.size() < size) {
    return absl::UnavailableError(absl::StrCat(name, " is shorter than said"));
  }
  const std::string text = absl::StrCat(
      name, " ", size, " ", CrcOf(View(bytes).substr(0, size)), " END\n");
  const std::string temp = absl::StrCat(path_, kName, ".tmp");
  RETURN_IF_ERROR(ok(rocksdb::WriteStringToFile(env_, text, temp,
                                                /*should_sync=*/true)));
  // Not synced: what a power cut leaves is this one or the one before.
  return ok(env_->RenameFile(temp, path_ + kName));
}

void ManifestGuard::Note(rocksdb::DB* db) {
  MutexLock lock(&mu_);
  LogIfError(Write(db), "the note of the index's manifest is older");
}

void ManifestGuard::OnFlushCompleted(rocksdb::DB* db,
                                     const rocksdb::FlushJobInfo& /*info*/) {
  Note(db);
}

void ManifestGuard::OnCompactionCompleted(
    rocksdb::DB* db, const rocksdb::CompactionJobInfo& /*info*/) {
  Note(db);
}

}  // namespace predella::server
