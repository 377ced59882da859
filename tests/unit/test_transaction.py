"""A transaction on the device: who is believed, which is new, and which of its parts this device takes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from packagemanager.database import state_of
from packagemanager.errors import TransactionError
from packagemanager.master import delta as making
from packagemanager.master.delta import STATIC_IDS_MAX
from packagemanager.master.errors import RequestError
from packagemanager.order import order_of
from packagemanager.transaction import believe
from packagemanager.transaction_index import BASES_MAX, STATES_MAX, decode_index, encode_index, index_bytes
from payload.bundle import decode_header, encode_header, read_header
from payload.errors import (
    PayloadBelowThresholdError,
    PayloadError,
    PayloadExpiredError,
    PayloadForgedError,
    PayloadFormatError,
    PayloadKernelMismatchError,
    PayloadKeyRevokedError,
    PayloadUnsignedError,
    PayloadWrongCompatibleError,
    PayloadWrongKeyError,
)
from payload.signing_key import sign
from payload.trust import Trusted, trusted_key, verify
from tests.unit.payload_samples import COMPATIBLE, KERNEL, KEY, OTHER_KEY, ROOT, BytesReader, Sample, mixed_image
from tests.unit.transaction_samples import SERIAL, Folder, Master, installed_root, opened, state, unpacked
from tests.unit.trust_samples import CHAIN, DEVICE, NOON, YEAR, key

NOISE = random.Random(5).randbytes(200_000)
NEXT = NOISE[:90_000] + b"a change in the middle" + NOISE[90_100:]


@pytest.fixture
def master(tmp_path: Path) -> Master:
    return Master(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A transaction that nobody changes."""
    return simple(Master(tmp_path_factory.mktemp("plain")))


def simple(master: Master, **more: Any) -> bytes:
    old = master.add("tool", "1.0", {"usr/bin/tool": NOISE})
    return master.transaction([master.add("tool", "2.0", {"usr/bin/tool": NEXT})], [state(old)], **more)


@pytest.mark.requirement("M1", "M2")
def test_the_device_gets_exactly_what_the_master_wants(master: Master) -> None:
    old = master.add("tool", "1.0", {"usr/bin/tool": NOISE, "usr/share/doc/tool": b"old"})
    gone = master.add("gone", "1.0", {"usr/bin/gone": b"gone"})
    new = master.add("tool", "2.0", {"usr/bin/tool": NEXT, "usr/share/doc/tool": b"new"})
    more = master.add("more", "1", {"usr/bin/more": b"more"})
    transaction = opened(master.transaction([more, new], [state(old, gone)]))
    root = installed_root(master.folder / "root", old, gone)
    assert transaction.serial == SERIAL
    assert list(transaction.index.wanted.items()) == [("more:amd64", "1"), ("tool:amd64", "2.0")]
    sources = transaction.sources(state(old, gone), root)
    assert list(sources) == ["more:amd64", "tool:amd64"]
    content, files = unpacked(sources["tool:amd64"])
    assert files == {"usr/bin/tool": NEXT, "usr/share/doc/tool": b"new"}
    assert b"Version: 2.0\n" in content.control


@pytest.mark.requirement("M4")
def test_an_older_package_is_a_newer_transaction(master: Master) -> None:
    old, new = master.add("tool", "1.0", {"usr/bin/tool": NOISE}), master.add("tool", "2.0", {"usr/bin/tool": NEXT})
    root = installed_root(master.folder / "root", new)
    sources = opened(master.transaction([old], [state(new)], serial=8), last_serial=7).sources(state(new), root)
    assert unpacked(sources["tool:amd64"])[1] == {"usr/bin/tool": NOISE}
    assert master.written.deltas == ["tool 1.0"]


@pytest.mark.requirement("M3")
def test_what_is_there_already_does_not_travel(master: Master) -> None:
    same = master.add("same", "1", {"usr/lib/same": NOISE})
    transaction = opened(master.transaction([same], [state(same)]))
    assert transaction.lacking(state(same)) == [] and transaction.index.parts == ()
    assert master.written.bytes == 4096


