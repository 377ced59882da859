"""The index of a transaction: what is wanted, in which order, and which part brings what. Bytes: docs/SPEC.md.

One JSON text in the project's strict encoding. Lists of values stand beside each other instead of objects: so the
nesting is bounded before anything is parsed, however many packages there are. Values only; nothing is read here.
"""

from __future__ import annotations

from struct import Struct

from packagemanager.errors import TransactionError
from payload.digest import DIGEST_BYTES
from payload.errors import PayloadFormatError
from payload.strict_json import check_fields, dump, is_digest, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As a bundle's magic: a text-mode copy would change it.
MAGIC = b"\x89UBT\r\n\x1a\n"
FORMAT = 1
# magic, format, bytes of the index
START = Struct("<8sII")
INDEX_BYTES_MAX = 4 << 20
PACKAGES_MAX = 4096
PARTS_MAX = 16384
STATES_MAX = 1024
BASES_MAX = 64
WORD_CHARACTERS_MAX = 256
DEB, DELTA = "deb", "delta"

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_OF_A_NAME = _LETTERS | frozenset("+-._")
_OF_A_VERSION = _LETTERS | frozenset("+-.~:")


class Part:
    """What brings the package ``key``. ``offset`` counts from the start of the content, ``size`` is bytes.

    ``bases`` are the versions that a delta is against; a whole package has none.
    """

    __slots__ = ("bases", "digest", "key", "kind", "offset", "size")

    def __init__(self, key: str, kind: str, offset: int, size: int, digest: bytes, bases: tuple[str, ...] = ()) -> None:
        self.key = key
        self.kind = kind
        self.offset = offset
        self.size = size
        self.digest = digest
        self.bases = bases


class Index:
    """``wanted`` maps ``name:architecture`` to the version, in the order to configure; ``unpack`` holds the places in
    it in the order to unpack. ``removals`` are to go in this order, where they are installed; ``expendable`` are names
    of essential packages that may go, ``purge`` says that what goes leaves no configuration. ``states`` are those
    that the master knew: a device in one of them can apply the transaction. Parts of one package stand with the better
    one first.
    """

    __slots__ = ("_parts", "architecture", "expendable", "parts", "purge", "removals", "states", "unpack", "wanted")

    def __init__(
        self,
        architecture: str,
        wanted: dict[str, str],
        unpack: tuple[int, ...],
        removals: tuple[str, ...],
        states: tuple[bytes, ...],
        parts: tuple[Part, ...],
        *,
        expendable: tuple[str, ...] = (),
        purge: bool = False,
    ) -> None:
        self.expendable = expendable
        self.purge = purge
        self.architecture = architecture
        self.wanted = wanted
        self.unpack = unpack
        self.removals = removals
        self.states = states
        self.parts = parts
        self._parts: dict[str, list[Part]] = {}
        for part in parts:
            self._parts.setdefault(part.key, []).append(part)

    def unpack_keys(self) -> list[str]:
        keys = list(self.wanted)
        return [keys[place] for place in self.unpack]

    def parts_of(self, key: str) -> list[Part]:
        return self._parts.get(key, [])


def encode_index(index: Index) -> bytes:
    """The start of a content: what :func:`index_bytes` and :func:`decode_index` read."""
    places = {key: place for place, key in enumerate(index.wanted)}
    text = dump(
        {
            "architecture": index.architecture,
            "expendable": list(index.expendable),
            "parts": {
                "bases": [" ".join(part.bases) for part in index.parts],
                "digest": [part.digest.hex() for part in index.parts],
                "kind": [part.kind for part in index.parts],
                "offset": [part.offset for part in index.parts],
                "package": [places[part.key] for part in index.parts],
                "size": [part.size for part in index.parts],
            },
            "purge": index.purge,
            "removals": list(index.removals),
            "states": [state.hex() for state in index.states],
            "unpack": list(index.unpack),
            "wanted": [f"{key} {version}" for key, version in index.wanted.items()],
        }
    )
    return START.pack(MAGIC, FORMAT, len(text)) + text


def index_bytes(start: bytes) -> int:
    """The length of the index that follows. Raises ``TransactionError``."""
    if len(start) < START.size:
        raise TransactionError("a transaction that is cut short", _NEXT)
    magic, form, length = START.unpack(start)
    if magic != MAGIC or form != FORMAT:
        raise TransactionError("no transaction of this format", _NEXT)
    return int(length)


