"""The order of versions is dpkg's: on versions made by chance, and on those of the lists that this machine has."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from packagemanager.control import paragraphs
from packagemanager.errors import ArchiveError
from packagemanager.version import compare, key

pytestmark = pytest.mark.requirement("M14")

STATUS = Path("/var/lib/dpkg/status")
OPERATORS = {-1: "lt", 0: "eq", 1: "gt"}
SECONDS = 300
# dpkg compares one pair in a process; a shell starts thousands of them faster than Python does.
COMPARE = 'while read -r a operator b; do dpkg --compare-versions "$a" "$operator" "$b" || echo "$a $operator $b"; done'


def generated(chance: random.Random) -> str:
    """Short, of few characters, so that two are often nearly the same."""

    def part(characters: str, length: int) -> str:
        return "".join(chance.choice(characters) for _ in range(chance.randint(1, length)))

    version = chance.choice("0129") + part("0019ab~.+A", 5)
    return chance.choice(("", "", "0:", "1:")) + version + chance.choice(("", "-0", f"-{part('01~+.b', 3)}"))


def _is_version(text: str) -> bool:
    try:
        key(text)
    except ArchiveError:
        return False
    return True


def pairs(made: int, real: int) -> Iterator[tuple[str, str]]:
    chance = random.Random(1)
    for _ in range(made):
        one = generated(chance)
        at = chance.randrange(len(one))
        near = one[:at] + chance.choice("~01a+.") + one[at + chance.randrange(2) :]
        yield one, chance.choice((near if _is_version(near) else one, generated(chance), one + "~"))
    versions = sorted({each.get("Version") for each in paragraphs(STATUS.read_bytes())}, key=lambda text: text[::-1])
    for _ in range(real):
        at = chance.randrange(len(versions) - 1)
        yield versions[at], chance.choice((versions[at + 1], chance.choice(versions)))


@pytest.mark.parametrize(("made", "real"), [(300, 100), pytest.param(8000, 2000, marks=pytest.mark.long)])
def test_dpkg_says_the_same(made: int, real: int) -> None:
    wanted = [f"{one} {OPERATORS[compare(one, other)]} {other}\n" for one, other in pairs(made, real)]
    assert min(sum(f" {word} " in line for line in wanted) for word in OPERATORS.values()) > len(wanted) / 50
    done = subprocess.run(
        ["sh", "-c", COMPARE], input="".join(wanted), capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout == ""
    assert "error" not in done.stderr, done.stderr


def test_the_status_of_this_machine_is_kept_byte_for_byte() -> None:
    content = STATUS.read_bytes()
    found = list(paragraphs(content))
    assert b"".join(each.encode() + b"\n" for each in found) == content
    assert sorted(found, key=lambda each: key(each.get("Version")))