@pytest.mark.requirement("M1")
def test_what_may_go_and_what_is_purged_is_the_masters_word(master: Master) -> None:
    only = master.add("only", "1", {"usr/bin/only": b"only"})
    transaction = opened(master.transaction([only], [{}], expendable=["base"], purge=True))
    wish = order_of(transaction, Folder(master.folder)).wish  # type: ignore[arg-type]
    assert (wish.wanted, wish.expendable, wish.purge) == ({"only:amd64": "1"}, frozenset({"base"}), True)


# --- who is believed: the production rules of bundles


def believed(content: bytes, trusted: Trusted, **more: object) -> tuple[int, Trusted]:
    manifest, after = believe(read_header(BytesReader(content)), trusted, COMPATIBLE, 0, **more)  # type: ignore[arg-type]
    return manifest.version, after


@pytest.mark.fault("T1")
def test_a_wrong_key_is_refused(master: Master) -> None:
    with pytest.raises(PayloadWrongKeyError):
        believed(simple(master, key=OTHER_KEY), trusted_key(ROOT, COMPATIBLE))


@pytest.mark.fault("T1")
def test_no_signature_and_a_forged_one_are_refused(plain: bytes) -> None:
    header = read_header(BytesReader(plain))
    for signatures, error in (
        ([], PayloadUnsignedError),
        ([(sign(KEY, b"")[0], sign(OTHER_KEY, header.manifest_bytes)[1])], PayloadForgedError),
    ):
        raw = encode_header(header.manifest_bytes, signatures, header.tables)
        with pytest.raises(error):
            believe(decode_header(raw), trusted_key(ROOT, COMPATIBLE), COMPATIBLE, 0)


@pytest.mark.fault("T2")
def test_a_revoked_key_is_refused(master: Master) -> None:
    content = simple(master, key=key("build"), times=(NOON, NOON + YEAR))
    assert believed(content, DEVICE)[0] == SERIAL
    header = read_header(BytesReader(content))
    raw = encode_header(header.manifest_bytes, header.signatures, header.tables, CHAIN)
    with pytest.raises(PayloadKeyRevokedError):
        believe(decode_header(raw), DEVICE, COMPATIBLE, 0)


@pytest.mark.requirement("M4")
def test_a_threshold_counts_and_roots_are_followed(master: Master) -> None:
    header = read_header(BytesReader(simple(master, key=key("build-3"), times=(NOON + 4 * YEAR, NOON + 5 * YEAR))))
    text = header.manifest_bytes
    half = encode_header(text, header.signatures, header.tables, CHAIN)
    with pytest.raises(PayloadBelowThresholdError):
        believe(decode_header(half), DEVICE, COMPATIBLE, 0)
    whole = encode_header(text, [*header.signatures, sign(key("release"), text)], header.tables, CHAIN)
    manifest, after = believe(decode_header(whole), DEVICE, COMPATIBLE, 0)
    assert manifest.version == SERIAL < after.floor == 8  # a floor is of operating systems
    assert after.root.version == 4


@pytest.mark.fault("T3", "N8")
def test_an_expired_one_is_refused_from_the_network_alone(master: Master) -> None:
    content = simple(master, times=(100, 200))
    later = trusted_key(ROOT, COMPATIBLE).with_time(201)
    assert believed(content, later)[0] == SERIAL
    with pytest.raises(PayloadExpiredError):
        believed(content, later, network=True)
    assert believed(content, trusted_key(ROOT, COMPATIBLE), network=True)[1].clock_floor == 100


