#!/bin/sh
# Boots one node, and boots it again when it reboots. Runs in the cluster's network namespace and in its own mount
# namespace, so that the node's mounts disappear with its last process. Unmounts on the host propagate into that
# namespace, so a running node doesn't keep a file system of the host busy. All parameters are environment variables.
set -eu
umask 022

mount -t overlay overlay -o "lowerdir=$LOWERDIR,upperdir=$NODE/upper,workdir=$NODE/work" "$NODE/root"

# nspawn's locks and sockets are named after the machine, and two clusters may have nodes of the same name.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn

if [ "$FRESH_CGROUP2" = 1 ]; then
  # A host with cgroup v1 controllers: the node gets a pure v2 tree, which its systemd and docker require.
  mount -t cgroup2 none /sys/fs/cgroup
  own_group() { "$@"; }
else
  # The node gets the controllers of this script's group, so that its docker can limit containers. A group that has
  # processes can't pass controllers on to its children: so this script moves to a child group, and each boot gets
  # another one.
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

# The dropped capabilities would give access to the host's kernel or clock.
boot() {
  # After a node is killed, the kernel removes its link only a moment after its last process has ended.
  ip link delete "vb-$NAME" 2>/dev/null || true
  own_group systemd-nspawn --quiet --register=no --keep-unit --boot \
    --directory="$NODE/root" --machine="$NAME" --network-bridge="$BRIDGE" --bind="$NODE/docker:/var/lib/docker" \
    --resolv-conf=off --timezone=off --link-journal=no --console=read-only --capability=all \
    --drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME,CAP_SYS_RAWIO,CAP_SYSLOG,CAP_WAKE_ALARM,CAP_BLOCK_SUSPEND \
    --system-call-filter='@keyring bpf add_key keyctl'
}

# 133: the node requests a reboot (systemd-nspawn(1), --keep-unit).
status=133
while [ "$status" = 133 ]; do
  boot && status=0 || status=$?
done
exit "$status"
