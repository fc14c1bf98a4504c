#!/usr/bin/env bash
# Runs a command in mount and process namespaces of its own where that is
# allowed, so that what it mounts and starts is gone with it, also when it is
# killed and when a process hangs in a mount; as it is otherwise (its tests
# then skip and say so).
if [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null; then
  export PREDELLA_MOUNT_NAMESPACE=1
  exec unshare --mount --propagation private --pid --fork --kill-child \
    --mount-proc "$@"
fi
exec "$@"
