"""What the benchmarks of a run share: the kernel, the peers' root, the device, the contenders and their images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from scripts.benchmarks.contenders import PEERS, Contender, Ours, Peer
from scripts.benchmarks.device import BenchDevice, make_device
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import measuring_program
from scripts.benchmarks.private_root import PrivateRoot
from scripts.benchmarks.rows import OURS
from scripts.virtual import kernel
from scripts.virtual.kernel import Kernel

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / "build" / "cache"
FOLDER = CHECKOUT / "build" / "bench"
CONTENDERS = (OURS, *PEERS)


@dataclass
class Workplace:
    """``who`` names the contenders; what each of them cannot do is collected in ``failures``."""

    who: Sequence[str] = CONTENDERS
    runs: int = 5
    folder: Path = FOLDER
    cache: Path = CACHE
    failures: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Progress, with the seconds since the start; standard output is for results."""
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", file=sys.stderr, flush=True)

    @cached_property
    def kernel(self) -> Kernel:
        self.say("kernel: linux-image-amd64, unpacked and not installed")
        return kernel.fetch(self.cache)

    @cached_property
    def device(self) -> BenchDevice:
        self.say("device: a disk with a signed, confirmed root on it")
        return make_device(self.folder / "device", self.cache, self.kernel)

    @cached_property
    def contenders(self) -> Mapping[str, Contender]:
        """By name, in the order of the report."""
        return {name: self._ours if name == OURS else self._peer(name) for name in CONTENDERS if name in self.who}

    @property
    def _ours(self) -> Ours:
        return Ours(self.device.toml, self.cache / "bench" / "ours", measuring_program(self.cache / "bench"))

    def _peer(self, name: str) -> Peer:
        return Peer(name, PEERS[name], self._peers_root)

    @cached_property
    def _peers_root(self) -> PrivateRoot:
        self.say("peers: a private Debian with initramfs-tools, dracut and busybox")
        return PrivateRoot(self.cache / "bench", self.kernel)

    def image_path(self, name: str) -> Path:
        return self.folder / "images" / f"{name}.img"

    def image(self, name: str) -> Path:
        """The image of a contender, built unless it is there already. Raises: BenchmarkError."""
        contender, path = self.contenders[name], self.image_path(name)
        recipe, stamp = contender.recipe(), path.with_name(f"{path.name}.recipe")
        if not (recipe and path.exists() and stamp.exists() and stamp.read_text() == recipe):
            self.say(f"{name}: building its image")
            contender.build(path)
            self.keep_recipe(name)
        return path

    def keep_recipe(self, name: str) -> None:
        """Note that the image at its place is the newest."""
        path = self.image_path(name)
        path.with_name(f"{path.name}.recipe").write_text(self.contenders[name].recipe())

    def attempt(self, name: str, work: Callable[[str], None]) -> None:
        """Do something with a contender; what fails is said once, and the contender is left out from then on."""
        if name in self.failures:
            return
        try:
            work(name)
        except BenchmarkError as error:
            self.failures[name] = str(error)
            self.say(f"{name}: FAILED: {error}")
