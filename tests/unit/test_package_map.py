"""The map of the package manager names every module once, and none that is not there."""

import re
from pathlib import Path

import packagemanager

FOLDER = Path(packagemanager.__file__).parent
LINE = re.compile(r"^    ([a-z_]+(?:, [a-z_]+)*) +\S", re.MULTILINE)


def test_the_map_is_of_what_is_there() -> None:
    assert packagemanager.__doc__
    named = [name for line in LINE.findall(packagemanager.__doc__) for name in line.split(", ")]
    assert sorted(named) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
