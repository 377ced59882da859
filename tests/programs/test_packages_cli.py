"""`unbrick packages …` on a root in a folder, with signed transactions: what it says, does, and ends with."""

from __future__ import annotations

import json
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from initramfs.cli import main
from initramfs.cli_packages import Host
from packagemanager import cli
from packagemanager.engine import Engine
from packagemanager.operation import PUT, Operation
from packagemanager.order import order_of
from packagemanager.places import new
from packagemanager.root import Root
from packagemanager.staging import Staging
from packagemanager.transact import WAITS_FOR_RESTART, Manager
from packagemanager.wanted import PATH as WANTED
from tests.programs.dpkg_twin import empty_database
from tests.unit.payload_samples import ROOT
from tests.unit.transaction_samples import SERIAL, Master, opened, state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    empty_database(folder)
    return folder


class Command:
    def __init__(self, folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.keys = folder / "root.pub"
        self.keys.write_bytes(ROOT)
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, Any, str]:
        """Exit code, JSON on standard output, standard error."""
        signed = any(str(word).endswith(".ubk") for word in words)
        keys = ["--keys", str(self.keys)] if signed else []
        code = main(["packages", *map(str, words), "--root", str(self.root), "--json", *keys])
        said = self._capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err


@pytest.fixture
def command(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, root, capsys)


@pytest.mark.requirement("M1")
def test_a_device_follows_its_master(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    first = master.add("p", "1", {"usr/p": b"1", "etc/p": b"c"}, control_files={"conffiles": b"/etc/p\n"})
    other = master.add("q", "1", {"usr/q": b"q"}, Depends="p")
    second = master.add("p", "2", {"usr/p": b"2", "etc/p": b"c"}, control_files={"conffiles": b"/etc/p\n"})
    update = tmp_path / "update.ubk"

    update.write_bytes(master.transaction([first, other], [{}], serial=1))
    code, planned, _ = command("plan", update)
    assert (code, planned["changes"]) == (0, ["install p:amd64 1", "install q:amd64 1"])
    assert {"act": "put", "path": "/usr/p", "why": "p:amd64 1"} in planned["steps"]
    assert not (root / "usr").exists()
    assert command("apply", update)[0] == 0
    assert (root / "usr/p").read_bytes() == b"1"
    assert command("apply", update)[:2][0] == 2
    assert command("verify")[0] == 0

    told = command("status")[1]
    assert told["installed"] == state(first, other)
    assert (told["serial"], told["is-as-wanted"], told["under-way"]) == (1, True, "")

    update.write_bytes(master.transaction([second], [state(first, other)], serial=2))
    assert command("apply", update)[0] == 0
    assert (root / "usr/p").read_bytes() == b"2"
    assert not (root / "usr/q").exists()

    update.write_bytes(master.transaction([first, other], [state(second)], serial=3))
    assert command("apply", update)[0] == 0
    assert command("status")[1]["installed"] == state(first, other)
    assert command("apply")[0] == 2


def test_what_was_interrupted_is_finished_and_called_done(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    content = master.transaction([master.add("p", "1", {"usr/p": b"1"})], [{}])
    with closing(Root(str(root))) as tree:
        assert Manager(tree).apply(order_of(opened(content), tree), live=False) == WAITS_FOR_RESTART
    code, told, _ = command("apply")
    assert (code, told["outcome"], told["serial"]) == (0, "done", SERIAL)
    assert command("status")[1]["under-way"] == ""


@pytest.mark.parametrize("live", [True, False])
def test_an_option_that_cannot_be_followed_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], live: bool
) -> None:
    apply = next(verb for verb in cli.VERBS if verb.name == "apply")
    chosen = Namespace(root=str(root), transaction="x.ubk", live=live, offline=True, no_scripts=True, json=False)
    assert cli.run(apply, chosen, Host()) == 1
    assert "--offline: " in capsys.readouterr().err


