"""A real update of ten packages of Debian as deltas: how many bytes travel, what comes out, in how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from packagemanager.deb import Deb
from packagemanager.master.emit import Order
from packagemanager.master.package import Package
from packagemanager.master.repository import APT_LISTS, apt_lists
from packagemanager.master.transaction_file import Label, create_transaction
from payload.sources import FileSource
from scripts.benchmarks.package_deltas import NAMES
from tests.unit.payload_samples import COMPATIBLE, KEY
from tests.unit.transaction_samples import Folder, opened, state, unpacked

pytestmark = [pytest.mark.requirement("M3"), pytest.mark.long]
SHARE_MAX = 0.25
DEVICE_BYTES_MAX = 40 << 20  # with the interpreter and all that these tests import
SECONDS_MAX = 300
ROOT = Path(__file__).parents[2]


class Update:
    """The newest version of each package, the one before it, and a root that has the older ones."""

    def __init__(self, folder: Path) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unbrick"
        lists = apt_lists(APT_LISTS, "amd64", cache)
        pairs = [found[:2] for name in NAMES if len(found := lists.named(name)) > 1]
        if len(pairs) < len(NAMES):
            pytest.skip(f"this machine's repositories have two versions of {len(pairs)} packages only")
        self.new, self.old = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.root = Folder(folder / "root")
        for package in self.old:
            subprocess.run(["dpkg-deb", "-x", self.deb(package), self.root.folder], check=True, timeout=SECONDS_MAX)
        self.path = folder / "update.ubk"
        order = Order("amd64", self.new, self.new, (), [state(*self.old)], lists.exactly)
        self.written, _created = create_transaction(order, Label(COMPATIBLE, 7, "7", 100, 200), [KEY], [], self.path)
        self.state_file = folder / "state.json"
        self.state_file.write_text(json.dumps(state(*self.old)))

    @staticmethod
    def deb(package: Package) -> Path:
        assert package.fetch is not None
        return package.fetch()


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Update:
    return Update(tmp_path_factory.mktemp("update"))


def test_a_quarter_of_the_packages_bytes_is_enough(update: Update) -> None:
    packages = sum(package.size for package in update.new)
    assert len(update.written.deltas) == len(NAMES) and update.written.whole == []
    assert update.path.stat().st_size <= SHARE_MAX * packages


def test_what_comes_out_is_what_the_packages_hold(update: Update) -> None:
    transaction = opened(update.path.read_bytes())
    sources = transaction.sources(state(*update.old), update.root)
    for package in update.new:
        content, files = unpacked(sources[package.key])
        expected, of_package = unpacked(Deb(FileSource(str(update.deb(package)), "")))
        assert files == of_package and content.entries == expected.entries
        assert (content.control, content.files) == (expected.control, expected.files)


CHILD = """
import json, pathlib, resource, sys
from tests.unit.transaction_samples import Folder
class File:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = pathlib.Path(path).stat().st_size
    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)
from packagemanager.transaction import Transaction, believe
from payload.bundle import read_header
from payload.trust import trusted_key
from tests.unit.payload_samples import COMPATIBLE, ROOT
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
file = File(sys.argv[1])
header = read_header(file)
transaction = Transaction(file, header, believe(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, 0)[0])
for source in transaction.sources(json.load(open(sys.argv[3])), Folder(pathlib.Path(sys.argv[2]))).values():
    source.unpack(lambda entry, chunks: [None for _ in chunks].clear())
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
INTERPRETER_BYTES = 15 << 20  # of the frozen one, with what it imports for this


def test_memory_is_small(update: Update) -> None:
    command: list[str | Path] = [sys.executable, "-c", CHILD, update.path, update.root.folder, update.state_file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS_MAX)
    before, after = (int(word) << 10 for word in done.stdout.split())
    assert INTERPRETER_BYTES + after - before <= DEVICE_BYTES_MAX
