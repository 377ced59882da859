"""What a root says of a package transaction that is under way in it. On the path of the ordinary boot.

Reads one small file, the package manager's own (docs/packages.md), without importing the package manager.
"""

from __future__ import annotations

import os

PHASE = "var/lib/unbrick/packages/transaction/phase"
ON_TRIAL = b"trying"
UNREADABLE = b"?"
# "unbrick-phase 1 PHASE DIGEST", and a line with a digest (docs/SPEC.md), which is the package manager's to look at.
_MAGIC = b"unbrick-phase"
_PHASE_BYTES_MAX = 256
_FIELDS = 4


def packages_phase(root: str) -> bytes:
    """The phase of the transaction in the root: empty where none is there, UNREADABLE where it does not read."""
    try:
        descriptor = os.open(f"{root}/{PHASE}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError:
        return UNREADABLE
    try:
        return phase_in(os.read(descriptor, _PHASE_BYTES_MAX))
    except OSError:
        return UNREADABLE
    finally:
        os.close(descriptor)


def phase_in(content: bytes) -> bytes:
    """The phase that the file says; UNREADABLE where it says none."""
    fields = content.partition(b"\n")[0].split(b" ")
    return fields[2] if len(fields) == _FIELDS and fields[0] == _MAGIC else UNREADABLE
