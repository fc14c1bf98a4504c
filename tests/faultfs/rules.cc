#include "tests/faultfs/rules.h"

#include <fnmatch.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace predella::faultfs {
namespace {

constexpr absl::string_view kOperations[] = {
    "getattr",  "readdir", "open",     "opendir",  "create",
    "read",     "write",   "flush",    "fsync",    "fdatasync",
    "fsyncdir", "rename",  "link",     "unlink",   "mkdir",
    "rmdir",    "symlink", "readlink", "truncate", "fallocate",
    "statfs",   "chmod",   "chown",    "utimens",  "flock"};

constexpr std::pair<absl::string_view, int> kErrors[] = {
    {"EIO", EIO},
    {"ENOSPC", ENOSPC},
    {"EROFS", EROFS},
    {"EDQUOT", EDQUOT},
    {"ESTALE", ESTALE},
    {"EMFILE", EMFILE},
    {"ENOMEM", ENOMEM},
    {"EINTR", EINTR},
    {"EACCES", EACCES},
    {"EPERM", EPERM},
    {"ENOENT", ENOENT},
    {"EEXIST", EEXIST},
    {"ENODEV", ENODEV},
    {"ENXIO", ENXIO},
    {"ENOTCONN", ENOTCONN},
    {"EAGAIN", EAGAIN},
    {"EBUSY", EBUSY},
    {"EFBIG", EFBIG},
    {"EUCLEAN", EUCLEAN},
    {"EINVAL", EINVAL},
    {"EOPNOTSUPP", EOPNOTSUPP},
    {"ETIMEDOUT", ETIMEDOUT}};

absl::Status Refused(absl::string_view what, absl::string_view value) {
  return absl::InvalidArgumentError(absl::StrCat(what, " \"", value, "\""));
}

absl::Status ParseOperations(absl::string_view value, Rule* rule) {
  if (value == "*") {
    return absl::OkStatus();
  }
  for (const absl::string_view name : absl::StrSplit(value, ',')) {
    if (std::find(std::begin(kOperations), std::end(kOperations), name) ==
        std::end(kOperations)) {
      return Refused("unknown operation", name);
    }
    rule->operations.insert(std::string(name));
  }
  return absl::OkStatus();
}

absl::Status ParseErrno(absl::string_view value, Rule* rule) {
  for (const auto& [name, error] : kErrors) {
    if (value == name) {
      rule->error = error;
    }
  }
  if (rule->error == 0 && !absl::SimpleAtoi(value, &rule->error)) {
    return Refused("unknown errno", value);
  }
  // The kernel takes ENOSYS for "never ask for this again".
  if (rule->error <= 0 || rule->error >= 512 || rule->error == ENOSYS) {
    return Refused("errno that can not be given", value);
  }
  return absl::OkStatus();
}

absl::Status ParseAction(absl::string_view value, Rule* rule) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(value, absl::MaxSplits(':', 1));
  const bool argument = !parts.second.empty();
  if (parts.first == "error" && argument) {
    rule->action = Action::kError;
    return ParseErrno(parts.second, rule);
  }
  if (parts.first == "delay" && argument) {
    int64_t ms = 0;
    if (!absl::SimpleAtoi(parts.second, &ms) || ms <= 0) {
      return Refused("delay in milliseconds", parts.second);
    }
    rule->action = Action::kDelay;
    rule->delay = std::chrono::milliseconds(ms);
    return absl::OkStatus();
  }
  constexpr std::pair<absl::string_view, Action> kPlain[] = {
      {"hang", Action::kHang},
      {"pass", Action::kPass},
      {"corrupt", Action::kCorrupt},
      {"short", Action::kShort},
      {"lie", Action::kLie}};
  for (const auto& [name, action] : kPlain) {
    if (parts.first == name && !argument) {
      rule->action = action;
      return absl::OkStatus();
    }
  }
  return Refused("unknown action", value);
}

// Whether each of its operations can do what the rule says.
absl::Status CheckEffect(const Rule& rule) {
  std::set<std::string> able;
  if (rule.action == Action::kCorrupt || rule.action == Action::kShort) {
    able = {"read", "write"};
  } else if (rule.action == Action::kLie) {
    able = {"fsync", "fdatasync", "fsyncdir", "write"};
  } else {
    return absl::OkStatus();
  }
  if (rule.operations.empty() ||
      !std::includes(able.begin(), able.end(), rule.operations.begin(),
                     rule.operations.end())) {
    return Refused("not every operation can do so:", rule.text);
  }
  return absl::OkStatus();
}

