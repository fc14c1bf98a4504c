#include "agent/store/layout.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/ids.h"

namespace predella::agent::layout {

std::string ImagePath(const Uuid& image_id) { return image_id.ToString(); }

std::string ShardPath(int shard) {
  return absl::StrCat(kRecordsDir, "/",
                      absl::Hex(shard & 0xff, absl::kZeroPad2));
}

std::string ShardPathOf(const Uuid& image_id) {
  return absl::StrCat(kRecordsDir, "/", image_id.ToString().substr(0, 2));
}

std::string RecordPath(const Uuid& image_id) {
  return absl::StrCat(ShardPathOf(image_id), "/", image_id.ToString());
}

std::string InflightPath(const Uuid& upload_id) {
  return absl::StrCat(kInflightDir, "/", upload_id.ToString());
}

std::string StatePath(const Uuid& upload_id) {
  return absl::StrCat(InflightPath(upload_id), kStateSuffix);
}

std::string TempPath(absl::string_view path) {
  return absl::StrCat(path, kTempSuffix);
}

std::optional<Uuid> IdOfName(absl::string_view name) {
  const auto id = Uuid::Parse(name);
  if (!id.ok() || id->none()) {
    return std::nullopt;
  }
  return *id;
}

}  // namespace predella::agent::layout
