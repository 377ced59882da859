"""Install an image from a web server into a file, with an old image as seed: the device's own code and C module.

    client PORT BUNDLE KEY SEED TARGET [OLD-BUNDLE]

With OLD-BUNDLE its header says which version the seed is.
"""

# pathlib would be frozen in with all it imports
# ruff: noqa: PTH116, PTH123

import os

from payload.bundle import Header, read_header
from payload.device_region import DeviceRegion
from payload.dns import Resolver
from payload.fetch import HttpSource
from payload.http_client import Client
from payload.install import install
from payload.manifest import Manifest
from payload.seeded import Reuse
from payload.seeds import Seed
from payload.sources import FileSource
from payload.trust import trusted_key, verify

HEADER_BYTES = 1 << 20
COMPATIBLE = "unbrick-bench"


def main(arguments: list[str]) -> int:
    port, bundle, key, seed, target, *old = arguments[1:]

    def believe(header: Header) -> Manifest:
        return verify(header, trusted_key(bytes.fromhex(key), COMPATIBLE), COMPATIBLE, None)[0]

    source = HttpSource(Client(Resolver([], nothing), nothing), f"http://127.0.0.1:{port}/{bundle}")
    header = read_header(source)
    manifest = believe(header)
    image = manifest.image("rootfs")
    named = believe(read_header(FileSource(old[0], "old"))) if old else None
    content = DeviceRegion(seed, 0, os.stat(seed).st_size, writable=False)
    headers = [region(f"{target}.header{number}", HEADER_BYTES) for number in (0, 1)]
    reuse = Reuse(manifest, [Seed(content, named)])
    install(region(target, image.size), headers, source, header, image, target_broken=True, reuse=reuse)
    return 0


def region(path: str, size: int) -> DeviceRegion:
    """A new file of zeroes."""
    with open(path, "ab") as file:
        file.truncate(size)
    return DeviceRegion(path, 0, size)


def nothing() -> None:
    """Nobody waits for a sign of life."""