@pytest.mark.parametrize("outcome", ["done", "undone"])
def test_what_became_of_an_interrupted_repair_is_said(root: Path, command: Command, outcome: str) -> None:
    with closing(Root(str(root))) as tree:
        engine, staging = Engine(tree), Staging(tree)
        number = staging.text("var/lib/dpkg/arch", b"amd64\n")
        engine.prepare((Operation(PUT, "var/lib/dpkg/arch", staged=number),), {"kind": "repair"})
        engine.begin()
        if outcome == "undone":
            tree.unlink(new(number))
    assert (command("apply")[1]["outcome"], (root / "var/lib/dpkg/arch").exists()) == (outcome, outcome == "done")


def test_what_is_damaged_is_found_and_brought_back(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    package = master.add("p", "1", {"usr/p": b"1", "usr/r": b"r"})
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([package], [{}]))
    assert command("apply", update)[0] == 0
    assert command("repair")[0] == 2
    (root / "usr/p").write_bytes(b"rotten")
    (root / "usr/r").chmod(0o600)
    code, told, said = command("verify", "p")
    assert (code, {one["path"] for one in told["damaged"]}) == (1, {"/usr/p", "/usr/r"})
    assert "unbrick packages repair" in said
    code, told, _ = command("verify", "p", "q")
    assert (code, told["detail"]) == (1, "not installed: q")
    assert command("repair")[0] == 1
    assert command("repair", update)[0] == 0
    assert command("verify")[0] == 0
    assert ((root / "usr/p").read_bytes(), (root / "usr/r").stat().st_mode & 0o777) == (b"1", 0o644)


@pytest.mark.requirement("M9")
def test_the_transaction_says_what_may_go_and_what_leaves_nothing(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    conffiles = {"conffiles": b"/etc/p\n"}
    needed = master.add("p", "1", {"usr/p": b"1", "etc/p": b"c"}, control_files=conffiles, Essential="yes")
    other = master.add("q", "1", {"usr/q": b"q"})
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([needed, other], [{}], serial=1))
    assert command("apply", update)[0] == 0
    there = state(needed, other)
    update.write_bytes(master.transaction([other], [there], serial=2))
    code, told, _ = command("apply", update)
    assert (code, "p:amd64 is essential and would be removed" in told["detail"]) == (1, True)
    update.write_bytes(master.transaction([other], [there], serial=3, expendable=("p",), purge=True))
    assert command("apply", update)[0] == 0
    assert not (root / "etc/p").exists()
    assert b"Package: p" not in (root / "var/lib/dpkg/status").read_bytes()


def test_what_nobody_needs_goes(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([master.add("p", "1", {"p": b"1"})], [{}]))
    assert command("apply", update)[0] == 0
    left = root / "var/lib/unbrick/packages"
    (left / "files/gone").write_bytes(b"x")
    (left / "transaction/new").mkdir(parents=True)
    (left / "transaction/new/0").write_bytes(b"half")
    (left / "scripts").mkdir()
    (left / "scripts/begun").write_bytes(b"under another kernel")
    code, told, _ = command("gc")
    assert (code, told["removed"]) == (0, ["/var/lib/unbrick/packages/files/gone"])
    assert sorted(path.name for path in left.iterdir()) == ["files", "lock", "wanted"]
    assert command("gc")[0] == 2


