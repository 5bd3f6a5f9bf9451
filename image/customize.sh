#!/bin/sh
# Turns the plain Debian tree ROOT into the node image. Runs in a mount namespace of its own.
#   customize.sh ROOT
set -eu
here=$(dirname "$(readlink -f "$0")") root=$1

# Git keeps only the executable bit; everything else is root's and readable.
tar -C "$here/rootfs" --owner=0 --group=0 --mode=u=rwX,go=rX -cf - . | tar -C "$root" -xf -

mount -t proc proc "$root/proc"
in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$root" "$@"; }

# Exactly the units of the preset start, whatever packages enabled.
rm -rf "$root"/etc/systemd/system/*.wants
in_root systemctl preset-all --quiet
# Not in /etc, where presets would unmask them.
masks=$root/usr/local/lib/systemd/system
mkdir -p "$masks"
sed '/^#/d; /^$/d' "$here/masked.txt" | while read -r unit; do ln -s /dev/null "$masks/$unit"; done

mkdir -p "$root/etc/systemd/system-generators"
sed '/^#/d; /^$/d' "$here/generators.txt" | while read -r generator; do
  ln -sf /dev/null "$root/etc/systemd/system-generators/$generator"
done

in_root python3 -m compileall -q /usr/lib/python3/dist-packages
umount "$root/proc"

# What a node must make itself, or must not share with another one.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/etc/consul.d/00-log_level.hcl"
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root/var/lib/dbus/machine-id"
: > "$root/etc/machine-id"

# An up-to-date /usr: without these marks every first boot rebuilds the linker cache, the journal catalog and users.
for part in etc var; do
  printf 'TIMESTAMP_NSEC=%s\n' "$(date -r "$root/usr" +%s%N)" > "$root/$part/.updated"
  touch -r "$root/usr" "$root/$part/.updated"
done
