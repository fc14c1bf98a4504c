#!/usr/bin/env bash
# Runs a command in a mount namespace of its own where that is allowed, so
# that what it mounts is gone with it; as it is otherwise (its tests then skip
# and say so).
if [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null; then
  export PREDELLA_MOUNT_NAMESPACE=1
  exec unshare --mount --propagation private "$@"
fi
exec "$@"
