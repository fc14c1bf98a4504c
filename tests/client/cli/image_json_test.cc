#include "client/cli/image_json.h"

#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "client/cli/output.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

v1::ListImagesResponse ListOf(int from, int count) {
  v1::ListImagesResponse list;
  for (int i = from; i < from + count; ++i) {
    v1::Image* const image = list.add_images();
    image->set_name(absl::StrCat("images/", i, "\n\"],"));
    image->add_copies()->set_mount("mounts/store-1");
  }
  return list;
}

// However it is taken apart, it is the same text.
TEST(ImageJsonTest, PartsMakeTheWhole) {
  for (const std::vector<int>& parts : std::vector<std::vector<int>>{
           {}, {0}, {1}, {3, 0}, {0, 2, 1}, {1, 1, 1}}) {
    std::ostringstream by_parts;
    ImageJson json(&by_parts);
    v1::ListImagesResponse whole;
    for (const int count : parts) {
      const v1::ListImagesResponse part = ListOf(whole.images_size(), count);
      ASSERT_OK(json.Print(part));
      whole.MergeFrom(part);
    }
    v1::ListImagesResponse rest;
    rest.add_unreachable("mounts/store-2");
    ASSERT_OK(json.Finish(rest));
    whole.MergeFrom(rest);
    std::ostringstream at_once;
    ASSERT_OK(PrintJson(whole, &at_once));
    EXPECT_EQ(by_parts.str(), at_once.str());
  }
}

}  // namespace
}  // namespace predella::cli
