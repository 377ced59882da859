#!/bin/sh
# busybox.sh INIT OUTPUT RELEASE MODULE...
# The image that somebody makes by hand: a static busybox, modules in load order, a script of some twenty lines.
# The words after INIT's name and a colon are the modules that the script loads; all listed ones are in the image.
set -eu
init=${1%%:*} loaded=${1#*:} output=$2 release=$3
shift 3
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/newroot" "$tree/mnt"
cp /bin/busybox "$tree/bin/busybox"
for applet in sh mount insmod sleep mkdir switch_root; do ln -s busybox "$tree/bin/$applet"; done
cp "/bench/$init" "$tree/init"
chmod 755 "$tree/init"
mknod -m 600 "$tree/dev/console" c 5 1

load_order() {
  modprobe --set-version "$release" --show-depends --all "$@" | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
load_order "$@" | while read -r module; do install -D -m 644 "$module" "$tree$module"; done
# shellcheck disable=SC2086 # the names are words
load_order $loaded >"$tree/modules"
find "$tree" -exec touch --no-dereference --date=@0 {} +
cd "$tree"
find . -mindepth 1 | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -o -H newc | zstd -q -19 -f -o "$output"
