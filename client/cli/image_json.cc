#include "client/cli/image_json.h"

#include <string>

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "client/cli/output.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

// "images" is the first field of the answer.
constexpr absl::string_view kHead = "{\n \"images\": [";
constexpr absl::string_view kIndent = "\n  ";

}  // namespace

absl::Status ImageJson::Print(const v1::ListImagesResponse& part) {
  for (const v1::Image& image : part.images()) {
    ASSIGN_OR_RETURN(const std::string json, JsonOf(image, /*one_line=*/false));
    *out_ << (began_ ? "," : kHead) << kIndent
          << absl::StrReplaceAll(absl::StripSuffix(json, "\n"),
                                 {{"\n", kIndent}});
    began_ = true;
  }
  return absl::OkStatus();
}

absl::Status ImageJson::Finish(const v1::ListImagesResponse& rest) {
  ASSIGN_OR_RETURN(const std::string json, JsonOf(rest, /*one_line=*/false));
  if (!began_) {
    *out_ << json;
    return absl::OkStatus();
  }
  *out_ << "\n " << absl::StripPrefix(json, kHead);
  return absl::OkStatus();
}

}  // namespace predella::cli
