#include "server/index/kv_store.h"

#include "common/status_macros.h"

namespace predella::server {

absl::Status KvStore::ScanBack(
    absl::string_view prefix, absl::string_view before, int64_t limit,
    const std::function<bool(absl::string_view, absl::string_view)>& row) {
  std::vector<std::pair<std::string, std::string>> found;
  RETURN_IF_ERROR(
      Scan(prefix, "", 0, [&](absl::string_view key, absl::string_view value) {
        if (!before.empty() && key >= before) {
          return false;
        }
        found.emplace_back(key, value);
        return true;
      }));
  int64_t seen = 0;
  for (auto it = found.rbegin();
       it != found.rend() && (limit <= 0 || seen < limit); ++it, ++seen) {
    if (!row(it->first, it->second)) {
      break;
    }
  }
  return absl::OkStatus();
}

}  // namespace predella::server
