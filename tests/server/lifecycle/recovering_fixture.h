// The index was put back from an older copy, and the mounts tell what it lacks.
#ifndef PREDELLA_TESTS_SERVER_LIFECYCLE_RECOVERING_FIXTURE_H_
#define PREDELLA_TESTS_SERVER_LIFECYCLE_RECOVERING_FIXTURE_H_

#include <string>
#include <vector>

#include "common/generation.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {

class RecoveringFixture : public LifecycleFixture {
 protected:
  RecoveringFixture() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {}

  // What asks for listings, takes them in, and ends RECOVERING.
  void List() {
    Tick();
    Tick();
  }
  bool recovering() { return lifecycle_->trust().recovering(); }
  std::vector<std::string> Checks() {
    std::vector<std::string> codes;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      codes.push_back(check.code());
    }
    return codes;
  }
  Generation GenerationOf(const Uuid& image) {
    const auto row = index_->GetImage(image);
    return row.ok() && row->has_value()
               ? Generation::FromProto((*row)->generation())
               : Generation();
  }

  const Uuid image_;
  const Uuid upload_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_SERVER_LIFECYCLE_RECOVERING_FIXTURE_H_
