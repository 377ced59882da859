"""The tiny operating system: one static program, an image of about half a megabyte.

It keeps the test loop fast: up and confirmed a few hundred milliseconds after the hand-over. What it does
wrong and how it ends is said by files in its root (see ``tiny_init.c``), so an overlay can change it.
"""

from __future__ import annotations

from pathlib import Path

from scripts.virtual.cache import cached, file_digest
from scripts.virtual.commands import run
from scripts.virtual.image import MAKERS, OsImage, OsRecipe, make_image
from scripts.virtual.layer import Layer

SOURCE = Path(__file__).with_name("tiny_init.c")
INIT = "/sbin/init"
FOLDERS = ("data", "dev", "etc", "proc", "run", "sbin", "sys", "tmp", "usr", "usr/lib", "usr/lib/unbrick", "var",
    "var/lib", "var/lib/dpkg",
)  # fmt: skip
COMPILE = ("gcc", "-std=c11", "-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s")


def build_os(recipe: OsRecipe, cache: Path, *, after_good: str = "", watchdog: str = "") -> OsImage:
    """The image of this recipe, made now or taken from ``cache``.

    ``after_good`` is ``""`` (wait), ``"poweroff"`` or ``"reboot"``; ``watchdog`` names the device that this
    OS pets (the manifest then says so), or nothing. Raises: SetupError.
    """
    layer = layer_of(recipe, build_init(cache), after_good, watchdog)

    def make(folder: Path) -> None:
        make_image([layer.write(folder / "layer.tar")], recipe.filesystem, folder / "rootfs.img")
        (folder / "layer.tar").unlink()

    identity = {"layer": layer.digest(), "filesystem": MAKERS[recipe.filesystem]}
    folder = cached(cache, "tiny", identity, make)
    owner = "systemd" if watchdog else "none"
    name = f"tiny v{recipe.version}"
    return OsImage(folder / "rootfs.img", recipe.version, name, recipe.filesystem, INIT, owner)


def build_init(cache: Path) -> Path:
    """The compiled program."""

    def make(folder: Path) -> None:
        run([*COMPILE, "-o", folder / "init", SOURCE], hint="run ./scripts/install")

    return cached(cache, "tiny-init", {"source": file_digest(SOURCE), "command": COMPILE}, make) / "init"


def layer_of(recipe: OsRecipe, init: Path, after_good: str, watchdog: str) -> Layer:
    """The whole root file system."""
    layer = Layer()
    for folder in FOLDERS:
        layer.directory(folder)
    layer.file("sbin/init", init.read_bytes(), 0o755)
    layer.file("etc/version", f"{recipe.version}\n")
    layer.file("var/lib/dpkg/status", "")  # a system of packages that has none yet
    if recipe.unbrick_binary is not None:
        layer.file("usr/lib/unbrick/unbrick", recipe.unbrick_binary.read_bytes(), 0o755)
    for name, word in (("misbehave", recipe.misbehave), ("after-good", after_good), ("watchdog", watchdog)):
        if word:
            layer.file(f"etc/{name}", f"{word}\n")
    return layer


def breakage(misbehave: str) -> Layer:
    """What breaks a good version from its overlay; for :meth:`scripts.virtual.disk.DeviceDisk.write_overlays`."""
    layer = Layer()
    layer.file("etc/misbehave", f"{misbehave}\n")
    return layer
