// Two mounts, an image on the first, and files that no row names.
#ifndef PREDELLA_TESTS_SERVER_LIFECYCLE_ORPHANS_FIXTURE_H_
#define PREDELLA_TESTS_SERVER_LIFECYCLE_ORPHANS_FIXTURE_H_

#include <cstdint>
#include <string>

#include "gtest/gtest.h"

#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {

class OrphansFixture : public LifecycleFixture {
 protected:
  OrphansFixture() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {
    a_ = AddConnected("a", 1);
    b_ = AddConnected("b", 2);
    Upload(a_, image_, upload_);
  }
  // Both were listed: only a mount that registers again is from then on.
  void ListBoth() {
    Tick();
    Tick();
  }
  void Again(FakeAgent* agent) {
    agent->Lose();
    Settle();
    Connect(agent);
    Tick();
    Settle();
  }
  std::string HolderOf(const Uuid& image) {
    const auto row = index_->GetImage(image);
    if (!row.ok() || !row->has_value() || (*row)->copies_size() != 1) {
      return "";
    }
    const Uuid uid = Uuid::FromBytesOrNone((*row)->copies(0).mount_uid());
    return registry_->Find(uid)->row.mount_name();
  }
  int64_t Count(FakeAgent* agent) {
    return lifecycle_->inventory().OrphanCount(agent->uid());
  }
  v1::ListOrphansResponse List(int page_size = 0, const std::string& token = "",
                               const std::string& mount = "") {
    v1::ListOrphansRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    request.set_mount(mount);
    const auto response = lifecycle_->orphans().List(request);
    EXPECT_OK(response);
    return response.ok() ? *response : v1::ListOrphansResponse();
  }
  v1::RemoveOrphanRequest RemovalOf(const v1::Orphan& orphan,
                                    bool dry = false) {
    v1::RemoveOrphanRequest request;
    request.set_mount(orphan.mount());
    request.set_image(orphan.image());
    request.set_generation(orphan.generation());
    request.set_validate_only(dry);
    return request;
  }
  v1::AdoptOrphanRequest AdoptionOf(const v1::Orphan& orphan,
                                    bool dry = false) {
    v1::AdoptOrphanRequest request;
    request.set_mount(orphan.mount());
    request.set_image(orphan.image());
    request.set_generation(orphan.generation());
    request.set_validate_only(dry);
    return request;
  }

  const Uuid image_;
  const Uuid upload_;
  FakeAgent* a_ = nullptr;
  FakeAgent* b_ = nullptr;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_SERVER_LIFECYCLE_ORPHANS_FIXTURE_H_
