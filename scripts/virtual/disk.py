"""The virtual device's disk: a sparse file, its partition table, what is on it, and how to damage it.

What must be right on a real device is the production code's work: bundles are installed by
``payload.install``, records appended by the journal's own store. The damage is not: it writes past them.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from typing import TYPE_CHECKING, Any

from payload.device_region import DeviceRegion
from scripts.virtual.commands import SetupError, run
from scripts.virtual.ext4 import Ext4
from scripts.virtual.layout import Extent, Layout, sfdisk_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from payload.install import Report
    from payload.manifest import Manifest
    from recovery.device_journal import DeviceJournal
    from scripts.virtual.layer import Layer

CHUNK_BYTES = 1 << 20
HINT = "see that the disk is not full, then run ./scripts/install again"


class DeviceDisk:
    """The disk image at ``path``, laid out as ``layout`` says. No device may run on it meanwhile.

    Regions go by the names of :class:`scripts.virtual.layout.Layout`.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout

    @classmethod
    def create(cls, path: Path, layout: Layout) -> DeviceDisk:
        """A factory-fresh disk: the partition table and an empty data file system, nothing else.

        Raises: SetupError.
        """
        path.unlink(missing_ok=True)
        with path.open("wb") as image:
            image.truncate(layout.size)
        script = sfdisk_script(layout).encode()
        run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path], hint=HINT, standard_input=script)
        disk = cls(path, layout)
        disk.data.format("unbrick-data")
        return disk

    def copy(self, path: Path) -> DeviceDisk:
        """The same disk in another file; holes stay holes."""
        run(["cp", "--sparse=always", "--reflink=auto", self.path, path], hint=HINT)
        return DeviceDisk(path, self.layout)

    @property
    def data(self) -> Ext4:
        """The data file system: ``system/`` (overlays) and ``user/``."""
        return Ext4(self.path, self.layout["data"].offset, self.layout["data"].size)

    # What the factory and the installer do.

    def region(self, name: str, *, writable: bool = True) -> DeviceRegion:
        extent = self.layout[name]
        return DeviceRegion(str(self.path), extent.offset, extent.size, writable=writable)

    def write_payload(self, bundle: Path) -> None:
        """Put a bundle into the payload region, as it stands in its file.

        Raises: SetupError when it does not fit.
        """
        extent = self.layout["payload"]
        if bundle.stat().st_size > extent.size:
            raise SetupError(f"{bundle} is larger than the payload region", "make payload_bytes larger")
        with bundle.open("rb") as source, self.path.open("r+b") as image:
            image.seek(extent.offset)
            shutil.copyfileobj(source, image, CHUNK_BYTES)

    def write_slot(self, bundle: Path, root_key: bytes) -> tuple[Manifest, Report]:
        """Install a bundle into the slot and its headers.

        Raises: PayloadError as on the device.
        """
        from payload.bundle import read_header
        from payload.install import install
        from payload.manifest import decode
        from payload.roots import single_key_root
        from payload.sources import FileSource
        from payload.trust import Trusted, verify

        source = FileSource(str(bundle), bundle.name)
        regions = [self.region(name) for name in ("slot", "header-0", "header-1")]
        try:
            header = read_header(source)
            root = single_key_root(root_key, decode(header.manifest_bytes).compatible)
            manifest, _trusted = verify(header, Trusted(root), None, None)
            slot, *headers = regions
            image = manifest.image("rootfs")
            return manifest, install(slot, headers, source, header, image, target_broken=True)
        finally:
            source.close()
            for region in regions:
                region.close()

    def journal(self, config: dict[str, Any]) -> DeviceJournal:
        """The journal, opened (a new term, copies repaired). ``config`` is the frozen configuration."""
        from recovery.device_journal import DeviceJournal

        return DeviceJournal(config, str(self.path))

    # Damage, and the proof that something was left alone.

    def corrupt(self, name: str, *, offset: int = 0, length: int | None = None, seed: int = 1) -> None:
        """Overwrite ``length`` bytes (all by default) of a region from ``offset`` on with random ones."""
        extent = self._part(name, offset, length)
        generator = random.Random(seed)
        self._overwrite(extent, generator.randbytes)

    def zero(self, name: str, *, offset: int = 0, length: int | None = None) -> None:
        """Overwrite the same with zeroes."""
        self._overwrite(self._part(name, offset, length), bytes)

    def write_overlays(self, layer: Layer) -> int:
        """Put the files of ``layer`` into every overlay that an OS has left here. How many there were."""
        overlays = [name for name in self.data.names("/system") if self.data.exists(f"/system/{name}/upper")]
        for name in overlays:
            for path, content, mode in layer.files():
                self.data.write(f"/system/{name}/upper/{path}", content, mode)
        return len(overlays)

    def flip_bit(self, name: str, offset: int, bit: int = 0) -> None:
        """Change one bit of a region."""
        position = self._part(name, offset, 1).offset
        with self.path.open("r+b") as image:
            image.seek(position)
            byte = image.read(1)[0]
            image.seek(position)
            image.write(bytes((byte ^ 1 << bit,)))

    def rot_partition_tables(self, seed: int = 1) -> None:
        """Random bytes over both copies of the partition table."""
        generator = random.Random(seed)
        for offset in (0, self.layout.size - 34 * 512):
            self._overwrite(Extent(offset, 34 * 512), generator.randbytes)

    def digest(self, name: str) -> str:
        """The digest (hex) of a whole region."""
        state = hashlib.blake2b(digest_size=32)
        with self.path.open("rb") as image:
            for position, length in _chunks(self.layout[name]):
                image.seek(position)
                state.update(image.read(length))
        return state.hexdigest()

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a region, or of a part of it."""
        extent = self._part(name, offset, length)
        with self.path.open("rb") as image:
            image.seek(extent.offset)
            return image.read(extent.size)

    def _part(self, name: str, offset: int, length: int | None) -> Extent:
        whole = self.layout[name]
        size = whole.size - offset if length is None else length
        if offset < 0 or size < 0 or offset + size > whole.size:
            raise ValueError(f"{size} bytes at {offset} are outside {name} of {whole.size} bytes")
        return Extent(whole.offset + offset, size)

    def _overwrite(self, extent: Extent, content: Any) -> None:
        with self.path.open("r+b") as image:
            for position, length in _chunks(extent):
                image.seek(position)
                image.write(content(length))


def _chunks(extent: Extent) -> Iterator[tuple[int, int]]:
    for done in range(0, extent.size, CHUNK_BYTES):
        yield extent.offset + done, min(CHUNK_BYTES, extent.size - done)