def test_an_old_transaction_that_is_sent_again_changes_nothing(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    old, new = master.add("p", "1", {"p": b"1"}), master.add("p", "2", {"p": b"2"})
    for serial, package in ((1, old), (2, new)):
        path = tmp_path / f"{serial}.ubk"
        path.write_bytes(master.transaction([package], [{}, state(old)], serial=serial))
        assert command("apply", path)[0] == 0
    code, told, said = command("apply", tmp_path / "1.ubk")
    assert code == 1
    assert told["detail"] == "transaction 1 is not newer than 1, as all are that this device takes"
    assert told["advice"] in said
    assert (root / "p").read_bytes() == b"2"


def test_what_cannot_be_is_refused_by_name(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    package = master.add("p", "1", {"p": b"1"}, Depends="nowhere (>= 2)")
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([package], [{}]))
    code, told, said = command("apply", update)
    assert code == 1
    assert told["detail"] == "p:amd64 depends on nowhere (>= 2)"
    assert told["advice"] in said
    assert sorted(path.name for path in root.iterdir()) == ["var"]
    assert command("status")[1]["installed"] == {}
    assert command("gc")[0] == 2


def test_a_database_that_does_not_read_is_an_error_with_advice(root: Path, command: Command) -> None:
    (root / "var/lib/dpkg/status").write_bytes(b"Package: p\nStatus: nonsense\n\n")
    (root / "var/lib/dpkg/status-old").write_bytes(b"old\n")
    for verb in ("status", "verify", "adopt"):
        code, told, said = command(verb)
        assert code == 1
        assert "/var/lib/dpkg/status is damaged" in told["detail"]
        assert "status-old" in said


def test_the_device_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packages", "status", "--root", str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.requirement("D8")
@pytest.mark.fault("R4")
def test_damage_is_told_and_repaired_from_a_transaction(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    first = master.add("p", "1", {"usr/p": b"1", "etc/p": b"c"}, control_files={"conffiles": b"/etc/p\n"})
    other = master.add("q", "1", {"usr/q": b"q"})
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([first, other], [{}], serial=1))
    assert command("apply", update)[0] == 0
    assert command("repair")[0] == 2
    (root / "usr/p").write_bytes(b"rot")
    (root / "usr/q").chmod(0o600)
    (root / "etc/p").write_bytes(b"the owner's")
    (root / "var/lib/dpkg/status").write_bytes(b"rot")
    assert command("verify")[0] == 1

    code, told, said = command("repair")
    assert code == 1 and told["detail"] == "damaged files can only come from their packages: p:amd64 1"
    assert told["advice"] in said
    code, told, _ = command("verify")
    assert code == 1 and {"package": "q:amd64", "path": "/usr/q", "problem": "another mode"} in told["damaged"]
    assert [finding["path"] for finding in told["allowed"]] == ["/etc/p"]

    code, told, _ = command("repair", update)
    assert code == 0 and not told["left"] and len(told["repaired"]) == 2
    assert command("verify")[0] == 0
    assert (root / "usr/p").read_bytes() == b"1" and (root / "usr/q").stat().st_mode & 0o777 == 0o644
    assert (root / "etc/p").read_bytes() == b"the owner's"
    assert command("status")[1]["installed"] == state(first, other)


def test_a_transaction_without_the_package_cannot_repair_it(tmp_path: Path, root: Path, command: Command) -> None:
    master = Master(tmp_path)
    package, other = master.add("p", "1", {"usr/p": b"1"}), master.add("q", "1", {"usr/q": b"q"})
    update = tmp_path / "update.ubk"
    update.write_bytes(master.transaction([package], [{}], serial=1))
    assert command("apply", update)[0] == 0
    (root / "usr/p").unlink()
    update.write_bytes(master.transaction([package, other], [state(package)], serial=2))
    code, told, _ = command("repair", update)
    assert code == 1 and "p:amd64" in told["detail"] and not (root / "usr/p").exists()


@pytest.mark.requirement("M4")
def test_without_the_last_serial_no_transaction_is_taken(tmp_path: Path, root: Path, command: Command) -> None:
    """It could be an old one; what the wanted set says is known nowhere else."""
    master = Master(tmp_path)
    old, new = (master.add("p", version, {"usr/p": version.encode()}) for version in "12")
    transactions = [tmp_path / f"{serial}.ubk" for serial in (7, 8)]
    for path, package, before in zip(transactions, (old, new), ({}, state(old)), strict=True):
        path.write_bytes(master.transaction([package], [before, state(new)], serial=int(path.stem), full=True))
        assert command("apply", path)[0] == 0
    (root / WANTED).write_bytes(b"rot")
    code, said, _ = command("apply", transactions[0])
    assert (code, "is damaged" in said["detail"], "Remove the file" in said["advice"]) == (1, True, True)
    assert (root / "usr/p").read_text() == "2"
    (root / WANTED).unlink()
    assert command("apply", transactions[1])[0] == 0
