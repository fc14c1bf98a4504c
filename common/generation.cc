#include "common/generation.h"

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/errors.h"

namespace predella {

std::string Generation::ToString() const {
  return absl::StrCat(epoch, "-", n, "-", absl::Hex(nonce, absl::kZeroPad8));
}

absl::StatusOr<Generation> Generation::Parse(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '-');
  Generation g;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &g.epoch) ||
      !absl::SimpleAtoi(parts[1], &g.n) || parts[2].size() != 8 ||
      !absl::SimpleHexAtoi(parts[2], &g.nonce) || g.epoch <= 0 || g.n <= 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("\"", absl::CHexEscape(text.substr(0, 64)),
                     "\" is not a generation such as 12-345-9fa3c1d2: pass on "
                     "the string that the coordinator gave"));
  }
  return g;
}

Generation Generation::FromProto(const storage::v1::Generation& proto) {
  return {proto.epoch(), proto.n(), proto.nonce()};
}

storage::v1::Generation Generation::ToProto() const {
  storage::v1::Generation proto;
  proto.set_epoch(epoch);
  proto.set_n(n);
  proto.set_nonce(nonce);
  return proto;
}

bool HasHeardOf(absl::Span<const storage::v1::FenceEntry> known,
                const Generation& generation) {
  return std::any_of(known.begin(), known.end(),
                     [&](const storage::v1::FenceEntry& entry) {
                       return entry.epoch() > generation.epoch ||
                              (entry.epoch() == generation.epoch &&
                               entry.nonce() == generation.nonce &&
                               entry.max_n() >= generation.n);
                     });
}

}  // namespace predella