bool Matches(const Rule& rule, absl::string_view operation,
             const std::string& path, const std::string& other) {
  if (!rule.operations.empty() &&
      rule.operations.count(std::string(operation)) == 0) {
    return false;
  }
  return rule.path.empty() ||
         ::fnmatch(rule.path.c_str(), path.c_str(), 0) == 0 ||
         (!other.empty() &&
          ::fnmatch(rule.path.c_str(), other.c_str(), 0) == 0);
}

}  // namespace

absl::StatusOr<Rule> ParseRule(absl::string_view text) {
  Rule rule;
  rule.text = std::string(text);
  bool operation = false;
  bool action = false;
  for (const absl::string_view word :
       absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(word, absl::MaxSplits('=', 1));
    absl::Status status;
    if (parts.first == "op") {
      operation = true;
      status = ParseOperations(parts.second, &rule);
    } else if (parts.first == "do") {
      action = true;
      status = ParseAction(parts.second, &rule);
    } else if (parts.first == "path") {
      rule.path = std::string(parts.second);
    } else if (parts.first == "skip" || parts.first == "count") {
      int64_t* const out = parts.first == "skip" ? &rule.skip : &rule.count;
      if (!absl::SimpleAtoi(parts.second, out) || *out < 0) {
        status = Refused(parts.first, parts.second);
      }
    } else {
      status = Refused("unknown word", word);
    }
    if (!status.ok()) {
      return status;
    }
  }
  if (!operation || !action) {
    return Refused("op= and do= are needed:", text);
  }
  const absl::Status effect = CheckEffect(rule);
  if (!effect.ok()) {
    return effect;
  }
  return rule;
}

int RuleTable::Add(Rule rule) {
  MutexLock lock(&mu_);
  const int number = next_++;
  entries_[number].rule = std::move(rule);
  return number;
}

bool RuleTable::Remove(int number) {
  MutexLock lock(&mu_);
  changed_.SignalAll();
  return entries_.erase(number) > 0;
}

void RuleTable::Clear() {
  MutexLock lock(&mu_);
  entries_.clear();
  changed_.SignalAll();
}

void RuleTable::Disarm() {
  MutexLock lock(&mu_);
  disarmed_ = true;
  entries_.clear();
  changed_.SignalAll();
}

RuleTable::Entry* RuleTable::FindLocked(absl::string_view operation,
                                        const std::string& path,
                                        const std::string& other, int* number) {
  for (auto& [key, entry] : entries_) {
    if (!Matches(entry.rule, operation, path, other)) {
      continue;
    }
    ++entry.matched;
    if (entry.matched <= entry.rule.skip ||
        (entry.rule.count >= 0 && entry.injected >= entry.rule.count)) {
      continue;
    }
    ++entry.injected;
    if (entry.rule.action != Action::kPass) {
      *number = key;
      return &entry;
    }
  }
  return nullptr;
}

void RuleTable::WaitLocked(int number, const std::chrono::milliseconds* delay) {
  const auto end = std::chrono::steady_clock::now() +
                   (delay == nullptr ? std::chrono::milliseconds(0) : *delay);
  ++entries_[number].waiting;
  while (entries_.count(number) > 0) {
    if (delay == nullptr) {
      changed_.Wait(&mu_);
      continue;
    }
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) {
      break;
    }
    changed_.WaitFor(&mu_, left);
  }
  const auto entry = entries_.find(number);
  if (entry != entries_.end()) {
    --entry->second.waiting;
  }
}

Verdict RuleTable::Ask(absl::string_view operation, const std::string& path,
                       const std::string& other) {
  MutexLock lock(&mu_);
  ++calls_[std::string(operation)];
  while (!disarmed_) {
    int number = 0;
    const Entry* const entry = FindLocked(operation, path, other, &number);
    if (entry == nullptr) {
      break;
    }
    const Rule rule = entry->rule;
    switch (rule.action) {
      case Action::kHang:
        WaitLocked(number, nullptr);
        continue;  // whatever holds now
      case Action::kDelay:
        WaitLocked(number, &rule.delay);
        return {};
      default:
        return {rule.error, rule.action == Action::kCorrupt,
                rule.action == Action::kShort, rule.action == Action::kLie};
    }
  }
  return {};
}

std::string RuleTable::Report() {
  MutexLock lock(&mu_);
  std::string out;
  for (const auto& [number, entry] : entries_) {
    absl::StrAppend(&out, "rule ", number, " matched=", entry.matched,
                    " injected=", entry.injected, " waiting=", entry.waiting,
                    " ", entry.rule.text, "\n");
  }
  for (const auto& [operation, calls] : calls_) {
    absl::StrAppend(&out, "calls ", operation, " ", calls, "\n");
  }
  return out;
}

}  // namespace predella::faultfs
