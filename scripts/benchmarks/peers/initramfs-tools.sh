#!/bin/sh
# initramfs-tools.sh MODULES OUTPUT RELEASE MODULE...: MODULES is initramfs-tools' own setting (list, most).
# The listed modules are also loaded at boot: this tool has no other way to include them.
set -eu
modules=$1 output=$2 release=$3
shift 3
settings=$(mktemp -d)
trap 'rm -rf "$settings"' EXIT
cp -r /etc/initramfs-tools/. "$settings"
sed -i "s/^MODULES=.*/MODULES=$modules/; s/^COMPRESS=.*/COMPRESS=zstd/" "$settings/initramfs.conf"
printf '%s\n' "$@" >"$settings/modules"
mkinitramfs -d "$settings" -o "$output" "$release"
