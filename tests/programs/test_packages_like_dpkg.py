"""The same packages, given to dpkg and to us: the same files, modes, owners, links, and the same database."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import pytest

from packagemanager.dpkg_lock import DpkgLock
from packagemanager.engine import Engine
from packagemanager.errors import RefusedError
from packagemanager.repair import repair
from packagemanager.root import Root
from tests.programs.dpkg_twin import Twins, Workbench
from tests.programs.package_constructs import CONSTRUCTS

HOLD = """import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def same(twins: Twins) -> None:
    assert twins.differences() == []
    theirs, ours = twins.verdicts()
    assert ours == theirs


@pytest.mark.requirement("M4")
@pytest.mark.requirement("M9")
def test_install_upgrade_downgrade_remove(bench: Workbench, twins: Twins) -> None:
    old = bench.deb(
        "one", "0:1.0-1", {"/usr/share/one/x": "1", "/usr/share/one/sub/y": "y", "/opt/empty": None, "/l": ("usr",)},
        control="Depends: two (>=0:1)|three( = 2 ) ,four:any\nHomepage: http://example.org\nPriority: optional\n"
        "section: misc\nX-Word: 1\nInstalled-Size: 3\nEssential: no\nMulti-Arch: no\nRecommends:\nTag: a\n",
    )  # fmt: skip
    new = bench.deb("one", "2", {"/usr/share/one/x": "2", "/usr/share/one/z": "z", "/l": ("opt",)})
    two = bench.deb("two", "3", {"/usr/share/doc/two": "t"}, control="Provides: four (= 1)\nMulti-Arch: allowed\n")
    twins.install(two, old)
    same(twins)
    assert (twins.ours / "usr/share/one/sub/y").read_text() == "y"
    twins.install(new)
    same(twins)
    twins.install(old)
    same(twins)
    twins.install(remove=["one"])
    same(twins)
    assert not (twins.ours / "usr/share/one").exists()


def test_conffiles_as_dpkg_without_asking(bench: Workbench, twins: Twins) -> None:
    names = ("a", "b", "c", "d", "gone")
    paths = [f"/etc/{name}.conf" for name in names]
    old = bench.deb("one", "1", {path: f"{path}\n" for path in paths} | {"/x": "x"}, conffiles=paths[::-1])
    after = {"/etc/a.conf": "2\n", "/etc/b.conf": "2\n", "/etc/c.conf": "/etc/c.conf\n", "/etc/d.conf": "2\n",
             "/etc/new.conf": "n\n", "/etc/before.conf": "p\n", "/x": "x2"}  # fmt: skip
    new = bench.deb("one", "2", after, conffiles=[path for path in after if path != "/x"])
    twins.install(old)
    same(twins)

    def change(root: Path) -> None:
        (root / "etc/a.conf").write_text("mine\n")
        (root / "etc/a.conf").chmod(0o600)
        (root / "etc/b.conf").unlink()
        (root / "etc/c.conf").write_text("mine, too\n")
        (root / "etc/d.conf").chmod(0o640)
        os.chown(root / "etc/d.conf", 7, 8)
        (root / "etc/before.conf").write_text("there before\n")
        for path in ("a.conf", "c.conf", "before.conf"):
            os.utime(root / "etc" / path, (1, 1))

    twins.both(change)
    twins.install(new)
    same(twins)
    assert (twins.ours / "etc/a.conf").read_text() == "mine\n"
    assert (twins.ours / "etc/a.conf.dpkg-dist").read_text() == "2\n"
    assert not (twins.ours / "etc/b.conf").exists()
    twins.install(old)
    same(twins)
    twins.install(remove=["one"])
    same(twins)
    twins.install(new)
    same(twins)
    twins.install(remove=["one"], purge=True)
    same(twins)
    assert not (twins.ours / "etc").exists()


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_one_construct(name: str, bench: Workbench, twins: Twins) -> None:
    for step in CONSTRUCTS[name]:
        if callable(step):
            twins.both(step)
        elif isinstance(step, str):
            twins.install(remove=[step])
            same(twins)
        else:
            packages = step if isinstance(step, list) else [step]
            debs = [bench.deb(one.name, one.version, one.files, **one.more) for one in packages]
            twins.install(*debs)
            same(twins)


