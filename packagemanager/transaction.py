"""A transaction as the device reads it. Bytes: docs/SPEC.md, "The transaction".

It is the one image of an ordinary signed bundle, so whom to believe is `payload.trust`'s matter, and whatever fetches,
keeps, resumes or verifies bundles does so with transactions. Here is what is a transaction's own: its serial, the
wanted set, and which of its parts bring *this* device there. Nothing is changed, and nothing is asked of the master.

A part is a whole package, or a delta against versions that the device may have. Nothing is told to the device about
which part to take: it takes a delta whose old version it has, with every old file as that version shipped it, else the
whole package, else it says by name what is missing and in which state it is.
"""

from __future__ import annotations

from packagemanager.database import state_of
from packagemanager.errors import TransactionError, some_of
from packagemanager.transaction_index import DEB, INDEX_BYTES_MAX, START, decode_index, index_bytes
from payload.digest import hasher
from payload.errors import BundleError
from payload.frames import FrameReader, PlainContent
from payload.manifest import PACKAGES
from payload.trust import verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Protocol

    from packagemanager.delta import Tree
    from packagemanager.entry import Content, Entry
    from packagemanager.transaction_index import Index, Part
    from payload.bundle import Header, Reader
    from payload.manifest import Manifest
    from payload.trust import Trusted

    Sink = Callable[[Entry, Iterator[bytes]], None]

    class Source(Protocol):
        """A package, whatever it travelled in: `deb.Deb` or `delta.Delta`."""

        def control(self) -> tuple[bytes, dict[str, bytes]]: ...

        def unpack(self, sink: Sink) -> Content: ...


CHECK_BYTES = 1 << 20


def believe(
    header: Header, trusted: Trusted, compatible: str, last_serial: int, *, network: bool = False
) -> tuple[Manifest, Trusted]:
    """The manifest of a transaction that this device takes, and what is believed from now on.

    The rules are those of `payload.trust.verify`, but for two: the serial stands where the floor of operating
    systems stands, and no kernel matters. ``last_serial`` is that of the newest transaction that was taken, 0 for
    none; ``network`` says that the source could hold newer ones back.

    Raises:
        PayloadError: it is not signed as this device wants it, for another kind of device, or expired.
        TransactionError: it holds no packages, or is not newer.
    """
    manifest, trusted = verify(header, trusted, compatible, None, network=network, any_version=True)
    if not manifest.is_transaction:
        raise TransactionError(
            f"version {manifest.version} is an operating system, no transaction of packages",
            "`unbrick install` takes operating systems.",
        )
    if manifest.version <= last_serial:
        raise TransactionError(
            f"transaction {manifest.version} is not newer than {last_serial}, as all are that this device takes",
            "To go back to older packages, ask the master for a new transaction that wants them.",
        )
    return manifest, trusted


