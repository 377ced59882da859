#!/bin/sh
# What a person types: zstd-dd.sh pack IMAGE FOLDER LEVEL | install FOLDER DEVICE SIZE
# Fsynced, and read back from the medium: the digest of what is there is compared with the image's.
set -eu
pack() {
	zstd -q -f -T0 -"$3" "$1" -o "$2/image.zst"
	b2sum -l 256 <"$1" | cut -c 1-64 >"$2/digest"
}
install() {
	zstd -q -d -c "$1/image.zst" | dd of="$2" bs=1M iflag=fullblock conv=notrunc,fsync status=none
	blockdev --flushbufs "$2"
	[ "$(head -c "$3" "$2" | b2sum -l 256 | cut -c 1-64)" = "$(cat "$1/digest")" ]
}
"$@"
