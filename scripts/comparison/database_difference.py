"""dpkg's database in two roots, by what it says: fields of packages, and lines whose order means nothing."""

from __future__ import annotations

from pathlib import Path

from scripts.comparison.tree_difference import Difference

DATABASE = Path("var/lib/dpkg")
# Files whose lines are a set: dpkg writes them in the order its memory has them.
SETS = ("triggers", "diversions", "statoverride")
LISTS = (".list",)


def differences(dpkg: Path, ours: Path) -> list[Difference]:
    """What two roots' databases say differently; files that are equal but for their order are not in it."""
    found = _of_status(dpkg / DATABASE / "status", ours / DATABASE / "status")
    for path in _names(dpkg) | _names(ours):
        left, right = _text(dpkg / path), _text(ours / path)
        if left != right and (not _is_set(path) or sorted(left.splitlines()) != sorted(right.splitlines())):
            found.append(Difference(str(path), "content", _only(left, right), _only(right, left)))
    return sorted(found)


def same_but_for_order(path: str, dpkg: Path, ours: Path) -> bool:
    """Whether a file of the database differs between the roots in nothing that it says."""
    relative = Path(path)
    left, right = _text(dpkg / relative), _text(ours / relative)
    if relative == DATABASE / "status":
        return paragraphs(left) == paragraphs(right)
    return _is_set(relative) and sorted(left.splitlines()) == sorted(right.splitlines())


def owned(root: Path) -> set[str]:
    """The paths that packages list, relative, and as they are where folders are links on a merged system."""
    found: set[str] = set()
    for path in (root / DATABASE / "info").glob("*.list"):
        found.update(line[1:] for line in _text(path).splitlines())
    return found | {f"usr/{path}" for path in found if path.split("/")[0] in ("bin", "lib", "lib64", "sbin")}


def paragraphs(text: str) -> dict[str, dict[str, str]]:
    """A status file's packages, by name and architecture, as fields."""
    found = {}
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1] in " \t":
                fields[name] += f"\n{line}"
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            found[f"{fields['Package']}:{fields.get('Architecture', '')}"] = fields
    return found


def _of_status(dpkg: Path, ours: Path) -> list[Difference]:
    left, right = paragraphs(_text(dpkg)), paragraphs(_text(ours))
    found = []
    for package in left.keys() | right.keys():
        theirs, mine = left.get(package, {}), right.get(package, {})
        for field in theirs.keys() | mine.keys():
            if theirs.get(field) != mine.get(field):
                found.append(Difference(f"status {package}", field, theirs.get(field, ""), mine.get(field, "")))
    return found


def _names(root: Path) -> set[Path]:
    folder = root / DATABASE
    files = [*(folder / "info").iterdir(), *(folder / "triggers").iterdir()]
    files += [folder / name for name in ("diversions", "statoverride", "arch") if (folder / name).exists()]
    return {path.relative_to(root) for path in files}


def _is_set(path: Path) -> bool:
    return path.suffix in LISTS or any(part in SETS for part in path.parts)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""


def _only(text: str, other: str) -> str:
    """The first lines that the other has not."""
    lines = [line for line in text.splitlines() if line not in set(other.splitlines())]
    return " / ".join(lines[:5])[:300]
