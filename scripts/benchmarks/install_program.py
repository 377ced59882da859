"""What is measured of ours: one bundle into one slot, by the code that runs on the device.

    PROGRAM BUNDLE ROOT_KEY_HEX DISK SLOT_BYTES HEADER_BYTES

``DISK`` holds the slot, and behind it the two regions for headers. Frozen into the device's executable
(in place of its command), and run as it is by this machine's Python.
"""

import sys

from payload.bundle import read_header
from payload.device_region import DeviceRegion
from payload.install import install
from payload.sources import FileSource
from payload.trust import trusted_key, verify

COMPATIBLE = "bench"


def main(arguments: list[str]) -> int:
    _program, bundle, root_key, disk, slot_bytes, header_bytes = arguments
    slot = DeviceRegion(disk, 0, int(slot_bytes))
    headers = [DeviceRegion(disk, int(slot_bytes) + number * int(header_bytes), int(header_bytes)) for number in (0, 1)]
    source = FileSource(bundle, bundle)
    header = read_header(source)
    manifest, _trusted = verify(header, trusted_key(bytes.fromhex(root_key), COMPATIBLE), COMPATIBLE, None)
    report = install(slot, headers, source, header, manifest.image("rootfs"), target_broken=True)
    print(f"{report.frames_written} frames written, {report.header_copies} headers")
    return 0 if report.header_copies == len(headers) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
