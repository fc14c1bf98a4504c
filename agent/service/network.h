// Where gRPC may be called.
//
// Disk threads share a descriptor table of their own (agent/control/
// disk_executor.h): a socket's number means nothing there, or means a file.
// gRPC writes to its sockets from whatever thread calls it, so every call of
// it, and the end of every object that holds a channel, goes through here.
#ifndef PREDELLA_AGENT_SERVICE_NETWORK_H_
#define PREDELLA_AGENT_SERVICE_NETWORK_H_

#include <functional>
#include <memory>
#include <utility>

namespace predella::agent {

// Makes the threads that run what is handed over, if they are not there yet.
// On a thread that sees the process's descriptors, before any disk task.
void StartNetworkThreads();

// Runs `task` at once, or, on a disk thread, hands it over. Tasks handed over
// may overtake each other.
void OnNetwork(std::function<void()> task);

// Runs `task` on a network thread, whoever calls.
void HandToNetwork(std::function<void()> task);

// A shared pointer to an object that holds a channel. Its last owner may be a
// disk thread, or a reaction: gRPC 1.51 aborts when the last reference to a
// channel goes inside one.
template <typename T>
std::shared_ptr<T> ShareOnNetwork(T* object) {
  StartNetworkThreads();
  return std::shared_ptr<T>(
      object, [](T* last) { HandToNetwork([last] { delete last; }); });
}

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_NETWORK_H_
