// Which operations of the fault file system go wrong, and how.
//
// A rule is one line of words:
//
//   op=OP[,OP...] do=ACTION [path=GLOB] [skip=N] [count=N]
//
//   OP      one of kOperations, or * for all of them
//   ACTION  error:NAME  fails with that errno (EIO, or a number)
//           hang        waits until the rule is gone, then asks again
//           delay:MS    waits, then goes on
//           corrupt     flips a bit in the middle of a read or write
//           short       does half of a read or write
//           lie         a sync or write that does nothing and says it did
//           pass        only counts
//   GLOB    of the path below the mount, as in fnmatch(3); * spans slashes.
//           A rename or link is meant by either of its names.
//
// The first rule that has something to do decides. Rules come and go at any
// time and say what they did.
#ifndef PREDELLA_TESTS_FAULTFS_RULES_H_
#define PREDELLA_TESTS_FAULTFS_RULES_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/mutex.h"

namespace predella::faultfs {

enum class Action { kPass, kError, kHang, kDelay, kCorrupt, kShort, kLie };

struct Rule {
  std::set<std::string> operations;  // empty: all
  Action action = Action::kPass;
  int error = 0;
  std::chrono::milliseconds delay{0};
  std::string path;  // empty: any
  int64_t skip = 0;
  int64_t count = -1;  // below 0: without end
  std::string text;
};

// Refuses what could not take effect: an unknown operation, a lie of a read.
absl::StatusOr<Rule> ParseRule(absl::string_view text);

// What an operation is to do; at most one of them.
struct Verdict {
  int error = 0;
  bool corrupt = false;
  bool half = false;
  bool lie = false;
};

// Thread-safe.
class RuleTable {
 public:
  // Returns the number by which it is removed.
  int Add(Rule rule);
  bool Remove(int number);
  void Clear();
  // Clear, and no rule works any more: nothing hangs at the unmount.
  void Disarm();

  // Waits as long as a rule says so. `other` is the second name of a rename or
  // link.
  Verdict Ask(absl::string_view operation, const std::string& path,
              const std::string& other = "");

  // A line a rule, then one for each operation that was asked for.
  std::string Report();

 private:
  struct Entry {
    Rule rule;
    int64_t matched = 0;
    int64_t injected = 0;
    int64_t waiting = 0;
  };
  // Null: nothing to do.
  Entry* FindLocked(absl::string_view operation, const std::string& path,
                    const std::string& other, int* number)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Until the rule is gone, or for `delay`.
  void WaitLocked(int number, const std::chrono::milliseconds* delay)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar changed_;
  bool disarmed_ ABSL_GUARDED_BY(mu_) = false;
  int next_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<int, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::faultfs

#endif  // PREDELLA_TESTS_FAULTFS_RULES_H_