@pytest.mark.fault("T4", "N7")
@pytest.mark.parametrize("last_serial", [SERIAL, SERIAL + 1])
def test_one_that_is_sent_again_does_nothing(plain: bytes, last_serial: int) -> None:
    header = read_header(BytesReader(plain))
    with pytest.raises(TransactionError, match=f"transaction 7 is not newer than {last_serial}") as raised:
        believe(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, last_serial)
    assert "new transaction" in raised.value.advice


def test_one_for_another_device_is_refused(master: Master) -> None:
    with pytest.raises(PayloadWrongCompatibleError):
        believed(simple(master, compatible="another"), trusted_key(ROOT, COMPATIBLE))


@pytest.mark.fault("N6")
def test_systems_and_packages_are_not_mistaken_for_each_other(plain: bytes, tmp_path: Path) -> None:
    system = Sample(tmp_path, mixed_image(2))
    with pytest.raises(TransactionError, match="operating system"):
        believe(system.header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, 0)
    header = read_header(BytesReader(plain))
    with pytest.raises(PayloadKernelMismatchError, match="unbrick packages apply"):
        verify(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, KERNEL)
    with pytest.raises(PayloadKernelMismatchError):
        verify(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, "none")
    manifest, _trusted = verify(header, trusted_key(ROOT, COMPATIBLE), COMPATIBLE, None)
    with pytest.raises(PayloadFormatError, match="no image"):
        manifest.image("rootfs")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"kind":"packages"', b'"kind":"immutable"'),
        (b'"slot-class":"packages"', b'"slot-class":"rootfs"'),
        (b'"filesystem":"none"', b'"filesystem":"ext4"'),
        (b'"init":"/"', b'"init":"/sbin/init"'),
        (b'"kernel-release":"none"', b'"kernel-release":"6.1.0"'),
        (b'"watchdog-owner":"none"', b'"watchdog-owner":"systemd"'),
    ],
)
@pytest.mark.fault("N6")
def test_nothing_is_half_a_transaction(plain: bytes, was: bytes, becomes: bytes) -> None:
    header = read_header(BytesReader(plain))
    text = header.manifest_bytes.replace(was, becomes)
    assert text != header.manifest_bytes
    raw = encode_header(text, [sign(KEY, text)], header.tables)
    with pytest.raises(PayloadFormatError, match="half an image"):
        verify(decode_header(raw), trusted_key(ROOT, COMPATIBLE), COMPATIBLE, None)


# --- which parts this device takes


@pytest.mark.requirement("M2", "M3")
def test_a_state_that_nobody_knew_is_said_and_refused(master: Master) -> None:
    old = master.add("tool", "1.0", {"usr/bin/tool": NOISE})
    other = {"tool:amd64": "0.9"}
    transaction = opened(master.transaction([master.add("tool", "2.0", {"usr/bin/tool": NEXT})], [state(old)]))
    with pytest.raises(TransactionError) as raised:
        transaction.sources(other, installed_root(master.folder / "root", old))
    identity = state_of(other).hex()
    assert f"in state {identity}, which it does not know" in str(raised.value)
    assert "tool:amd64 2.0 (version 0.9 is here)" in str(raised.value)
    assert f"full transaction for state {identity}" in raised.value.advice


@pytest.mark.requirement("M2")
def test_a_full_transaction_serves_any_state(master: Master) -> None:
    old, new = master.add("tool", "1.0", {"usr/bin/tool": NOISE}), master.add("tool", "2.0", {"usr/bin/tool": NEXT})
    library = master.add("library", "3", {"usr/lib/library": b"library"})
    transaction = opened(master.transaction([library, new], [state(old)], full=True))
    empty = Folder(master.folder)
    sources = transaction.sources({}, empty)
    assert [unpacked(source)[1] for source in sources.values()] == [
        {"usr/lib/library": b"library"},
        {"usr/bin/tool": NEXT},
    ]