def decode_index(text: bytes, content_bytes: int) -> Index:
    """The index that ``text`` is, for a content of so many bytes in all.

    Raises:
        TransactionError: it is not the one encoding of an index, or says what cannot be.
    """
    try:
        fields = load(text, INDEX_BYTES_MAX, "index of the transaction")
        check_fields(fields, _FIELDS, "index of the transaction")
        check_fields(fields["parts"], _PART_FIELDS, "list of parts")
    except PayloadFormatError as error:
        raise TransactionError(str(error), _NEXT) from error
    wanted = dict(line.split(" ") for line in fields["wanted"])
    unpack = tuple(fields["unpack"])
    if len(wanted) != len(fields["wanted"]) or sorted(unpack) != list(range(len(wanted))):
        raise TransactionError("the wanted set names a package twice, or not in both orders", _NEXT)
    parts = _decode_parts(fields["parts"], list(wanted), START.size + len(text), content_bytes)
    states = tuple(bytes.fromhex(state) for state in fields["states"])
    rest = {"expendable": tuple(fields["expendable"]), "purge": fields["purge"]}
    return Index(fields["architecture"], wanted, unpack, tuple(fields["removals"]), states, parts, **rest)


def _decode_parts(columns: dict[str, list[Any]], keys: list[str], start: int, end: int) -> tuple[Part, ...]:
    if len({len(column) for column in columns.values()}) != 1:
        raise TransactionError("the columns of the list of parts have different lengths", _NEXT)
    parts = []
    rows = zip(*(columns[name] for name in ("package", "kind", "offset", "size", "digest", "bases")), strict=True)
    for place, kind, offset, size, name, bases in rows:
        versions = tuple(bases.split(" ")) if bases else ()
        is_right = place < len(keys) and offset >= start and offset + size <= end and (kind == DELTA) == bool(versions)
        if not is_right or len(versions) > BASES_MAX or not all(is_version(version) for version in versions):
            raise TransactionError("a part that cannot be", _NEXT)
        parts.append(Part(keys[place], kind, offset, size, bytes.fromhex(name), versions))
    return tuple(parts)


def is_word(value: Any, letters: frozenset[str]) -> bool:
    return isinstance(value, str) and 0 < len(value) <= WORD_CHARACTERS_MAX and letters.issuperset(value)


def is_version(value: Any) -> bool:
    return is_word(value, _OF_A_VERSION)


def is_key(value: Any) -> bool:
    """``name:architecture``."""
    return (
        isinstance(value, str) and value.count(":") == 1 and all(is_word(one, _OF_A_NAME) for one in value.split(":"))
    )


def _is_wanted(value: Any) -> bool:
    if not isinstance(value, str) or value.count(" ") != 1:
        return False
    key, version = value.split(" ")
    return is_key(key) and is_version(version)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _list(check: Any, length_max: int) -> Any:
    return lambda value: isinstance(value, list) and len(value) <= length_max and all(check(one) for one in value)


def _is_bases(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= BASES_MAX * WORD_CHARACTERS_MAX


_NEXT = "The transaction was made by something else, or wrongly: ask the master for another one."
_FIELDS = {
    "architecture": lambda value: is_word(value, _OF_A_NAME),
    "expendable": _list(lambda value: is_word(value, _OF_A_NAME), PACKAGES_MAX),
    "parts": lambda value: isinstance(value, dict),
    "purge": lambda value: isinstance(value, bool),
    "removals": _list(is_key, PACKAGES_MAX),
    "states": _list(is_digest, STATES_MAX),
    "unpack": _list(_is_count, PACKAGES_MAX),
    "wanted": _list(_is_wanted, PACKAGES_MAX),
}
_PART_FIELDS = {
    "bases": _list(_is_bases, PARTS_MAX),
    "digest": _list(is_digest, PARTS_MAX),
    "kind": _list(lambda value: value in (DEB, DELTA), PARTS_MAX),
    "offset": _list(_is_count, PARTS_MAX),
    "package": _list(_is_count, PARTS_MAX),
    "size": _list(_is_count, PARTS_MAX),
}
assert DIGEST_BYTES == 32  # what `is_digest` takes
