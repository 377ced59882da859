"""What a root says of a package transaction that is under way in it. On the path of the ordinary boot.

Reads one small file, the package manager's own (docs/packages.md), without importing the package manager. Links of
folders on the way are followed as the OS does it, inside of the root: else a transaction behind one would not be seen.
"""

from __future__ import annotations

import errno
import os

PHASE = "var/lib/unbrick/packages/transaction/phase"
ON_TRIAL = b"trying"
UNREADABLE = b"?"
# "unbrick-phase 1 PHASE DIGEST", and a line with a digest (docs/SPEC.md), which is the package manager's to look at.
_MAGIC = b"unbrick-phase"
_PHASE_BYTES_MAX = 256
_FIELDS = 4
_NAMES_MAX = 256  # of folders on the way, those of links included


def packages_phase(root: str) -> bytes:
    """The phase of the transaction in the root: empty where none is there, UNREADABLE where it does not read."""
    try:
        folder = _inside(root, os.path.dirname(PHASE))
        # Never waits for the other end of a pipe that somebody put there.
        descriptor = os.open(f"{folder}/phase", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
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


def _inside(root: str, path: str) -> str:
    """The folder at ``path`` once its links are followed as after chroot(2). Raises ``OSError``."""
    here, names = "", path.split("/")
    for _name in range(_NAMES_MAX):
        if not names:
            return root + here
        name = names.pop(0)
        if name == "..":
            here = here.rpartition("/")[0]
        elif name not in ("", "."):
            target = _link_at(f"{root}{here}/{name}")
            if target is None:
                here = f"{here}/{name}"
            else:
                here = "" if target.startswith("/") else here
                names = [*target.split("/"), *names]
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _link_at(path: str) -> str | None:
    """Where the link leads; None where something else is. Raises ``OSError`` where nothing is."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def phase_in(content: bytes) -> bytes:
    """The phase that the file says; UNREADABLE where it says none."""
    fields = content.partition(b"\n")[0].split(b" ")
    return fields[2] if len(fields) == _FIELDS and fields[0] == _MAGIC else UNREADABLE
