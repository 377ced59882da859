#!/bin/sh
# Runs a peer's builder in the private root, with the kernel's modules and an output folder in view:
#   enter.sh ROOT KERNEL RELEASE SCRIPTS OUTPUT MEASURE REPORT PROGRAM [ARGUMENT...]
# Started by `unshare --mount`: every mount made here dies with this process, whatever happens to it.
# Only PROGRAM is measured, and it sees nothing of the host's /boot.
set -eu
root=$1 kernel=$2 release=$3 scripts=$4 output=$5 measure=$6 report=$7
shift 7
mkdir -p "$root/lib/modules/$release" "$root/boot" "$root/bench" "$root/output"
mount --bind "$kernel/lib/modules/$release" "$root/lib/modules/$release"
mount -o remount,bind,ro "$root/lib/modules/$release"
mount --bind "$kernel/boot" "$root/boot"
mount -o remount,bind,ro "$root/boot"
mount --bind "$scripts" "$root/bench"
mount -o remount,bind,ro "$root/bench"
mount --bind "$output" "$root/output"
mount -t proc -o ro proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
exec "$measure" "$report" chroot "$root" "$@"
