#!/usr/bin/env bash
# Runs a command as root in a user-mode Linux guest, which has what this
# machine's kernel may lack: an NFS server and client. The guest sees this
# machine's files, read-only; /tmp, /run, /mnt, /srv and /var/lib/nfs are its
# own, and /mnt/tree is this source tree, where the command runs in tests/nfs.
# It ends with its process namespace and leaves nothing, also when this is
# killed. Variables that begin with PREDELLA_ are passed on.
#
#   guest.sh --check           says why not, when it can not (exit code 1)
#   guest.sh COMMAND [ARG...]  exit code of the command; 137 after
#                              PREDELLA_GUEST_SECONDS (600); 99: it died
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
memory=${PREDELLA_GUEST_MIB:-1024}

check() {
  [ "$(id -u)" -eq 0 ] || { echo "needs root"; return 1; }
  local missing=() tool
  for tool in linux.uml modprobe rpc.nfsd rpc.mountd exportfs mount.nfs \
      nfsdcld ip tc mkfs.ext4 unshare setpriv; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
      missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] ||
    { echo "needs ${missing[*]} (scripts/setup --nfs)"; return 1; }
  unshare --mount --pid --fork --mount-proc mount -t tmpfs t /mnt 2>/dev/null ||
    { echo "needs mount and process namespaces"; return 1; }
}

case "${1:-}" in
  "") sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
  --check) check; exit ;;
  --inside) shift ;;
  *)
    # setpriv: it ends when the time limit's process is killed, too.
    exec timeout -s KILL "${PREDELLA_GUEST_SECONDS:-600}" \
      setpriv --pdeathsig KILL \
      unshare --mount --propagation private --pid --fork --kill-child \
      --mount-proc "$0" --inside "$@" ;;
esac

# The guest's memory is a file, executable, and gone with this namespace.
mount -t tmpfs -o "exec,mode=0700,size=$((memory + 64))m" guest /dev/shm
mkdir /dev/shm/uml /dev/shm/guest
{
  env | sed -n '/^PREDELLA_[A-Z_]*=/p' |
    while IFS= read -r line; do printf 'export %q\n' "$line"; done
  printf '%q ' "$@"
  echo
} >/dev/shm/guest/command

TMPDIR=/dev/shm HOME=/dev/shm linux.uml "mem=${memory}M" uml_dir=/dev/shm/uml \
  "TREE=$(cd "$here/../.." && pwd)" root=/dev/root rootfstype=hostfs \
  rootflags=/ ro "init=$here/init.sh" con0=fd:0,fd:1 con=null quiet \
  loglevel=1 panic=-1 </dev/null 2>&1 | sed -u 's,\r$,,' || true
exit "$(cat /dev/shm/guest/code 2>/dev/null || echo 99)"
