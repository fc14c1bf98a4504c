#include "common/mount_description.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/message_lite.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella {
namespace {

constexpr absl::string_view kBegin = "predella-mount-description 1";

absl::Status Wrong(int64_t line, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
      absl::StrCat("the description of a mount is damaged at line ", line, ": ",
                   why, "; write it anew with predella-agent describe"));
}

std::string Hex(const google::protobuf::MessageLite& message) {
  return absl::BytesToHexString(message.SerializeAsString());
}

bool ParseHex(absl::string_view hex, google::protobuf::MessageLite* message) {
  // HexStringToBytes takes any letter; the checksum of the lines has been
  // looked at, so this is what was written.
  return message->ParseFromString(absl::HexStringToBytes(hex));
}

bool TakeField(absl::string_view key, absl::string_view value,
               MountDescription* out) {
  if (key == "label") {
    return ParseHex(value, &out->label);
  }
  if (key == "known") {
    return ParseHex(value, &out->known);
  }
  if (key == "deletes") {
    return ParseHex(value, &out->deletes);
  }
  if (key == "images") {
    return absl::SimpleAtoi(value, &out->image_count);
  }
  if (key == "bytes") {
    return absl::SimpleAtoi(value, &out->image_bytes);
  }
  if (key == "path") {
    return absl::CUnescape(value, &out->path);
  }
  // Lines of a later version may be passed over.
  return key != "warning" ||
         absl::CUnescape(value, &out->warnings.emplace_back());
}

}  // namespace

std::string EncodeDescription(const MountDescription& description) {
  std::string out = absl::StrCat(
      kBegin, "\n", "path ", absl::CEscape(description.path), "\n", "label ",
      Hex(description.label), "\n", "known ", Hex(description.known), "\n",
      "deletes ", Hex(description.deletes), "\n", "images ",
      description.image_count, "\n", "bytes ", description.image_bytes, "\n");
  for (const std::string& warning : description.warnings) {
    absl::StrAppend(&out, "warning ", absl::CEscape(warning), "\n");
  }
  absl::StrAppend(&out, "end ", absl::Hex(Crc32c(out), absl::kZeroPad8), "\n");
  return out;
}

absl::StatusOr<std::vector<MountDescription>> ParseDescriptions(
    absl::string_view text) {
  std::vector<MountDescription> all;
  MountDescription one;
  size_t begin = 0;
  bool inside = false;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    ++number;
    const size_t newline = text.find('\n', at);
    if (newline == absl::string_view::npos) {
      return Wrong(number, "it ends in the middle of a line");
    }
    const absl::string_view line = text.substr(at, newline - at);
    const size_t line_at = at;
    at = newline + 1;
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    if (!inside) {
      if (line != kBegin) {
        return Wrong(number, absl::StrCat("\"", kBegin, "\" is missing"));
      }
      inside = true;
      begin = line_at;
      one = MountDescription();
    } else if (field.first == "end") {
      const std::string crc = absl::StrCat(absl::Hex(
          Crc32c(text.substr(begin, line_at - begin)), absl::kZeroPad8));
      if (field.second != crc) {
        return Wrong(number, "its checksum is wrong");
      }
      // Only now: what the lines say is what was written.
      int64_t inner = number;
      for (const absl::string_view checked :
           absl::StrSplit(text.substr(begin, line_at - begin), '\n')) {
        const std::pair<absl::string_view, absl::string_view> said =
            absl::StrSplit(checked, absl::MaxSplits(' ', 1));
        if (!TakeField(said.first, said.second, &one)) {
          return Wrong(inner, absl::StrCat("\"", said.first,
                                           "\" does not say what it should"));
        }
      }
      all.push_back(std::move(one));
      inside = false;
    }
  }
  if (inside) {
    return Wrong(number, "its end is missing");
  }
  return all;
}

}  // namespace predella
