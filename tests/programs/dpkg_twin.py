"""Two roots that have the same packages: one is dpkg's, the other is ours. For comparing what they become.

Packages are built by dpkg-deb from what a test says; dpkg works on an empty root without running scripts as root of
the host would: ``--force-script-chrootless`` and no scripts at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packagemanager.changes import Wish
from packagemanager.control import Paragraph, paragraph
from packagemanager.database import Database
from packagemanager.deb import Deb
from packagemanager.root import Root
from packagemanager.transact import Manager, Order
from payload.digest import digest
from payload.sources import FileSource

if TYPE_CHECKING:
    from packagemanager.scripts import Run

Content = str | bytes | None | tuple[str]
"""Of a file; None is a folder; a tuple of one is a link's target."""
DPKG = (
    "--force-script-chrootless", "--force-depends", "--force-confdef", "--force-confold", "--force-unsafe-io",
    "--log=/dev/null",
)  # fmt: skip
TIME = 1_700_000_000
SECONDS_MAX = 60
# What either keeps for itself.
OWN = ("var/lib/unbrick", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old",
       "var/lib/dpkg/triggers/Lock", "var/lib/dpkg/triggers/Unincorp")  # fmt: skip


def needs_dpkg() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("dpkg", "dpkg-deb"))


class Workbench:
    """Builds packages in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def deb(
        self,
        name: str,
        version: str,
        files: Mapping[str, Any],
        *,
        control: str = "",
        architecture: str = "all",
        conffiles: Sequence[str] = (),
        controls: Mapping[str, str] = {},
        modes: Mapping[str, int] = {},
        hard_links: Mapping[str, str] = {},
    ) -> Path:
        """``control`` are more lines of the control file; ``hard_links`` is a path to the one it is another name of."""
        self._count += 1
        tree = self.folder / f"build-{self._count}"
        (tree / "DEBIAN").mkdir(parents=True)
        for path, content in files.items():
            _make(tree / path.lstrip("/"), content)
        for path, first in hard_links.items():
            (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            os.link(tree / first.lstrip("/"), tree / path.lstrip("/"))
        for path, mode in modes.items():
            (tree / path.lstrip("/")).chmod(mode)
        text = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: A B <a@example.org>\n"
        (tree / "DEBIAN/control").write_text(f"{text}{control}Description: a package\n of a test\n .\n  indented\n")
        listed = {"conffiles": "".join(f"{path}\n" for path in conffiles), **controls}
        for other, content in listed.items():
            if content:
                (tree / "DEBIAN" / other).write_text(content)
                (tree / "DEBIAN" / other).chmod(0o755 if content.startswith("#!") else 0o644)
        _set_times(tree)
        made = self.folder / f"{name}_{version.replace(':', '%3a')}_{self._count}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(made)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS_MAX)
        shutil.rmtree(tree)
        return made


def _make(path: Path, content: Content) -> None:
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):
        path.symlink_to(content[0])
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _set_times(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (TIME, TIME), follow_symlinks=False)


def empty_database(root: Path) -> None:
    """A system of dpkg's in which nothing is installed."""
    for path in ("info", "updates", "triggers"):
        (root / "var/lib/dpkg" / path).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "var/lib/dpkg/info/format").write_text("1\n")


class Twins:
    """``theirs`` is dpkg's root, ``ours`` ours."""

    def __init__(self, folder: Path) -> None:
        self.theirs, self.ours = folder / "dpkg", folder / "unbrick"
        for root in (self.theirs, self.ours):
            empty_database(root)
        self.wanted: dict[str, str] = {}
        self.serial = 0
        self.output = ""

    def both(self, change: Callable[[Path], object]) -> None:
        """What the owner of the system does."""
        for root in (self.theirs, self.ours):
            change(root)

    def install(self, *debs: Path, remove: Sequence[str] = (), purge: bool = False) -> None:
        """Install ``debs``, in this order, and remove the packages of these names, in one transaction."""
        if remove:
            self.dpkg("-P" if purge else "-r", *remove)
        if debs:
            self.dpkg("-i", *map(str, debs))
        sources = {key_of(deb): deb for deb in debs}
        names = {key.partition(":")[0] for key in sources} | set(remove)
        kept = {key: version for key, version in self.wanted.items() if names.isdisjoint((key, key.partition(":")[0]))}
        self.wanted = kept | {key: _fields(deb).get("Version") for key, deb in sources.items()}
        self.apply(self.wanted, sources, purge=purge)

    def apply(
        self, wanted: Mapping[str, str], sources: Mapping[str, Path], purge: bool = False, run: Run | None = None
    ) -> str:
        self.serial += 1
        root = Root(str(self.ours))
        opened = {key: FileSource(str(path), str(path)) for key, path in sources.items()}
        debs = {key: Deb(source) for key, source in opened.items()}
        order = Order(Wish(wanted, purge=purge), lambda keys: {key: debs[key] for key in keys if key in debs},
                      self.serial, digest(b"%d" % self.serial))  # fmt: skip
        try:
            return Manager(root, run=run).apply(order, settle=True)
        finally:
            for source in opened.values():
                source.close()
            root.close()

    def dpkg(self, *arguments: str) -> None:
        self.dpkg_in(self.theirs, *arguments)

    def dpkg_in(self, root: Path, *arguments: str) -> None:
        ended = _run(root, *arguments)
        assert ended.returncode == 0, f"{arguments}:\n{ended.stdout}{ended.stderr}"

    def database(self) -> Database:
        with closing(Root(str(self.ours))) as root:
            return Database(root)

    def differences(self) -> list[str]:
        """By path, what is not the same. Times of folders are the moment's, and those of dpkg's own files."""
        theirs, ours = _tree(self.theirs), _tree(self.ours)
        return [
            f"{path}: dpkg: {theirs.get(path)}; ours: {ours.get(path)}"
            for path in sorted({*theirs, *ours})
            if theirs.get(path) != ours.get(path)
        ]

    def verdicts(self) -> tuple[list[str], list[str]]:
        """What dpkg says of its root, and of ours."""
        asked = (("--audit",), ("--verify",), ("--list",), ("--search", "*"))
        theirs, ours = (
            [line for words in asked for line in sorted(map(_sorted_owners, _run(root, *words).stdout.split("\n")))]
            for root in (self.theirs, self.ours)
        )
        return theirs, ours


def _sorted_owners(line: str) -> str:
    """``dpkg --search`` names the packages that have a path in no order."""
    owners, colon, path = line.partition(": ")
    return ", ".join(sorted(owners.split(", "))) + colon + path


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dpkg", f"--root={root}", *DPKG, *arguments],
        capture_output=True,
        check=False,
        text=True,
        errors="surrogateescape",
        timeout=SECONDS_MAX,
        stdin=subprocess.DEVNULL,
    )


def _fields(deb: Path) -> Paragraph:
    source = FileSource(str(deb), str(deb))
    try:
        return paragraph(Deb(source).control()[0])
    finally:
        source.close()


def key_of(deb: Path) -> str:
    fields = _fields(deb)
    return f"{fields.get('Package')}:{fields.get('Architecture')}"


def _tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if any(name == own or name.startswith(f"{own}/") for own in OWN):
            continue
        stat = path.lstat()
        is_known = name.startswith("var/lib/dpkg/")
        time = 0 if (path.is_dir() and not path.is_symlink()) or is_known else int(stat.st_mtime)
        what: object = None
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes() if stat.st_nlink == 1 else (path.read_bytes(), first.setdefault(stat.st_ino, name))
        found[name] = (oct(stat.st_mode), stat.st_uid, stat.st_gid, time, what)
    return found
