"""A bundle whose chain of roots is not whole, and the day on which the journal is lost.

A device that knows root 4 passes older links over: they may be missing, or spoilt by whoever carried the bundle. It
must not keep such a header where it would be the only way from the image's root 1 to the keys of root 4.
"""

from __future__ import annotations

import os

import pytest

from payload.bundle import Header
from payload.errors import PayloadRootsIncompleteError
from payload.roots import Link
from payload.sources import RegionSource
from payload.trust import check_complete, verify
from recovery import update
from recovery.device_journal import DeviceJournal
from recovery.keyring import Keyring
from recovery.workshop import Workshop
from statemachine.record import Record
from tests.simulator.devices import _never, _no_other_writer
from tests.simulator.disk import Storage
from tests.simulator.test_rotation_sweep import (
    CONFIG,
    HEADER,
    JOURNAL_END,
    PAYLOAD,
    SLOT_AT,
    World,
    boot,
    media,
)
from tests.unit.payload_samples import COMPATIBLE, mixed_image
from tests.unit.trust_samples import CHAIN, LINK_1, LINK_2, LINK_3, LINK_4, ROOT_1, Vendor, without_signatures

pytestmark = [pytest.mark.requirement("D5", "D6"), pytest.mark.fault("R2", "T2", "T5")]

SPOILT = Link(2, LINK_2.text.replace(b'floor":6', b'floor":9'), LINK_2.signatures)
CHAINS: dict[str, tuple[Link, ...]] = {
    "none": (),
    "the newest alone": (LINK_4,),
    "the first one missing": (LINK_3, LINK_4),
    "an older one spoilt": (SPOILT, LINK_3, LINK_4),
    "an older one unsigned": (without_signatures(LINK_2), LINK_3, LINK_4),
    "another first one": (without_signatures(LINK_1), SPOILT, LINK_3, LINK_4),
}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("lost"), mixed_image(3))


@pytest.fixture(scope="module")
def world(vendor: Vendor) -> World:
    return World(vendor, CHAIN)


def header(vendor: Vendor, version: int, chain: tuple[Link, ...]) -> Header:
    return vendor.header(version, "build-3 release", chain, kernel_release=os.uname().release)


def stick(vendor: Vendor, version: int, chain: tuple[Link, ...]) -> bytes:
    return (header(vendor, version, chain).raw + vendor.data).ljust(PAYLOAD, b"\0")


def knowing(world: World) -> Storage:
    """A device with root 4 in its journal and version 9 in its slot; its bundle has the whole chain."""
    storage = world.storage(world.stick)
    assert boot(storage).state == "TRYING"
    return storage.restarted()


def with_stick(storage: Storage, content: bytes) -> Storage:
    return Storage(images=[storage.images()[0], content])


def test_whole_chains_are_complete(vendor: Vendor) -> None:
    check_complete(header(vendor, 9, CHAIN), ROOT_1)
    check_complete(header(vendor, 9, (LINK_1, *CHAIN)), ROOT_1)
    check_complete(vendor.header(5, "build"), ROOT_1)


@pytest.mark.parametrize("name", CHAINS)
def test_what_only_a_device_with_a_memory_believes_is_not_complete(vendor: Vendor, world: World, name: str) -> None:
    incomplete = header(vendor, 9, CHAINS[name])
    trusted = verify(world.new, Keyring(CONFIG, Record()).trusted, COMPATIBLE, None)[1]
    verify(incomplete, trusted, COMPATIBLE, None)
    with pytest.raises(PayloadRootsIncompleteError, match="from root 1 on"):
        check_complete(incomplete, ROOT_1)


@pytest.mark.parametrize("name", CHAINS)
def test_an_update_that_would_not_outlive_the_journal_is_refused(vendor: Vendor, world: World, name: str) -> None:
    with pytest.raises(PayloadRootsIncompleteError):
        install(knowing(world), stick(vendor, 10, CHAINS[name]))
    assert install(knowing(world), stick(vendor, 10, CHAIN)) == update.STAGED


def install(storage: Storage, content: bytes) -> str:
    """Ask the running OS for it."""
    storage = with_stick(storage, content)
    with media(storage):
        ledger = update.Ledger(CONFIG, "disk", lock=_no_other_writer)
        workshop = Workshop(CONFIG, "disk", lambda: None, _never)
        workshop.recall(ledger.look())
        update.commit(workshop, ledger)
        return update.update(workshop, ledger, RegionSource(storage.disks[1], "stick"))


@pytest.mark.parametrize("name", CHAINS)
def test_a_repair_keeps_the_chain_that_the_slot_has(vendor: Vendor, world: World, name: str) -> None:
    storage = failing(with_stick(knowing(world), stick(vendor, 9, CHAINS[name])))
    storage.disks[0].rot(SLOT_AT + 5, 1)
    record = boot(storage)
    assert (record.state, record.installed.version, record.frames_written) == ("TRYING", 9, 1)
    copies = [storage.disks[0].peek(JOURNAL_END + number * HEADER, HEADER) for number in (0, 1)]
    assert [copy.startswith(world.new.raw) for copy in copies] == [True, True]
    assert comes_back(storage, vendor)


def failing(storage: Storage) -> Storage:
    """The same device after its last attempt."""
    with media(storage):
        journal = DeviceJournal(CONFIG, "disk")
        journal.persist(journal.record.but(attempts_left=0))
    return storage.restarted()


def comes_back(storage: Storage, vendor: Vendor) -> bool:
    """Whether it does when the journal is lost, with no stick but an unsigned one."""
    images = with_stick(storage.restarted(), bytes(PAYLOAD)).images()
    lost = Storage(images=[bytes(JOURNAL_END) + images[0][JOURNAL_END:], images[1]])
    record = boot(lost)
    return (record.state, record.installed.version, record.root_version) == ("TRYING", 9, 4)


def test_a_device_that_is_down_takes_what_it_gets(vendor: Vendor, world: World) -> None:
    storage = failing(with_stick(knowing(world), stick(vendor, 10, ())))
    storage.disks[0].put(JOURNAL_END, bytes(SLOT_AT - JOURNAL_END + 100))
    record = boot(storage)
    assert (record.state, record.installed.version, record.root_version) == ("TRYING", 10, 4)
