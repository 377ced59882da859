#!/bin/sh
# dracut.sh WHICH OUTPUT RELEASE MODULE...
# `listed` has five of dracut's own modules and exactly the listed kernel modules; `generic` is what the tool
# makes for any machine, with the listed ones added. --hostonly is not among them: it looks at the hardware
# of the machine that builds.
set -eu
which=$1 output=$2 release=$3
shift 3
case $which in
listed) set -- --modules 'base fs-lib kernel-modules rootfs-block udev-rules' --drivers "$*" ;;
generic) set -- --omit 'systemd dracut-systemd systemd-initrd' --add-drivers "$*" ;;
esac
dracut --quiet --force --no-hostonly --no-early-microcode --reproducible --zstd "$@" "$output" "$release"
