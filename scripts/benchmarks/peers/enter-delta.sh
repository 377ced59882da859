#!/bin/sh
# Runs a program in the private root with a work folder in view at /measured:
#   enter-delta.sh ROOT WORK PROGRAM [ARGUMENT...]
# Started by `unshare --mount`: the mounts die with this process. What is in MEASURE (a program and its report)
# is put around the program.
set -eu
root=$1 work=$2
shift 2
mkdir -p "$root/measured"
mount --bind "$work" "$root/measured"
mount -t proc -o ro proc "$root/proc"
mount --bind /dev "$root/dev"
exec ${MEASURE-} chroot "$root" "$@"