@pytest.mark.requirement("M3")
def test_an_old_file_that_changed_takes_the_whole_package_or_is_named(master: Master) -> None:
    old, new = master.add("tool", "1.0", {"usr/bin/tool": NOISE}), master.add("tool", "2.0", {"usr/bin/tool": NEXT})
    root = installed_root(master.folder / "root", old)
    (root.folder / "usr/bin/tool").write_bytes(NOISE[:-1] + b"!")
    with pytest.raises(TransactionError, match=r"tool:amd64 2.0 \(/usr/bin/tool is not as version 1.0 shipped it\)"):
        opened(master.transaction([new], [state(old)])).sources(state(old), root)
    (root.folder / "usr/bin/tool").unlink()
    sources = opened(master.transaction([new], [state(old)], full=True)).sources(state(old), root)
    assert unpacked(sources["tool:amd64"])[1] == {"usr/bin/tool": NEXT}
    assert master.written.whole == master.written.deltas == ["tool 2.0"]


@pytest.mark.requirement("M2", "M3")
def test_several_states_share_one_transaction(master: Master) -> None:
    versions = [master.add("tool", f"1.{number}", {"usr/bin/tool": NOISE + bytes([number])}) for number in range(3)]
    fresh = random.Random(6).randbytes(100_000)
    new = master.add("tool", "2.0", {"usr/bin/tool": NEXT, "usr/lib/fresh": fresh})
    library = master.add("library", "3", {"usr/lib/library": fresh[::-1]})
    states = [state(versions[0]), state(versions[1]), state(versions[2], library), {}]
    content = master.transaction([library, new], states)
    one = [master.transaction([library, new], [each]) for each in states[:3]]
    assert len(content) < len(one[0]) + len(new.fields.encode()) + new.size + 3 * 4096
    transaction = opened(content)
    for number, each in enumerate(states):
        root = installed_root(master.folder / f"root {number}", *versions[number : number + 1])
        sources = transaction.sources(each, root)
        assert unpacked(sources["tool:amd64"])[1] == {"usr/bin/tool": NEXT, "usr/lib/fresh": fresh}
        assert ("library:amd64" in sources) == (number != 2)
        transaction.announce(sources)


@pytest.mark.parametrize(("bound", "bytes_max"), [("RECIPE_BYTES_MAX", 100), ("STORED_BYTES_MAX", 100)])
def test_a_delta_that_no_device_would_read_is_none(
    master: Master, monkeypatch: pytest.MonkeyPatch, bound: str, bytes_max: int
) -> None:
    monkeypatch.setattr(making, bound, bytes_max)
    opened(simple(master))
    assert (master.written.whole, master.written.deltas) == (["tool 2.0"], [])


def test_a_transaction_that_no_device_would_read_is_not_written(master: Master) -> None:
    new = master.add("tool", "2.0", {})
    states = [{"tool:amd64": f"1.{number}"} for number in range(STATES_MAX + 1)]
    with pytest.raises(RequestError, match="no device would take the transaction"):
        master.transaction([new], states)
    opened(master.transaction([new], states[1:]))


def test_a_delta_is_for_as_many_versions_as_a_device_reads(master: Master) -> None:
    olds = [master.add("tool", f"1.{number}", {"usr/bin/tool": NOISE[:5000]}) for number in range(BASES_MAX + 1)]
    new = master.add("tool", "2.0", {"usr/bin/tool": NOISE[:5000] + b"!"})
    parts = opened(master.transaction([new], [state(old) for old in olds])).index.parts
    assert [(part.kind, len(part.bases)) for part in parts] == [("delta", BASES_MAX), ("deb", 0)]


def test_owners_by_name_need_the_whole_package(master: Master) -> None:
    """A delta has numbers, which are the same everywhere for the owners that every system has, and for no others."""
    from tests.unit.deb_samples import control_tar, deb_of, member, tar_of

    old = master.add("game", "1", {"usr/games/game": NOISE})
    new = master.add("game", "2", {"usr/games/game": NEXT})
    assert new.fetch is not None
    control = new.fields.encode()
    members = [member("./usr/games/game", content=NEXT, gid=STATIC_IDS_MAX, gname="players")]
    new.fetch().write_bytes(deb_of(tar_of(members), control_tar(control)))
    root = installed_root(master.folder / "root", old)
    transaction = opened(master.transaction([new], [state(old)]))
    content, _files = unpacked(transaction.sources(state(old), root)["game:amd64"])
    assert master.written.deltas == [] and content.entries[-1].group == "players"


