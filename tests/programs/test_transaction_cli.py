"""The master as a person meets it: requests, states, repositories, what is decided, what is written."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from initramfs.cli import main
from packagemanager.database import state_of
from packagemanager.deb import Deb
from payload.sources import FileSource
from tests.programs import desk as any_desk
from tests.programs.desk import EXAMPLE
from tests.unit.transaction_samples import make_deb

NOISE = random.Random(9).randbytes(150_000)

pytestmark = pytest.mark.requirement("M1")


class Desk(any_desk.Desk):
    """A folder with packages, what a device has, a key, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, capsys, monkeypatch)
        debs, old = folder / "debs", folder / "old"
        make_deb(old, "meta-old", "1", {}, Depends="tool, helper")
        make_deb(old, "helper", "1", {"usr/lib/helper": b"helper"})
        make_deb(old, "tool", "1", {"usr/bin/tool": NOISE}, Depends="library")
        make_deb(debs, "library", "1", {"usr/lib/library": b"library"}, architecture="all")
        make_deb(debs, "tool", "2", {"usr/bin/tool": NOISE + b"2"}, Depends="library, extra")
        make_deb(debs, "extra", "5", {"usr/lib/extra": b"extra"})
        make_deb(debs, "meta-new", "1", {}, Depends="tool (>= 2)", Conflicts="meta-old")
        installed = {"meta-old:amd64": "1", "helper:amd64": "1", "tool:amd64": "1", "library:all": "1"}
        self.state(installed)

    def state(self, installed: dict[str, str], name: str = "state.json") -> None:
        facts = {"state": state_of(installed).hex(), "serial": 3, "installed": installed}
        (self.folder / name).write_text(json.dumps(facts))

    def create(self, more: str = "", code: int = 0, places: str = "--repository debs --old old") -> tuple[str, str]:
        request = f"--want meta-new {places} --state state.json --compatible unbrick-virtual --serial 4"
        return self.run(f"transaction create {request} --key root.key -o x.ubk --cache cache {more}", code)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, capsys, monkeypatch)


@pytest.mark.requirement("M3", "M9", "M10")
def test_a_meta_package_is_replaced_and_leftovers_go(desk: Desk) -> None:
    out, err = desk.create()
    assert err == ""
    for line in ("tool:amd64: 1 → 2", "extra:amd64: not there → 5", "helper:amd64: 1 → removed", "1 deltas, 2 whole"):
        assert line in out
    facts = desk.facts("transaction info x.ubk")
    assert list(facts["wanted"]) == ["extra:amd64", "library:all", "tool:amd64", "meta-new:amd64"]
    assert facts["removals"] == ["meta-old:amd64", "helper:amd64"]
    assert [(part["package"], part["kind"], part["from"]) for part in facts["parts"]] == [
        ("tool:amd64", "delta", ["1"]),
        ("extra:amd64", "deb", []),
        ("meta-new:amd64", "deb", []),
    ]
    assert facts["states"] == [json.loads((desk.folder / "state.json").read_text())["state"]]
    text, _err = desk.run("transaction info x.ubk")
    assert "transaction 4 (4) for 'unbrick-virtual'" in text and "goes       helper:amd64" in text


def test_the_same_request_gives_the_same_bytes(desk: Desk) -> None:
    desk.create()
    first = (desk.folder / "x.ubk").read_bytes()
    desk.create()
    assert (desk.folder / "x.ubk").read_bytes() == first


@pytest.mark.requirement("M2")
def test_every_verb_of_bundles_works_on_it(desk: Desk) -> None:
    desk.create()
    (desk.folder / "device.toml").write_text(EXAMPLE.read_text().replace("[kernel]", '[kernel]\nrelease = "6.1.0"'))
    assert "an intact bundle of version 4" in desk.run("bundle verify x.ubk --root root.pub")[0]
    assert "an intact bundle of version 4" in desk.run("bundle verify x.ubk -c device.toml --root root.pub")[0]
    assert "kept" not in desk.facts("bundle verify x.ubk -c device.toml --root root.pub")
    assert "packages: none, packages" in desk.run("bundle info x.ubk")[0]
    desk.run("key new other.key")
    desk.run("bundle sign x.ubk --key other.key")
    assert len(desk.facts("transaction info x.ubk")["signed_by"]) == 2
    content = bytearray((desk.folder / "x.ubk").read_bytes())
    content[5000] ^= 1
    (desk.folder / "x.ubk").write_bytes(content)
    assert "damaged" in desk.run("bundle verify x.ubk --root root.pub", 1)[0]


