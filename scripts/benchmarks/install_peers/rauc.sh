#!/bin/sh
# RAUC: rauc.sh pack IMAGE FOLDER LEVEL FORMAT | install FOLDER DEVICE SIZE
# The service and its D-Bus are started and ended by every installation, as a recovery system has to.
set -eu
pack() {
	openssl req -x509 -newkey rsa:2048 -nodes -keyout "$2/key.pem" -out "$2/cert.pem" -days 7300 -subj /CN=bench 2>/dev/null
	rm -rf "$2/input" "$2/bundle.raucb"
	mkdir "$2/input"
	cp "$1" "$2/input/rootfs.img"
	# Written anew each time: `rauc bundle` writes it back without [bundle].
	printf '[update]\ncompatible=bench\nversion=1\n[bundle]\nformat=%s\n[image.rootfs]\nfilename=rootfs.img\n' "$4" \
		>"$2/input/manifest.raucm"
	rauc --cert="$2/cert.pem" --key="$2/key.pem" --mksquashfs-args="-comp zstd -Xcompression-level $3" \
		bundle "$2/input" "$2/bundle.raucb"
	rauc --keyring="$2/cert.pem" info "$2/bundle.raucb" 2>&1 | grep -i "format.*$4"
	rm -r "$2/input"
}
install() {
	cat >/tmp/system.conf <<-END
		[system]
		compatible=bench
		bootloader=noop
		statusfile=/tmp/rauc.status
		[keyring]
		path=$1/cert.pem
		[slot.rootfs.0]
		device=/dev/null
		type=raw
		bootname=A
		[slot.rootfs.1]
		device=$2
		type=raw
		bootname=B
	END
	exec dbus-run-session -- /bench/rauc.sh serve "$1"
}
serve() {
	export DBUS_STARTER_BUS_TYPE=session
	rauc --conf=/tmp/system.conf --override-boot-slot=A service >/tmp/service.log 2>&1 &
	service=$!
	gdbus wait --session --timeout 10 de.pengutronix.rauc || { cat /tmp/service.log; exit 1; }
	if ! rauc --conf=/tmp/system.conf install "$1/bundle.raucb" >/tmp/install.log 2>&1; then
		cat /tmp/install.log /tmp/service.log
		exit 1
	fi
	kill "$service"
	wait || true
}
"$@"
