#!/bin/sh
# Runs a program in the private root, with a work folder, this machine's devices and the disk as /disk in view:
#   enter.sh ROOT SCRIPTS WORK DISK MEASURE REPORT PROGRAM [ARGUMENT...]
# Started by `unshare --mount`: every mount made here dies with this process, whatever happens to it.
# Only PROGRAM is measured. RAUC mounts bundles and keeps its state below /run and /mnt: both are memory.
set -eu
root=$1 scripts=$2 work=$3 disk=$4 measure=$5 report=$6
shift 6
mkdir -p "$root/bench" "$root/measured"
mount --bind "$scripts" "$root/bench"
mount -o remount,bind,ro "$root/bench"
mount --bind "$work" "$root/measured"
touch "$root/disk"
mount --bind "$disk" "$root/disk"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
for place in run mnt tmp; do mount -t tmpfs tmpfs "$root/$place"; done
exec "$measure" "$report" chroot "$root" "$@"
