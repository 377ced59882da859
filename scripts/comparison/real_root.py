"""A real Debian 12 root that is behind its updates, and the packages that bring it up to date and back again.

*Before* holds, of every package that apt knows several versions of, the oldest one: so an update of it is what
Debian changed, libc and systemd among it. Nothing is left out of the root, as `pairs` leaves out documents:
what dpkg is told to leave out it leaves out in every comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.virtual import apt
from scripts.virtual.bootstrap import TRACES, bootstrap, removing
from scripts.virtual.cache import cached
from scripts.virtual.commands import run
from scripts.virtual.debian_root import OF_THIS_MACHINE
from scripts.virtual.layer import SOURCE_DATE_EPOCH

PACKAGES = (
    "usr-is-merged", "systemd-sysv", "systemd-timesyncd", "udev", "dbus", "kmod", "iproute2", "procps", "python3",
    "perl", "curl", "openssl", "openssh-server", "bind9-dnsutils", "ca-certificates", "cron", "sudo", "tzdata",
    "vim-tiny", "locales",
)  # fmt: skip
PREFERENCES = "etc/apt/preferences.d/before"
# They are asked for by name; a longer command line would not be taken.
NAMES_AT_ONCE = 500
HINT = "see that apt and dpkg work here, then try again"


@dataclass(frozen=True)
class RealRoot:
    """``archive`` is the root; ``old`` and ``new`` are folders of the same packages, before and after the update."""

    archive: Path
    old: Path
    new: Path


def real_root(cache: Path, packages: Sequence[str] = PACKAGES) -> RealRoot:
    """The root of these packages, and what updates it, made now or taken from ``cache``. Raises: SetupError."""
    pins = oldest_versions(updated_names())
    recipe = {"packages": packages, "pins": digest_of_pins(pins), "epoch": SOURCE_DATE_EPOCH}
    folder = cached(cache, "real-root", recipe, lambda made: _make(made, packages, pins))
    return RealRoot(folder / "root.tar", folder / "old", folder / "new")


def digest_of_pins(pins: dict[str, str]) -> str:
    return " ".join(f"{name}={version}" for name, version in sorted(pins.items()))


def updated_names() -> list[str]:
    """The packages that a suite beside the release has. Raises: SetupError."""
    names: set[str] = set()
    fields = "$(FILENAME) $(RELEASE)"
    for line in run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"], hint=HINT).splitlines():
        path, release = line.decode().split()
        if release.startswith(f"{apt.SUITE}-"):
            text = run(["/usr/lib/apt/apt-helper", "cat-file", path], hint=HINT).decode()
            names.update(line[9:] for line in text.splitlines() if line.startswith("Package: "))
    return sorted(names)


def oldest_versions(names: Sequence[str]) -> dict[str, str]:
    """The lowest version of each that apt knows, where it knows several."""
    versions: dict[str, set[str]] = {}
    for start in range(0, len(names), NAMES_AT_ONCE):
        text = run(["apt-cache", "madison", *names[start : start + NAMES_AT_ONCE]], hint=HINT).decode()
        for line in text.splitlines():
            name, version, source = (word.strip() for word in line.split("|"))
            if source.endswith(" Packages"):
                versions.setdefault(name, set()).add(version)
    return {name: lowest(found) for name, found in versions.items() if len(found) > 1}


def lowest(versions: Iterable[str]) -> str:
    """By dpkg's own order: what is compared here is measured by dpkg, not by us."""
    found = ""
    for version in sorted(versions):
        if not found or _older(version, found):
            found = version
    return found


def _older(version: str, than: str) -> bool:
    said = run(
        ["sh", "-c", 'dpkg --compare-versions "$1" lt "$2" && echo yes; true', "sh", version, than],
        hint=HINT,
    )
    return bool(said)


def _make(folder: Path, packages: Sequence[str], pins: dict[str, str]) -> None:
    preferences = folder / "before"
    text = "\n".join(f"Package: {name}\nPin: version {pin}\nPin-Priority: 1001\n" for name, pin in pins.items())
    preferences.write_text(text)
    options = [
        "--variant=minbase",
        f"--setup-hook=mkdir -p $1/etc/apt/preferences.d && cp {preferences} $1/{PREFERENCES}",
        removing((*OF_THIS_MACHINE, PREFERENCES, *TRACES)),
        f"--customize-hook=dpkg-query --admindir=$1/var/lib/dpkg -W >{folder / 'installed'}",
    ]
    bootstrap(folder / "root.tar", packages, options)
    changed = _changed((folder / "installed").read_text())
    for name in ("old", "new"):
        (folder / name).mkdir()
    apt.download(folder / "old", [f"{name}={old}" for name, old, _ in changed])
    apt.download(folder / "new", [f"{name}={new}" for name, _, new in changed])


def _changed(installed: str) -> list[tuple[str, str, str]]:
    """(name, version, newer version) of what apt knows newer."""
    rows = [line.split("\t") for line in installed.splitlines()]
    found = []
    for name, version in rows:
        said = run(["apt-cache", "show", "--no-all-versions", name.split(":")[0]], hint=HINT).decode()
        candidate = next(line[9:] for line in said.splitlines() if line.startswith("Version: "))
        if candidate != version:
            found.append((name, version, candidate))
    return found
