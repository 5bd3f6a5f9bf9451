#!/bin/sh
# Makes DISK, a raw disk image that boots by itself, by BIOS and by UEFI, from the tree ROOT. No loop device is needed.
# Runs in a mount namespace of its own.
#   disk.sh DISK ROOT
set -eu
here=$(dirname "$(readlink -f "$0")") disk=$1 root=$2
MiB=$((1024 * 1024)) boot_size=40 size=8192 # what hypervisors are told, so that a fresh disk of that size needs no growing
root_size=$((size - boot_size - 2))
uuid=$(sed -n 's/^options root=UUID=\([^ ]*\).*/\1/p' "$here/boot/entry.conf")

# One FAT partition holds the kernel and both boot loaders: syslinux for BIOS, systemd-boot for UEFI.
boot=$disk.boot
truncate --size=${boot_size}M "$boot"
mkfs.fat -F 16 -n BOOT -i 5A3D0001 -h 2048 --invariant "$boot" >/dev/null
mmd -i "$boot" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
mcopy -i "$boot" "$root/boot/vmlinuz" "$root/boot/initrd.img" "$here/boot/syslinux.cfg" ::/
mcopy -i "$boot" /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$boot" "$here/boot/loader.conf" ::/loader/loader.conf
mcopy -i "$boot" "$here/boot/entry.conf" ::/loader/entries/entry.conf
syslinux --install "$boot"

# The root file system is sparse and written as it will be: nothing is left for the first boot to initialize.
rm -rf "$root/boot"
mkdir "$root/boot"
truncate --size=${size}M "$disk"
mke2fs -q -t ext4 -F -L root -U "$uuid" -m 1 -J size=32 -d "$root" \
  -E "offset=$(((1 + boot_size) * MiB)),hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1" \
  "$disk" ${root_size}M

dd if="$boot" of="$disk" bs=$MiB seek=1 conv=notrunc,sparse status=none
rm "$boot"
dd if=/usr/lib/syslinux/mbr/gptmbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
sfdisk --quiet --no-reread --no-tell-kernel "$disk" <<PARTITIONS
label: gpt
label-id: 7C1F0E52-6D0B-4C7E-9A35-5E3A8F1D2B3E
start=1MiB, size=${boot_size}MiB, type=uefi, name=boot, uuid=7C1F0E52-6D0B-4C7E-9A35-5E3A8F1D2B3F, attrs="LegacyBIOSBootable"
start=$((1 + boot_size))MiB, size=${root_size}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=7C1F0E52-6D0B-4C7E-9A35-5E3A8F1D2B40
PARTITIONS