# --- bytes that are not as they should be


def test_the_index_is_the_one_encoding_of_what_it_says(plain: bytes) -> None:
    index = opened(plain).index
    raw = encode_index(index)
    again = decode_index(raw[16:], 1 << 30)
    assert encode_index(again) == raw and index_bytes(raw[:16]) == len(raw) - 16


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"tool:amd64 2.0"', b'"tool:amd64"'),
        (b'"tool:amd64 2.0"', b'"tool:amd64 2.0","tool:amd64 3.0"'),
        (b'"tool:amd64 2.0"', b'"../tool:amd64 2.0"'),
        (b'"unpack":[0]', b'"unpack":[1]'),
        (b'"unpack":[0]', b'"unpack":[0,0]'),
        (b'"kind":["delta"]', b'"kind":["deb"]'),
        (b'"bases":["1.0"]', b'"bases":[""]'),
        (b'"bases":["1.0"]', b'"bases":["1.0  2"]'),
        (b'"package":[0]', b'"package":[1]'),
        (b'"package":[0]', b'"package":[0,0]'),
        (b'"offset":[', b'"offset":[1073741824,'),
        (b'"removals":[]', b'"removals":["tool"]'),
        (b'"purge":false', b'"purge":0'),
        (b'"unpack":[0]', b'"unpack":[0] '),
        (b'"unpack":[0]', b'"unpack":' + b"[" * 70 + b"]" * 70),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(plain: bytes, was: bytes, becomes: bytes) -> None:
    text = encode_index(opened(plain).index)[16:]
    assert was in text
    with pytest.raises(TransactionError):
        decode_index(text.replace(was, becomes), 1 << 30)


def test_a_part_beyond_the_content_is_refused(plain: bytes) -> None:
    text = encode_index(opened(plain).index)[16:]
    with pytest.raises(TransactionError, match="part that cannot be"):
        decode_index(text, 4096)


@pytest.mark.parametrize("full", [True, False])
def test_a_part_that_is_not_what_the_index_says_is_refused(master: Master, full: bool) -> None:
    """The frames are right: the master made a mistake."""
    old = master.add("tool", "1.0", {"usr/bin/tool": NOISE})
    content = master.transaction([master.add("tool", "2.0", {"usr/bin/tool": NEXT})], [{}] if full else [state(old)])
    transaction = opened(content)
    transaction.index.parts[0].digest = bytes(32)
    with pytest.raises(TransactionError, match="is not what the index says"):
        transaction.sources({} if full else state(old), installed_root(master.folder / "root", old))


@pytest.mark.fault("N3", "N4")
def test_every_damaged_byte_is_refused_or_does_nothing(master: Master) -> None:
    """The file's own bytes: header, index, parts. What comes out is the package, or an error of ours."""
    old = master.add("tool", "1.0", {"usr/bin/tool": b"old " * 400})
    new = master.add("tool", "2.0", {"usr/bin/tool": b"new " * 400})
    content = master.transaction([new], [state(old)], full=True)
    root = installed_root(master.folder / "root", old)
    answers = {"refused": 0, "right": 0}
    for at in range(len(content)):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]):
            try:
                found = unpacked(opened(damaged).sources(state(old), root)["tool:amd64"])[1]
            except (PayloadError, TransactionError):
                answers["refused"] += 1
                continue
            assert found == {"usr/bin/tool": b"new " * 400}
            answers["right"] += 1
    assert answers["refused"] > len(content) and answers["right"] > 0
