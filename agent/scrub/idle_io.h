// The priority of a thread's disk I/O.
#ifndef PREDELLA_AGENT_SCRUB_IDLE_IO_H_
#define PREDELLA_AGENT_SCRUB_IDLE_IO_H_

namespace predella::agent {

// From here on the calling thread's I/O waits for everybody else's (true), or
// is as any other (false). Schedulers without priorities ignore it, and a
// kernel that refuses is not asked twice.
void SetIdleIo(bool idle);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SCRUB_IDLE_IO_H_
