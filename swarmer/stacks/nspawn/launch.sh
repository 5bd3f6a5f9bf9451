#!/bin/sh
# Boots one node, and again when it reboots. Runs in the cluster's network namespace and in a mount namespace of its
# own, so that the node's mounts end with its last process, however that ends. That one follows the host: an unmount
# there isn't held up by a running node. Everything comes as variables.
set -eu
umask 022

mount -t overlay overlay -o "lowerdir=$LOWERDIR,upperdir=$NODE/upper,workdir=$NODE/work" "$NODE/root"

# nspawn's locks and sockets are named after the machine; two clusters may have nodes of one name.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn

if [ "$FRESH_CGROUP2" = 1 ]; then
  # A host with cgroup v1 controllers: the node gets a pure v2 tree, which its systemd and docker want.
  mount -t cgroup2 none /sys/fs/cgroup
  own_group() { "$@"; }
else
  # The node gets the controllers of our group, so that its docker can limit containers. They go no further than to a
  # group that has processes itself: so we have one beside the node's, and each boot has one of its own.
  ours=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
  mkdir "$ours/launcher"
  echo $$ >"$ours/launcher/cgroup.procs"
  sed 's/[^ ]*/+&/g' "$ours/cgroup.controllers" >"$ours/cgroup.subtree_control"
  boots=0
  own_group() {
    boots=$((boots + 1))
    mkdir "$ours/boot-$boots"
    sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$ours/boot-$boots/cgroup.procs" "$@"
  }
fi

# Dropped: what would reach through to the host's kernel or clock.
boot() {
  # The kernel removes the link of a node that was killed a moment after its last process ended.
  ip link delete "vb-$NAME" 2>/dev/null || true
  own_group systemd-nspawn --quiet --register=no --keep-unit --boot \
    --directory="$NODE/root" --machine="$NAME" --network-bridge="$BRIDGE" --bind="$NODE/docker:/var/lib/docker" \
    --resolv-conf=off --timezone=off --link-journal=no --console=read-only --capability=all \
    --drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME,CAP_SYS_RAWIO,CAP_SYSLOG,CAP_WAKE_ALARM,CAP_BLOCK_SUSPEND \
    --system-call-filter='@keyring bpf add_key keyctl'
}

# 133: the node asks to be booted again (systemd-nspawn(1), --keep-unit).
status=133
while [ "$status" = 133 ]; do
  boot && status=0 || status=$?
done
exit "$status"
