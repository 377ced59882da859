"""Install an image from a web server into a file, with an old image as seed: the device's own code and C module.

    client PORT BUNDLE KEY SEED TARGET [OLD-BUNDLE]

With OLD-BUNDLE its header says which version the seed is.
"""

# pathlib would be frozen in with all it imports
# ruff: noqa: PTH116, PTH123

import os
import socket

from payload.bundle import read_header
from payload.device_region import DeviceRegion
from payload.install import install
from payload.seeded import Reuse
from payload.seeds import Seed
from payload.sources import FileSource
from payload.trust import verify

GAP_BYTES_MAX = 8192
RECEIVE_BYTES = 65536
HEADER_BYTES = 1 << 20


class WebSource:
    """Ranges of a file over one connection; announced ranges that are near each other are one request."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._connection = socket.create_connection(("127.0.0.1", port), 60)
        self._input = self._connection.makefile("rb", RECEIVE_BYTES)
        self._requests: list[list[int]] = []
        self._position = self._end = 0
        self.size = 1 << 50

    def announce(self, ranges: list[tuple[int, int]]) -> None:
        joined: list[list[int]] = []
        for offset, length in ranges:
            if joined and 0 <= offset - joined[-1][1] <= GAP_BYTES_MAX:
                joined[-1][1] = offset + length
            else:
                joined.append([offset, offset + length])
        self._requests = joined

    def read(self, offset: int, length: int) -> bytes:
        if not self._position <= offset <= offset + length <= self._end:
            self._ask(offset, length)
        self._take(offset - self._position)
        return self._take(length)

    def _ask(self, offset: int, length: int) -> None:
        self._take(self._end - self._position)
        first, end = offset, offset + length
        for start, stop in self._requests:
            if start <= offset and end <= stop:
                end = stop
        fields = f"GET /{self._path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={first}-{end - 1}\r\n\r\n"
        self._connection.sendall(fields.encode())
        while (line := self._input.readline(4096)) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                end = first + int(line[15:])
        self._position, self._end = first, end

    def _take(self, length: int) -> bytes:
        self._position += length
        taken: bytes = self._input.read(length)
        return taken


def region(path: str, size: int) -> DeviceRegion:
    with open(path, "ab") as file:
        file.truncate(size)
    return DeviceRegion(path, 0, size)


def main(arguments: list[str]) -> int:
    port, bundle, key, seed, target, *old = arguments[1:]
    source = WebSource(int(port), bundle)
    header = read_header(source)
    manifest = verify(header, bytes.fromhex(key), None, 0, None)
    image = manifest.image("rootfs")
    named = None
    if old:
        named = verify(read_header(FileSource(old[0], "old")), bytes.fromhex(key), None, 0, None)
    content = DeviceRegion(seed, 0, os.stat(seed).st_size, writable=False)
    headers = [region(f"{target}.header{number}", HEADER_BYTES) for number in (0, 1)]
    reuse = Reuse(manifest, [Seed(content, named)])
    install(region(target, image.size), headers, source, header, image, target_broken=True, reuse=reuse)
    return 0
