"""The wanted set that this device was told last: `var/lib/unbrick/packages/wanted`. Bytes: docs/SPEC.md.

Values only.
"""

from __future__ import annotations

from packagemanager.control import check_name
from packagemanager.errors import ArchiveError, DatabaseError
from packagemanager.version import split
from payload.digest import DIGEST_BYTES, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "var/lib/unbrick/packages/wanted"
MAGIC = "unbrick-wanted 1"
TEXT_BYTES_MAX = 16 << 20
PACKAGES_MAX = 65536
SERIAL_MAX = 2**64 - 1


class Wanted:
    """``packages`` is key (``name:architecture``) to version, in the order to configure; ``serial`` is 0 for none."""

    __slots__ = ("packages", "serial", "transaction")

    def __init__(self, serial: int, transaction: bytes, packages: Mapping[str, str]) -> None:
        self.serial = serial
        self.transaction = transaction
        self.packages = dict(packages)

    def encode(self) -> bytes:
        lines = [MAGIC, f"serial {self.serial}", f"transaction {self.transaction.hex()}"]
        lines += [f"{key} {version}" for key, version in self.packages.items()]
        text = "".join(f"{line}\n" for line in lines).encode()
        return text + f"end {digest(text).hex()}\n".encode()


NOTHING = Wanted(0, bytes(DIGEST_BYTES), {})


def decode(text: bytes) -> Wanted:
    """Raises ``DatabaseError`` for every text that is not as it was written."""
    try:
        return _decode(text)
    except (ValueError, ArchiveError) as error:
        raise DatabaseError(
            f"/{PATH} is damaged: {error}",
            "Nobody knows any more which transaction was the last. Remove the file, then apply a newer one.",
        ) from error


def _decode(text: bytes) -> Wanted:
    body, mark, end = text.rpartition(b"end ")
    if len(text) > TEXT_BYTES_MAX or not mark or end != digest(body).hex().encode() + b"\n":
        raise ValueError("it is not as it was written")
    magic, serial, transaction, *lines = body.decode("ascii").removesuffix("\n").split("\n")
    if magic != MAGIC or len(lines) > PACKAGES_MAX:
        raise ValueError("another format")
    packages = {}
    for line in lines:
        key, version = line.split(" ")
        check_name(key.partition(":")[0])
        split(version)
        packages[key] = version
    number = _word(serial, "serial")
    name = bytes.fromhex(_word(transaction, "transaction"))
    if not number.isdigit() or int(number) > SERIAL_MAX or len(name) != DIGEST_BYTES or len(packages) != len(lines):
        raise ValueError("a serial, digest or package that cannot be")
    return Wanted(int(number), name, packages)


def _word(line: str, name: str) -> str:
    before, _, word = line.partition(" ")
    if before != name:
        raise ValueError(f"no {name}")
    return word