def test_a_request_is_a_file_that_options_add_to(desk: Desk) -> None:
    (desk.folder / "request").mkdir()
    (desk.folder / "request/transaction.toml").write_text(
        'compatible = "unbrick-virtual"\nwant = ["meta-new"]\nrepositories = ["../debs"]\nold = ["../old"]\n'
        'states = ["../state.json"]\ndeltas = false\n[pin]\ntool = "2"\n'
    )
    line = "transaction create -c request/transaction.toml --serial 9 --full --purge --key root.key -o x.ubk"
    facts = desk.facts(line)
    assert (facts["deltas"], facts["whole"]) == (0, 4)
    info = desk.facts("transaction info x.ubk")
    assert info["serial"] == 9 and info["purge"]


def test_a_dry_run_says_what_would_change_and_writes_nothing(desk: Desk) -> None:
    out, _err = desk.create("--dry-run")
    assert "tool:amd64: 1 → 2" in out and not (desk.folder / "x.ubk").exists()


def list_of(folder: Path) -> bytes:
    """As a repository has it."""
    paragraphs = []
    for deb in sorted(folder.glob("*.deb")):
        content = deb.read_bytes()
        control = Deb(FileSource(str(deb), "")).control()[0].decode()
        more = f"Filename: debs/{deb.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        paragraphs.append(control + more)
    return "\n".join(paragraphs).encode()


def test_a_list_of_packages_is_a_repository(desk: Desk) -> None:
    (desk.folder / "dists").mkdir()
    (desk.folder / "dists/Packages.gz").write_bytes(gzip.compress(list_of(desk.folder / "debs")))
    desk.create(places="--repository dists/Packages.gz --old old")
    first = (desk.folder / "x.ubk").read_bytes()
    desk.create()
    assert (desk.folder / "x.ubk").read_bytes() == first
    damaged = bytearray((desk.folder / "debs/extra_5_amd64.deb").read_bytes())
    damaged[-1] ^= 1
    (desk.folder / "debs/extra_5_amd64.deb").write_bytes(damaged)
    _out, err = desk.create(code=1, places="--repository dists/Packages.gz --old old")
    assert "extra_5_amd64.deb is not what its list says" in err and "Fetch it again." in err
    assert (desk.folder / "x.ubk").read_bytes() == first


def test_what_devices_have_stays_if_somebody_has_it(desk: Desk) -> None:
    """Version 1 of the tool is in the old packages alone."""
    line = "transaction create --repository debs --state state.json --compatible x --serial 4 --dry-run --want tool"
    kept = desk.facts(f"{line} --old old")
    assert kept["wanted"] == {"library:all": "1", "tool:amd64": "1"}
    assert desk.facts(f"{line} --old old --upgrade")["wanted"]["tool:amd64"] == "2"
    assert desk.facts(line)["wanted"]["tool:amd64"] == "2"


@pytest.mark.requirement("M4")
def test_going_back_is_asked_for(desk: Desk) -> None:
    """The repository has version 2 of the tool, devices have version 3."""
    desk.state({"library:all": "1", "tool:amd64": "3"})
    _out, err = desk.create("--upgrade", code=1)
    assert "devices have tool:amd64 3" in err and "--downgrade" in err
    assert not (desk.folder / "x.ubk").exists()
    for asked in ("--pin tool=2", "--downgrade"):
        out, _err = desk.create(asked)
        assert "tool:amd64: 3 → 2" in out


def test_what_a_device_would_refuse_is_not_signed(desk: Desk) -> None:
    make_deb(desk.folder / "old", "base", "1", {}, Protected="yes")
    desk.state({"library:all": "1", "base:amd64": "1"})
    _out, err = desk.create(code=1)
    assert "state.json: a device in this state would refuse it: base:amd64 is protected" in err
    assert "--expendable NAME" in err and not (desk.folder / "x.ubk").exists()
    desk.create("--expendable base")


