#!/bin/sh
# enter.sh ROOT PACKAGES COMMAND...: run COMMAND, which works on ROOT, with what scripts expect mounted in ROOT and the
# folder PACKAGES as /mnt in it. In a mount namespace of its own: nothing stays mounted.
set -eu
root=$1 packages=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$packages" "$root/mnt"
mount -t tmpfs run "$root/run"
exec "$@"
