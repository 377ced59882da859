"""Root metadata and chains as bytes and as rules, apart from any bundle."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import PayloadFormatError, PayloadRootRefusedError
from payload.roots import (
    CHAIN_BYTES_MAX,
    FLOOR_MAX,
    ROLE_KEYS_MAX,
    ROOT_VERSION_MAX,
    ROOTS_MAX,
    Link,
    Root,
    check_first,
    decode_chain,
    decode_root,
    encode_chain,
    follow,
    single_key_root,
)
from payload.signatures import SIGNATURES_MAX
from payload.strict_json import TIME_MAX
from payload.trust import Trusted
from recovery.keyring import Keyring, kept_root
from statemachine.limits import RECORD_BODY_BYTES_MAX, ROOT_BYTES_MAX, TEXT_BYTES_MAX, TRIED_IMAGES_MAX
from statemachine.record import Image, Record, Slot, decode
from tests.unit.payload_samples import COMPATIBLE, ROOT
from tests.unit.trust_samples import CHAIN, LINK_1, ROOT_1, ROOT_2, ROOT_3, ROOT_4, changed, make_root, signed_root

pytestmark = pytest.mark.requirement("D6")

# Keys stay, so that signatures do not give a wrong version away.
SAME = [changed(ROOT_1, version=version) for version in range(1, 5)]
SAME_LINKS = [signed_root(root, "alice bob") for root in SAME]


def largest_root() -> Root:
    keys = [bytes([number]) * 32 for number in range(2 * ROLE_KEYS_MAX)]
    return Root(
        compatible="x" * 128,
        version=ROOT_VERSION_MAX,
        root_keys=keys[:ROLE_KEYS_MAX],
        root_threshold=ROLE_KEYS_MAX,
        bundle_keys=keys[ROLE_KEYS_MAX:],
        bundle_threshold=ROLE_KEYS_MAX,
        floor=FLOOR_MAX,
        signed_at=TIME_MAX,
        expires_at=TIME_MAX,
    )


def test_a_root_survives_the_round_trip() -> None:
    for root in (ROOT_1, ROOT_4, single_key_root(ROOT, COMPATIBLE), largest_root()):
        again = decode_root(root.text)
        assert (again.text, again.digest) == (root.text, root.digest)
        assert again.root_keys == root.root_keys


def test_the_largest_root_fits_a_link_and_a_record() -> None:
    root = largest_root()
    assert len(root.text) <= ROOT_BYTES_MAX
    text = "t" * TEXT_BYTES_MAX
    image = Image(bytes(32), 1, 1, "immutable", "systemd", text, text, text)
    record = Record(
        slots=(Slot(image), Slot(image)),
        target=image,
        tried=(bytes(32),) * TRIED_IMAGES_MAX,
        root=root.text.ljust(ROOT_BYTES_MAX),
    )
    assert len(record.encode()) <= RECORD_BODY_BYTES_MAX
    assert decode(record.encode()) == record
    assert decode(record.but(root=b"x" * (ROOT_BYTES_MAX + 1)).encode()) is None


def test_the_largest_chain_fits_its_section() -> None:
    signatures = ((bytes(32), bytes(64)),) * SIGNATURES_MAX
    chain = [Link(version, bytes(ROOT_BYTES_MAX), signatures) for version in range(1, ROOTS_MAX + 1)]
    section = encode_chain(chain)
    assert len(section) == CHAIN_BYTES_MAX == 98_688
    assert encode_chain(decode_chain(section)) == section


def test_a_link_over_its_bounds_is_refused_though_it_is_all_there() -> None:
    for link in (Link(2, bytes(ROOT_BYTES_MAX + 1), ()), Link(2, b"x", ((bytes(32), bytes(64)),) * 17)):
        with pytest.raises(PayloadFormatError, match="too many"):
            decode_chain(encode_chain([link]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 0),
        ("version", 1 << 32),
        ("version", "1"),
        ("version", True),
        ("floor", -1),
        ("floor", 1 << 64),
        ("floor", 1.0),
        ("signed-at", -1),
        ("signed-at", TIME_MAX),  # after it expires
        ("expires-at", TIME_MAX + 1),
        ("compatible", ""),
        ("compatible", "a b"),
        ("root-threshold", 0),
        ("root-threshold", 4),
        ("bundle-threshold", 2),
        ("root-keys", []),
        ("root-keys", ["00" * 31]),
        ("root-keys", ["AA" * 32]),
        ("bundle-keys", ["00" * 32, "00" * 32]),
        ("bundle-keys", ["11" * 32, "00" * 32]),
        ("bundle-keys", [f"{number:02d}" * 32 for number in range(9)]),
        ("bundle-keys", {"00": 1}),
    ],
)
def test_a_root_with_a_bad_value_is_refused(key: str, value: object) -> None:
    fields = json.loads(ROOT_1.text) | {key: value}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(PayloadFormatError):
        decode_root(text)


def test_a_root_has_one_encoding_and_known_keys() -> None:
    text = ROOT_1.text
    fields = json.loads(text)
    for other in (
        text + b"\n",
        text.replace(b":1}", b":1.0}"),
        text.replace(b'"floor":0', b'"floor":0,"floor":0'),
        json.dumps(fields | {"zero": 0}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({key: fields[key] for key in fields if key != "floor"}, separators=(",", ":")).encode(),
        text.ljust(ROOT_BYTES_MAX + 1),
        b"[" * 100,
        b"\xff",
        b"",
    ):
        with pytest.raises(PayloadFormatError):
            decode_root(other)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_chain_or_a_format_error(section: bytes) -> None:
    try:
        chain = decode_chain(section)
    except PayloadFormatError:
        return
    assert encode_chain(chain) == section


def test_a_chain_is_followed_from_wherever_a_device_is() -> None:
    known = [ROOT_1, ROOT_2, ROOT_3, ROOT_4]
    for index, root in enumerate(known):
        followed = follow(root, CHAIN)
        assert [one.digest for one in followed] == [one.digest for one in known[index + 1 :]]
    assert follow(ROOT_1, (LINK_1, *CHAIN))[-1].digest == ROOT_4.digest
    assert follow(ROOT_4, CHAIN[:1]) == []


def test_no_version_is_left_out_even_where_the_keys_stay() -> None:
    assert follow(SAME[0], tuple(SAME_LINKS[1:]))[-1].version == 4
    with pytest.raises(PayloadRootRefusedError, match="does not follow"):
        follow(SAME[0], tuple(SAME_LINKS[2:]))
    with pytest.raises(PayloadFormatError):
        decode_chain(encode_chain([SAME_LINKS[1], SAME_LINKS[3]]))
    with pytest.raises(PayloadFormatError):
        decode_chain(encode_chain([Link(0, b"", ())]))


def test_a_root_is_not_passed_off_as_another_version() -> None:
    relabelled = Link(2, SAME_LINKS[2].text, SAME_LINKS[2].signatures)
    with pytest.raises(PayloadRootRefusedError, match="stands in the chain as"):
        follow(SAME[0], (relabelled,))
    with pytest.raises(PayloadRootRefusedError, match="stands in the chain as"):
        check_first(Link(1, SAME_LINKS[1].text, SAME_LINKS[1].signatures))


def test_a_root_that_nobody_signed_is_not_parsed() -> None:
    with pytest.raises(PayloadRootRefusedError):
        follow(ROOT_1, (Link(2, b"not JSON", LINK_1.signatures),))


def test_signed_nonsense_is_a_format_error() -> None:
    from payload.signing_key import sign_root
    from tests.unit.trust_samples import key

    text = b"{}"
    link = Link(2, text, tuple(sign_root(key(name), text) for name in ("alice", "bob")))
    with pytest.raises(PayloadFormatError):
        follow(ROOT_1, (link,))


# The keyring: what is pinned, what the journal holds, what was learned.

CONFIG = {"compatible": COMPATIBLE, "keyring": {"metadata": ROOT_2.text.decode()}}


def record_of(root: Root, **fields: object) -> Record:
    return Record(root_version=root.version, root_digest=root.digest, root=root.text).but(**fields)


def test_the_newer_one_of_the_images_root_and_the_journals_counts() -> None:
    assert Keyring(CONFIG, Record()).trusted.root.version == 2
    assert Keyring(CONFIG, record_of(ROOT_1)).trusted.root.version == 2
    assert Keyring(CONFIG, record_of(ROOT_3)).trusted.root.digest == ROOT_3.digest
    other = changed(ROOT_2, floor=1)
    assert Keyring(CONFIG, record_of(other)).trusted.root.digest == ROOT_2.digest


def test_a_new_image_that_pins_a_root_without_a_key_resets_what_that_key_drove_up() -> None:
    poisoned = record_of(ROOT_1, floor=FLOOR_MAX, clock_floor=TIME_MAX)
    state = Keyring(CONFIG, poisoned).trusted
    assert (state.floor, state.clock_floor) == (ROOT_2.floor, ROOT_2.signed_at)
    mine = record_of(ROOT_2, floor=9, clock_floor=ROOT_2.signed_at + 1)
    assert Keyring(CONFIG, mine).trusted == Trusted(ROOT_2, 9, ROOT_2.signed_at + 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"root": b""},
        {"root": ROOT_4.text[:-1]},
        {"root_digest": bytes(32)},
        {"root_version": 5},
        {"root": b"{}", "root_digest": make_root(9, "a", "b").digest},
    ],
)
def test_a_record_whose_root_is_not_whole_holds_none(fields: dict[str, object]) -> None:
    record = record_of(ROOT_4, floor=7).but(**fields)
    assert kept_root(record) is None
    assert Keyring(CONFIG, record).trusted.floor == 7, "the floor stays"


def test_a_floor_that_rose_meanwhile_stays_under_a_root_that_was_learned() -> None:
    keys = Keyring(CONFIG, record_of(ROOT_3, floor=6))
    keys.trusted = keys.trusted.with_root(ROOT_4)  # which takes no bundle key away
    keys.recall(record_of(ROOT_3, floor=60))
    assert (keys.trusted.root.version, keys.trusted.floor) == (4, 60)


def test_a_record_lacks_the_root_of_a_newer_image_until_it_holds_it() -> None:
    behind = record_of(ROOT_1, floor=9)
    keys = Keyring(CONFIG, behind)
    lacking = keys.lacking(behind)
    assert (lacking["root_version"], lacking["floor"]) == (2, ROOT_2.floor)
    assert keys.lacking(behind.but(**lacking)) == {}
    assert keys.lacking(Record()) == {}, "one that holds none is of a device that knows its image's"


def test_what_is_learned_stays_known_until_the_journal_has_it() -> None:
    keys = Keyring(CONFIG, Record())
    keys.trusted = keys.trusted.with_root(ROOT_3)
    keys.recall(Record(floor=3))
    assert keys.trusted.root.version == 3
    keys.recall(Record(**keys.fields()))
    assert keys.trusted.root.version == 3
    keys.trusted = keys.trusted.with_time(ROOT_3.signed_at + 5)
    keys.recall(Record(**keys.fields()).but(clock_floor=0))
    assert keys.trusted.clock_floor == ROOT_3.signed_at + 5
