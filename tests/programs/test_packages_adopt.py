"""A system that dpkg made is taken over: nothing changes but what we remember, and dpkg goes on being right."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from packagemanager import files
from packagemanager.adopt import CHANGED, MISSING, Adoption, adopt
from packagemanager.entry import DIRECTORY, FILE, HARD_LINK, LINK, NO_DIGEST
from packagemanager.root import Root
from packagemanager.wanted import PATH, decode
from payload.digest import digest
from tests.programs.dpkg_twin import Twins, Workbench
from tests.programs.package_constructs import merged


def take_over(twins: Twins) -> Adoption:
    with closing(Root(str(twins.ours))) as root:
        return adopt(root)


def test_a_system_of_dpkg_is_taken_over_and_updated(bench: Workbench, twins: Twins) -> None:
    shipped: dict[str, Any] = {
        "/etc/c": "c",
        "/etc/d": "d",
        "/usr/x": "x",
        "/usr/y": "y",
        "/usr/l": ("x",),
        "/usr/gone": "g",
    }
    twins.both(merged)
    shipped["/lib/m"] = "m"
    old = bench.deb("p", "1", shipped, conffiles=["/etc/c", "/etc/d"], hard_links={"/usr/z": "/usr/y"},
                    modes={"/usr/x": 0o4711})  # fmt: skip
    other = bench.deb("q", "1", {"/usr/q": "q"})
    for root in (twins.theirs, twins.ours):
        twins.dpkg_in(root, "-i", str(old), str(other))
        (root / "usr/x").write_text("rotten")
        (root / "usr/x").chmod(0o4711)
        (root / "etc/c").write_text("mine")
        (root / "usr/gone").unlink()
        for path in ("usr/x", "etc/c"):
            os.utime(root / path, (1, 1))
    assert twins.differences() == []

    adoption = take_over(twins)
    assert twins.differences() == []
    assert adoption.packages == ["p:all", "q:all"]
    assert sorted(adoption.differences) == [("etc/c", CHANGED), ("usr/gone", MISSING), ("usr/x", CHANGED)]
    assert take_over(twins).packages == []

    text = (twins.ours / files.path_of("p")).read_bytes()
    found = {entry.path: entry for entry in files.decode(text, "p").entries}
    assert (found["lib"].kind, found["lib"].mode, found["lib/m"].digest) == (DIRECTORY, 0o755, digest(b"m"))
    assert (found["usr"].kind, found["usr/l"].kind, found["usr/l"].target) == (DIRECTORY, LINK, "x")
    assert (found["usr/x"].kind, found["usr/x"].mode, found["usr/x"].digest) == (FILE, 0o4711, NO_DIGEST)
    assert (found["usr/y"].digest, found["usr/z"].kind, found["usr/z"].target) == (digest(b"y"), HARD_LINK, "usr/y")
    assert (found["etc/d"].digest, found["etc/c"].digest) == (digest(b"d"), NO_DIGEST)
    assert decode((twins.ours / PATH).read_bytes()).packages == {"p:all": "1", "q:all": "1"}

    twins.wanted = {"p:all": "1", "q:all": "1"}
    twins.install(bench.deb("p", "2", {**shipped, "/usr/y": "y2"}, conffiles=["/etc/c", "/etc/d"]), remove=["q"])
    assert twins.differences() == []
    assert (twins.ours / "usr/x").read_text() == "x"
    assert (twins.ours / "etc/c").read_text() == "mine"