class Transaction:
    """``manifest`` is believed; ``index`` says what is wanted and what is here.

    Raises:
        TransactionError: the content is not as the format says, or cannot be read.
    """

    __slots__ = ("_content", "_ranges", "index", "manifest")

    def __init__(self, reader: Reader, header: Header, manifest: Manifest) -> None:
        self.manifest = manifest
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        self._content = ImageContent(FrameReader(reader, len(header.raw), manifest.image(PACKAGES).frames()))
        length = index_bytes(self._content.read(0, START.size))
        if length > min(INDEX_BYTES_MAX, self._content.size - START.size):
            raise TransactionError(f"an index of {length} bytes", _DAMAGED)
        self.index: Index = decode_index(self._content.read(START.size, length), self._content.size)

    @property
    def serial(self) -> int:
        return self.manifest.version

    def is_whole(self) -> bool:
        """Whether every byte of it can be read, and is the signed one."""
        frames = self._content.frames
        try:
            for index in range(len(frames.table)):
                frames.frame(index)
        except (BundleError, OSError):
            return False
        return True

    def lacking(self, installed: Mapping[str, str]) -> list[str]:
        """The wanted packages that are not ``installed`` (``name:architecture`` → version), in the order to unpack."""
        return [key for key in self.index.unpack_keys() if installed.get(key) != self.index.wanted[key]]

    def sources(self, installed: Mapping[str, str], tree: Tree, keys: Iterable[str] | None = None) -> dict[str, Source]:
        """Where to take the packages ``keys`` from; without ``keys`` those that are :meth:`lacking`. In their order.

        Old files that deltas need are read and compared here; so what is returned can be unpacked.

        Raises:
            TransactionError: for some there is nothing that this device could use. They are named, and why.
        """
        found: dict[str, Source] = {}
        missing: dict[str, str] = {}
        for key in self.lacking(installed) if keys is None else keys:
            why = "it is not in the transaction"
            for part in self.index.parts_of(key):
                source, why = self._source(part, installed.get(key), tree)
                if source is not None:
                    found[key] = source
                    break
            else:
                missing[key] = why
        if missing:
            raise self._refusal(missing, state_of(installed))
        return found

    def _source(self, part: Part, version: str | None, tree: Tree) -> tuple[Source | None, str]:
        if part.kind == DEB:
            from packagemanager.deb import Deb

            if not self._content.is_far:  # what is fetched is fetched once
                self.check(part)
            self._ranges[part.key] = [(part.offset, part.size)]
            return Deb(PartReader(self._content, part.offset, part.size)), ""
        from packagemanager.delta import Delta

        if version not in part.bases:
            return None, f"version {version} is here" if version else "it is not installed"
        delta = Delta(self._content, part, part.bases.index(version), tree)
        changed = delta.changed_file()
        if changed is not None:
            return None, f"/{changed} is not as version {version} shipped it"
        self._ranges[part.key] = delta.ranges()
        return delta, ""

    def _refusal(self, missing: dict[str, str], state: bytes) -> TransactionError:
        told = some_of(f"{key} {self.index.wanted[key]} ({why})" for key, why in missing.items())
        known = "" if state in self.index.states else ", which it does not know"
        return TransactionError(
            f"this device is in state {state.hex()}{known}; transaction {self.serial} has nothing that it could make "
            f"these from: {', '.join(told)}",
            f"Ask the master for a full transaction for state {state.hex()}: `unbrick packages status --json` has all "
            f"that it needs to know.",
        )

    def announce(self, keys: Iterable[str]) -> None:
        """Tell a transaction behind a network which of its bytes will be read: those of the :meth:`sources` of
        ``keys``, in this order."""
        self._content.announce([wanted for key in keys for wanted in self._ranges.get(key, ())])

    def check(self, part: Part) -> None:
        """Read a part and compare its digest. Raises ``TransactionError``."""
        found = digest_of(self._content, part.offset, part.size)
        if found != part.digest:
            raise TransactionError(f"the part for {part.key} is not what the index says", _DAMAGED)


_DAMAGED = "The transaction was made wrongly: ask the master for another one."
_UNREADABLE = "Bring the transaction again; what was read of it so far is right, and the device is unchanged."


def digest_of(content: ImageContent, offset: int, size: int) -> bytes:
    state = hasher()
    for start in range(offset, offset + size, CHECK_BYTES):
        state.update(content.read(start, min(CHECK_BYTES, offset + size - start)))
    return state.digest()


class ImageContent(PlainContent):
    """The plain content of the image. Reads raise ``TransactionError``: an archive inside of it need not know what it
    lies in."""

    __slots__ = ()

    @property
    def is_far(self) -> bool:
        return self.frames.is_far

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; fewer at the end."""
        try:
            return super().read(offset, length)
        except BundleError as error:
            raise TransactionError(f"the transaction cannot be read: {error}", _UNREADABLE) from error

    def announce(self, ranges: Iterable[tuple[int, int]]) -> None:
        size = self.frames.table.frame_bytes
        wanted = [index for offset, length in ranges for index in range(offset // size, -(-(offset + length) // size))]
        self.frames.announce(list(dict.fromkeys(wanted)))


class PartReader:
    """A part as a file of its own: `payload.bundle.Reader`."""

    __slots__ = ("_content", "_offset", "size")

    def __init__(self, content: ImageContent, offset: int, size: int) -> None:
        self._content = content
        self._offset = offset
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return self._content.read(self._offset + offset, max(0, min(length, self.size - offset)))
