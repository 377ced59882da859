#!/bin/busybox sh
# Mount the root and go: the floor.
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while read -r module; do insmod "$module"; done </modules
read -r line </proc/cmdline
for word in $line; do
  case $word in
  root=*) root=${word#root=} ;;
  esac
done
until [ -b "$root" ]; do sleep 0.05; done
mount -o ro -t squashfs "$root" /newroot
for place in dev proc sys; do mount -o move /$place /newroot/$place; done
exec switch_root /newroot /sbin/init
