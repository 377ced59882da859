"""The real operating system: Debian 12 with systemd, installed from packages, as an immutable root.

The base (mmdebstrap's archive) is made once; a version is the base and a layer over it. The image carries
no kernel and no modules: the recovery image has mounted everything by the time systemd starts.
What costs seconds under emulation and shows nothing here (consoles to log in at, clean-up timers) is masked.
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from scripts.virtual import apt
from scripts.virtual.bootstrap import bootstrap, removing, without
from scripts.virtual.cache import cached
from scripts.virtual.image import MAKERS, OsImage, OsRecipe, make_image
from scripts.virtual.layer import SOURCE_DATE_EPOCH, Layer

SHIPPED = Path(__file__).parents[2] / "recovery" / "os"
HOST_NAME = "unbrick-virtual"
INIT = "/sbin/init"
CHECK = "etc/systemd/system/systemd-boot-check-no-failures.service"
BOOT_SECONDS_MAX = 90
ENABLED = (
    ("multi-user.target.wants", "unbrick-mark-good.service"),
    ("boot-complete.target.requires", "unbrick-packages.service"),
    ("boot-complete.target.wants", "unbrick-packages-back.service"),
    ("multi-user.target.wants", "unbrick-packages-restore.service"),
)
CHANGED_BYTES = 1 << 20

# `usr-is-merged` stands in for `usrmerge`, which would bring all of Perl.
PACKAGES = ("usr-is-merged", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "procps")
LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/i18n/*",
    "path-exclude=/lib/udev/hwdb.d/*",
    "path-exclude=/usr/lib/*/gconv/*",
)
OF_THIS_MACHINE = ("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/resolv.conf")
MASKED = (
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty.target",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)
# Programs that systemd runs at every start to look for what this device does not have.
MASKED_GENERATORS = (
    "bless-boot",
    "cryptsetup",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
    "system-update",
    "sysv",
    "veritysetup",
)

PANIC = """#!/bin/sh
echo "virtual OS: panics on purpose"
mount -t proc proc /proc 2>/dev/null
echo 1 >/proc/sys/kernel/sysrq
echo c >/proc/sysrq-trigger
"""
EXIT = '#!/bin/sh\necho "virtual OS: its init ends on purpose"\n'
HANG = '#!/bin/sh\necho "virtual OS: hangs on purpose"\nwhile :; do sleep 3600; done\n'
NEVER_GOOD = """[Unit]
Description=A service that fails on purpose
[Service]
Type=oneshot
ExecStart=/bin/false
"""


def build_os(recipe: OsRecipe, cache: Path, base: Path | None = None) -> OsImage:
    """The image of this recipe, made now or taken from ``cache``. ``base`` is the archive of another Debian.

    Raises: SetupError.
    """
    base = base or build_base(cache)
    layer = layer_of(recipe, base)

    def make(folder: Path) -> None:
        make_image([base, layer.write(folder / "layer.tar")], recipe.filesystem, folder / "rootfs.img")
        (folder / "layer.tar").unlink()

    identity = {"base": base.parent.name, "layer": layer.digest(), "filesystem": MAKERS[recipe.filesystem]}
    folder = cached(cache, "debian", identity, make)
    name = f"debian-12 v{recipe.version}"
    return OsImage(folder / "rootfs.img", recipe.version, name, recipe.filesystem, INIT, "systemd")


def build_base(cache: Path, packages: Sequence[str] = PACKAGES) -> Path:
    """The archive of Debian 12 as ``packages`` install it."""
    recipe = {"suite": apt.SUITE, "packages": packages, "left_out": LEFT_OUT, "epoch": SOURCE_DATE_EPOCH}
    return cached(cache, "debian-base", recipe, lambda folder: _install_packages(folder, packages)) / "base.tar"


def _install_packages(folder: Path, packages: Sequence[str]) -> None:
    options = ["--variant=essential", *without(LEFT_OUT), removing(OF_THIS_MACHINE)]
    bootstrap(folder / "base.tar", packages, options)


def layer_of(recipe: OsRecipe, base: Path) -> Layer:
    """What this version puts over the base."""
    layer = Layer()
    _add_identity(layer, recipe.version, base)
    layer.mask(*MASKED)
    for generator in MASKED_GENERATORS:
        layer.symlink(f"etc/systemd/system-generators/systemd-{generator}-generator", "/dev/null")
    _add_unbrick(layer, recipe.unbrick_binary)
    if recipe.misbehave:
        MISBEHAVIOURS[recipe.misbehave](layer)
    return layer


def breakage(misbehave: str) -> Layer:
    """What breaks a good version from its overlay; for :meth:`scripts.virtual.disk.DeviceDisk.write_overlays`."""
    layer = Layer()
    MISBEHAVIOURS[misbehave](layer)
    return layer


def _add_identity(layer: Layer, version: int, base: Path) -> None:
    with tarfile.open(base) as archive:
        member = archive.extractfile("./usr/lib/os-release")
        assert member is not None, "base-files always ships os-release"
        release = member.read().decode()
    layer.file("usr/lib/os-release", f"{release}IMAGE_ID={HOST_NAME}\nIMAGE_VERSION={version}\n")
    layer.file("usr/share/virtual/version", f"{version}\n")
    # Something the size of a small package that differs between any two versions.
    layer.file("usr/share/virtual/changes", random.Random(version).randbytes(CHANGED_BYTES))
    layer.file("etc/hostname", f"{HOST_NAME}\n")
    layer.file("etc/fstab", "# The recovery image has mounted the root and its data.\n")
    layer.file("etc/machine-id", "")  # systemd writes one at the first boot, into the overlay
    layer.directory("data")


def _add_unbrick(layer: Layer, binary: Path | None) -> None:
    """The device's command, the unit that confirms a good boot, and what makes a bad one end."""
    if binary is not None:
        layer.file("usr/lib/unbrick/unbrick", binary.read_bytes(), 0o755)
        layer.symlink("usr/bin/unbrick", "../lib/unbrick/unbrick")
    for path in sorted(SHIPPED.rglob("*")):
        if path.is_file():
            layer.file(f"usr/lib/systemd/{path.relative_to(SHIPPED)}", path.read_bytes())
    for target, unit in ENABLED:
        layer.symlink(f"etc/systemd/system/{target}/{unit}", f"/usr/lib/systemd/system/{unit}")
    # This device's idea of a complete boot: no unit failed. It starts again by itself when one did, and when
    # nothing happens for too long; the attempt has been counted.
    layer.file(f"{CHECK}.d/virtual.conf", "[Unit]\nFailureAction=reboot\n")
    limit = f"[Unit]\nJobTimeoutSec={BOOT_SECONDS_MAX}\nJobTimeoutAction=reboot-force\n"
    layer.file("etc/systemd/system/unbrick-mark-good.service.d/virtual.conf", limit)
    checked = "etc/systemd/system/boot-complete.target.requires/systemd-boot-check-no-failures.service"
    layer.symlink(checked, "/lib/systemd/system/systemd-boot-check-no-failures.service")


def _never_good(layer: Layer) -> None:
    layer.file("etc/systemd/system/fails.service", NEVER_GOOD)
    layer.file("etc/systemd/system/multi-user.target.d/fails.conf", "[Unit]\nWants=fails.service\n")


MISBEHAVIOURS = {
    "panic": lambda layer: layer.file("usr/sbin/init", PANIC, 0o755),
    "exit": lambda layer: layer.file("usr/sbin/init", EXIT, 0o755),
    "hang": lambda layer: layer.file("usr/sbin/init", HANG, 0o755),
    "never-good": _never_good,
}
