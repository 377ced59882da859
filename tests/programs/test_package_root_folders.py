"""The tree below a folder remembers folders on the way: a bounded number, and none is forgotten while it is needed."""

import os
from pathlib import Path

import pytest

from packagemanager.root import FOLDERS_KEPT_MAX, Root


@pytest.mark.requirement("M13")
def test_of_two_paths_the_first_is_not_forgotten_on_the_way_to_the_second(tmp_path: Path) -> None:
    """Whatever number of folders is remembered at that moment."""
    root = Root(str(tmp_path))
    for number in range(FOLDERS_KEPT_MAX + 3):
        root.make_directory(f"folder-{number}")
        root.write(f"folder-{number}/file", (b"x",))
    for number in range(FOLDERS_KEPT_MAX + 2):
        root.hard_link(f"folder-{number + 1}/file", f"folder-{number}/second")
    root.sync()
    for number in range(FOLDERS_KEPT_MAX + 2):
        root.rename(f"folder-{number + 1}/file", f"folder-{number}/third")
    assert root.list("folder-0") == ["file", "second", "third"]
    root.close()


def test_what_is_asked_for_ahead_is_never_an_error(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.write("file", (b"x" * 5000,))
    root.make_directory("folder")
    root.make_link("link", "file")
    os.mkfifo(tmp_path / "pipe")
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    for path in ("file", "folder", "link", "pipe", "absent", "absent/file", "file/below"):
        root.ahead(path)
    assert {path: path.lstat() for path in tmp_path.iterdir()} == before
    root.close()
