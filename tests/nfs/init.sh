#!/usr/bin/env bash
# First process of the guest: see guest.sh.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm
mount -t tmpfs mnt /mnt
mkdir /mnt/host /mnt/tree /mnt/modules
mount -t hostfs -o /dev/shm/guest none /mnt/host
mount --bind "$TREE" /mnt/tree  # before something hides it
for directory in /dev/shm /run /tmp /srv /var/lib/nfs; do
  mount -t tmpfs tmpfs "$directory"
done
mkdir -p /mnt/modules/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /mnt/modules/lib/modules/
for module in loop veth sch_netem nfs nfsv4 nfsd; do
  modprobe -d /mnt/modules "$module" || echo "guest: no module $module"
done
ip link set lo up
mount --make-rshared /
export PREDELLA_BIN=/mnt/tree/build/dev/bin PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=/mnt/tree/tests/integration
hostname guest
cd /mnt/tree/tests/nfs || exit
bash /mnt/host/command </dev/null
echo $? >/mnt/host/code
sync -f /mnt/host/code
echo o >/proc/sysrq-trigger
sleep 10