@pytest.mark.parametrize("conffiles", [(), ("/etc/f",)])
def test_a_folder_does_not_take_the_place_of_a_file_of_another(
    bench: Workbench, twins: Twins, conffiles: tuple[str, ...]
) -> None:
    p = bench.deb("p", "1", {"/etc/f": "p"}, conffiles=conffiles)
    q = bench.deb("q", "1", {"/etc/f/x": "q"})
    twins.install(p)
    twins.both(lambda root: (root / "etc/f").write_text("mine"))
    with pytest.raises(AssertionError, match="trying to overwrite '/etc/f', which is also in package p"):
        twins.dpkg("-i", str(q))
    with pytest.raises(RefusedError, match="/etc/f of q:all is also in p:all 1"):
        twins.apply(twins.wanted | {"q:all": "1"}, {"q:all": q})
    assert (twins.ours / "etc/f").read_text() == "mine"


@pytest.mark.requirement("M8")
def test_dpkg_and_we_keep_each_other_out(bench: Workbench, twins: Twins) -> None:
    """By the kernel's locks: nobody has to delete one, whoever died."""
    package = bench.deb("p", "1", {"/x": "x"})
    for name in ("lock-frontend", "lock"):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(twins.ours / "var/lib/dpkg" / name)], stdin=PIPE, stdout=PIPE
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(RefusedError, match="dpkg or apt works on the packages"):
                twins.apply({"p:all": "1"}, {"p:all": package})
            with Root(str(twins.ours)) as root, pytest.raises(RefusedError, match="dpkg or apt works on the packages"):
                repair(root, lambda keys: {})
            holder.kill()
    with closing(Root(str(twins.ours))) as root:
        held = DpkgLock(root, Engine(root).lock())
        with pytest.raises(AssertionError, match="lock"):
            twins.dpkg_in(twins.ours, "-i", str(package))
        with pytest.raises(RefusedError, match="another process works on the packages"):
            twins.apply({"p:all": "1"}, {"p:all": package})
        held.close()
    twins.install(package)
    same(twins)


def test_a_lock_that_became_a_folder_keeps_nobody_out(tmp_path: Path) -> None:
    """On a damaged file system: dpkg cannot hold it, and what repairs the rest must not need it."""
    (tmp_path / "var/lib/dpkg/lock").mkdir(parents=True)
    with Root(str(tmp_path)) as root, DpkgLock(root, Engine(root).lock()):
        assert (tmp_path / "var/lib/dpkg/lock-frontend").is_file()


def test_locks_lie_where_a_link_leads_inside_of_the_root(tmp_path: Path) -> None:
    """Nothing is made outside of it, and what dpkg would hold in this root is what is held."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    inside = root / str(outside / "dpkg")[1:]
    for folder in (outside / "dpkg", inside, root / "var"):
        folder.mkdir(parents=True)
    (root / "var/lib").symlink_to(outside)
    with Root(str(root)) as tree, DpkgLock(tree, Engine(tree).lock()):
        assert sorted(path.name for path in inside.iterdir()) == ["lock", "lock-frontend"]
        with (inside / "lock").open() as file:
            assert is_held(file.fileno())
    assert list((outside / "dpkg").iterdir()) == []


@pytest.mark.parametrize("target", ["/nowhere", "outside-of-it", "lib"])
def test_where_a_link_leads_nowhere_there_is_no_lock_of_dpkg(tmp_path: Path, target: str) -> None:
    (tmp_path / "root/var/lib/unbrick/packages").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    link = tmp_path / "root/var/lib/dpkg"
    link.symlink_to(tmp_path / "outside" if target == "outside-of-it" else link if target == "lib" else target)
    with Root(str(tmp_path / "root")) as tree, DpkgLock(tree, Engine(tree).lock()):
        assert list((tmp_path / "outside").iterdir()) == []


def is_held(descriptor: int) -> bool:
    """Whether another process would find the lock taken: that of the same process does not keep itself out."""
    process = os.fork()
    if process == 0:
        try:
            fcntl.lockf(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(process, 0)[1] != 0


def test_what_dpkg_left_half_done_is_done(bench: Workbench, twins: Twins) -> None:
    package = bench.deb("p", "1", {"/x": "x", "/etc/c": "c"}, conffiles=["/etc/c"])
    twins.install(package)
    path = twins.ours / "var/lib/dpkg"
    text = (path / "status").read_text()
    (path / "status").write_text(text.replace("ok installed", "reinstreq half-installed"))
    (path / "updates/0001").write_text(text.replace("ok installed", "ok half-configured"))
    (twins.ours / "x").unlink()
    twins.apply(twins.wanted, {"p:all": package})
    same(twins)
    assert not list((path / "updates").iterdir())
