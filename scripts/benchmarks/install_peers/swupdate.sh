#!/bin/sh
# SWUpdate: swupdate.sh pack IMAGE FOLDER LEVEL | install FOLDER DEVICE SIZE
# A signed update, zstd, streamed straight to the device (installed-directly).
set -eu
pack() {
	cd "$2"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 7300 -subj /CN=bench 2>/dev/null
	zstd -q -f -T0 -"$3" "$1" -o rootfs.img.zst
	cat >sw-description <<-END
		software = {
			version = "1";
			hardware-compatibility = ["1.0"];
			images: ({
				filename = "rootfs.img.zst";
				type = "raw";
				device = "/disk";
				compressed = "zstd";
				installed-directly = true;
				sha256 = "$(sha256sum rootfs.img.zst | cut -c 1-64)";
			});
		}
	END
	openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem \
		-outform DER -nosmimecap -binary
	printf '%s\n' sw-description sw-description.sig rootfs.img.zst | cpio --quiet -o -H crc >update.swu
	rm rootfs.img.zst
}
install() {
	echo "bench 1.0" >/tmp/hwrevision
	exec swupdate -k "$1/cert.pem" -H bench:1.0 -M -m -i "$1/update.swu" >/tmp/swupdate.log
}
"$@"