def test_a_repository_on_the_web(desk: Desk) -> None:
    lists = desk.folder / "dists/stable/main/binary-amd64"
    lists.mkdir(parents=True)
    (lists / "Packages.gz").write_bytes(gzip.compress(list_of(desk.folder / "debs")))
    handler = partial(SimpleHTTPRequestHandler, directory=str(desk.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        line = "transaction create --want meta-new --state state.json --compatible x --serial 4 --key root.key"
        words = line.split()
        place = ["--repository", f"{url} stable main", "--old", "old", "--cache", "cache", "-o", "x.ubk"]
        assert main([*words, *place]) == 0
        assert len(list((desk.folder / "cache/packages").rglob("*.deb"))) == 3
        assert main([*words, "--repository", f"{url} unstable main", "-o", "y.ubk"]) == 1
        server.shutdown()
    assert "404" in desk.capsys.readouterr().err
    assert main([*words, "--repository", f"{url} stable main", "-o", "y.ubk"]) == 1
    assert "Check the URL" in desk.capsys.readouterr().err
    assert desk.facts("transaction info x.ubk")["wanted"]["tool:amd64"] == "2"


def test_the_database_of_dpkg_is_a_state(desk: Desk) -> None:
    paragraphs = (
        "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
        "Package: half\nStatus: install reinstreq installed\nArchitecture: amd64\nVersion: 1\n",
    )
    (desk.folder / "state.json").write_text("\n".join(paragraphs))
    desk.create()
    assert desk.facts("transaction info x.ubk")["states"] == [state_of({"tool:amd64": "1"}).hex()]


@pytest.mark.requirement("M2")
def test_one_transaction_serves_several_states(desk: Desk) -> None:
    desk.state({"library:all": "1"}, "fresh.json")
    out, _err = desk.create("--state fresh.json")
    assert "1 deltas, 3 whole packages" in out
    assert len(desk.facts("transaction info x.ubk")["states"]) == 2


@pytest.mark.parametrize(
    ("options", "says", "then"),
    [
        ("--want absent", "the master wants absent", "Of absent there is: nothing"),
        ("--want meta-old --old old --repository old", "meta-new 1 conflicts with meta-old", "Want less"),
        ("--pin tool=7", "tool is pinned to 7", "Of tool there is: 2"),
        ("--pin tool", "no name and version", "Write --pin"),
        ("--repository nowhere", "nowhere: ", "Fetch the list again."),
        ("--state nowhere", "nowhere: No such file", "unbrick packages status --json"),
        ("--state debs/extra_5_amd64.deb", "control data", "unbrick packages status --json"),
        ("-c x.toml", "x.toml: No such file", "docs/examples/transaction.toml"),
        ("--want a,,b", "no package to want", "Write: name"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_next_step(desk: Desk, options: str, says: str, then: str) -> None:
    _out, err = desk.create(options, code=1)
    assert says in err and then in err, err
    assert not (desk.folder / "x.ubk").exists() and "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wants = 1", "the key 'wants' is unknown"),
        ("want = 1", "want = 1 is not a list of texts"),
        ("serial = 0", "serial = 0 is not a whole number above 0"),
        ("full = 1", "full = 1 is not true or false"),
        ("pin = { a = 1 }", "is not a table of names and versions"),
        ("= 1", "Invalid"),
        ("serial = " + "9" * 5000, "a number that is too long"),
        ("want = " + "[" * 20000, "too many tables or lists"),
        ("want = 0x" + "f" * 5000, "want is not a list of texts"),
        ("want = [0x" + "f" * 5000 + "]", "want is not a list of texts"),
        ("", "the request names no compatible"),
    ],
)
def test_a_wrong_request_names_the_key(desk: Desk, text: str, says: str) -> None:
    (desk.folder / "x.toml").write_text(text)
    _out, err = desk.run("transaction create -c x.toml --key root.key -o x.ubk", 1)
    assert says in err


def test_the_example_is_a_request() -> None:
    from packagemanager.master.request import load_request

    request = load_request(EXAMPLE.parent / "transaction.toml")
    assert request.with_options(serial=1).checked().repositories == ("apt",)


def test_a_system_is_no_transaction(desk: Desk) -> None:
    (desk.folder / "device.toml").write_text(EXAMPLE.read_text())
    (desk.folder / "rootfs").write_bytes(b"hsqs" + bytes(9000))
    desk.run("bundle create --image rootfs --version 1 --kernel-release 6 --key root.key -o os.ubk")
    assert "operating system" in desk.run("transaction info os.ubk", 1)[1]
