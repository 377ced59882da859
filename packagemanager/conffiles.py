"""What becomes of a file that its package lets the owner of the system change. Pure.

The rules are dpkg's where nobody is asked (``--force-confdef --force-confold``): what the owner changed stays, what he
deleted stays deleted, and what the package brings instead is put beside it as ``.dpkg-dist``. Files are compared by
MD5, because that is what dpkg remembers.
"""

from __future__ import annotations

# Leave what is there; put the new one there; put it beside.
KEEP, INSTALL, BESIDE = "keep", "install", "beside"
BESIDE_NAME = ".dpkg-dist"
OLD_NAME = ".dpkg-old"
# Where dpkg unpacks one to, until the package is configured.
NEW_NAME = ".dpkg-new"
# What dpkg removes together with a conffile when a package is purged.
LEFT_NAMES = ("~", ".dpkg-tmp", NEW_NAME, OLD_NAME, BESIDE_NAME, "%")
# dpkg writes this for one that is unpacked and was never configured.
NEVER_CONFIGURED = "newconffile"
OBSOLETE, REMOVE_ON_UPGRADE = "obsolete", "remove-on-upgrade"
WHITE_SPACE = " \t\n\v\f\r"  # C's: others may be in a name


def decide(recorded: str, current: str, shipped: str) -> str:
    """MD5s in hex, empty for none: as the package installed before shipped it, as it is now, as it comes."""
    if current == shipped:
        return KEEP
    if recorded in ("", NEVER_CONFIGURED):
        return BESIDE if current else INSTALL
    if shipped == recorded:
        return KEEP
    return INSTALL if current == recorded else BESIDE


def declared(text: bytes) -> tuple[tuple[str, bool], ...]:
    """The control file `conffiles`: paths as an entry's, and whether a path is one to remove instead.

    Lines that are no absolute path are left out: dpkg does not take packages that have them.
    """
    found: dict[str, bool] = {}
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        words = line.rstrip(WHITE_SPACE)
        goes = words.startswith(f"{REMOVE_ON_UPGRADE} ")
        path = words.removeprefix(f"{REMOVE_ON_UPGRADE} ").strip(WHITE_SPACE) if goes else words
        if path.startswith("/") and len(path) > 1:
            found[path[1:]] = goes
    return tuple(found.items())


def backup_names(name: str, names: list[str]) -> list[str]:
    """Which of ``names``, in the folder of the conffile ``name``, an editor or dpkg put there because of it."""
    ours = {name + end for end in LEFT_NAMES} | {f"#{name}#"}
    return [other for other in names if other in ours or _is_numbered(name, other)]


def _is_numbered(name: str, other: str) -> bool:
    """``name.~12~``"""
    number = other.removeprefix(f"{name}.~").removesuffix("~")
    return other == f"{name}.~{number}~" and number.isascii() and number.isdigit()
