#include "server/lifecycle/agent_watch.h"

#include <cstddef>
#include <utility>

namespace predella::server {
namespace {

// Names are what strangers say: no number of them fills the memory.
constexpr size_t kMostAgents = 1000;

}  // namespace

void AgentWatch::Refused(const control::v1::Hello& hello,
                         const absl::Status& why, absl::Duration now) {
  Note({hello, why, {}, now});
}

void AgentWatch::WithoutMount(const control::v1::Hello& hello,
                              const control::v1::MountHealth& health,
                              absl::Duration now) {
  Note({hello, absl::OkStatus(), health, now});
}

void AgentWatch::Note(Agent agent) {
  if (agent.hello.mount_name().empty()) {
    return;
  }
  MutexLock lock(&mu_);
  if (agents_.size() >= kMostAgents) {
    std::erase_if(agents_, [&](const auto& known) {
      return agent.seen - known.second.seen >= kForgetAfter;
    });
  }
  if (agents_.size() < kMostAgents) {
    agents_[agent.hello.mount_name()] = std::move(agent);
  }
}

void AgentWatch::Left(const std::string& mount_name) {
  MutexLock lock(&mu_);
  const auto it = agents_.find(mount_name);
  if (it != agents_.end() && it->second.refusal.ok()) {
    agents_.erase(it);
  }
}

void AgentWatch::Registered(const std::string& mount_name) {
  MutexLock lock(&mu_);
  agents_.erase(mount_name);
}

std::vector<AgentWatch::Agent> AgentWatch::List(absl::Duration now) const {
  std::vector<Agent> out;
  MutexLock lock(&mu_);
  for (const auto& [name, agent] : agents_) {
    if (now - agent.seen < kForgetAfter) {
      out.push_back(agent);
    }
  }
  return out;
}

}  // namespace predella::server
