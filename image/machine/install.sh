#!/bin/sh
# Adds to the plain Debian tree ROOT what a machine of its own needs. Runs in a mount namespace of its own.
#   install.sh ROOT
set -eu
here=$(dirname "$(readlink -f "$0")") root=$1
listed() { sed '/^#/d; /^$/d' "$here/$1"; }

# First, because the kernel's package makes the initrd by what stands there.
tar -C "$here/rootfs" --owner=0 --group=0 --mode=u=rwX,go=rX -cf - . | tar -C "$root" -xf -

mount -t proc proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
in_root() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
in_root apt-get update -q
# shellcheck disable=SC2046 # the list is words
in_root apt-get install -q --yes --no-install-recommends $(listed packages.txt)

# Modules unpacked: a machine loads some fifty of them at boot, and unpacking takes an emulated one seconds.
version=$(ls "$root/usr/lib/modules")
find "$root/usr/lib/modules/$version" -name '*.ko.xz' -exec xz --decompress {} +
in_root depmod "$version"
in_root mktirfs -o /boot/initrd.img "$version"
# Nothing in it is secret, and who isn't root boots it too, to see whether machines run by hardware.
chmod 0644 "$root/boot/initrd.img"
mv "$root/boot/vmlinuz-$version" "$root/boot/vmlinuz"
rm -f "$root"/boot/*"$version" "$root"/vmlinuz* "$root"/initrd.img*

# Not in /etc, where the presets of the node would unmask some of them again.
masks=$root/usr/local/lib/systemd/system
mkdir -p "$masks"
for unit in $(listed masked.txt); do ln -s /dev/null "$masks/$unit"; done
mkdir "$masks/local-fs.target.wants"
ln -s /usr/lib/systemd/system/systemd-growfs-root.service "$masks/local-fs.target.wants/"

# The user of vagrant, with the key that every vagrant has. Seed data shuts it out: see sshd_config.d/10-listen.conf.
in_root useradd --create-home --shell /bin/bash --password '*' vagrant
in_root install -d -m 0700 -o vagrant -g vagrant /home/vagrant/.ssh
in_root install -m 0600 -o vagrant -g vagrant /dev/stdin /home/vagrant/.ssh/authorized_keys < "$here/vagrant.pub"
chmod 0440 "$root/etc/sudoers.d/vagrant"

in_root apt-get clean
umount "$root/proc"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old "$root"/var/log/apt "$root/etc/resolv.conf"
