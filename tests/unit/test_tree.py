"""The image as a value: sorted, complete, and without two things at one path."""

from __future__ import annotations

import hashlib

import pytest

from initramfs.tree import (
    Entry,
    Kind,
    Reason,
    TreeConflict,
    character_device,
    directory,
    file,
    merge,
    symlink,
)

WHY = Reason("a test")


def test_entries_are_sorted_and_every_parent_is_there_before_its_content() -> None:
    tree = merge([file("/usr/bin/b", b"", WHY), file("init", b"", WHY), file("usr/bin-a/c", b"", WHY)])
    assert [entry.path for entry in tree] == ["init", "usr", "usr/bin", "usr/bin-a", "usr/bin-a/c", "usr/bin/b"]
    seen: set[str] = set()
    for entry in tree:
        assert entry.path.rpartition("/")[0] in seen | {""}
        seen.add(entry.path)


def test_an_implied_directory_says_what_it_holds() -> None:
    tree = merge([file("lib/x/y", b"", WHY)])
    assert tree.by_path["lib"].reasons == (Reason("holds lib/x/y", "lib/x/y"),)
    assert tree.by_path["lib"].mode == 0o755


@pytest.mark.parametrize("named_first", [True, False])
def test_a_directory_asked_for_by_name_keeps_its_mode_and_reason(named_first: bool) -> None:
    entries = [directory("tmp", WHY, mode=0o1777), file("tmp/x", b"", WHY)]
    tree = merge(entries if named_first else entries[::-1])
    assert (tree.by_path["tmp"].mode, tree.by_path["tmp"].reasons) == (0o1777, (WHY,))


def test_the_same_thing_twice_keeps_both_reasons() -> None:
    other = Reason("library needed by b", "b")
    tree = merge([file("lib.so", b"x", WHY), file("lib.so", b"x", other), file("lib.so", b"x", WHY)])
    assert tree.by_path["lib.so"].reasons == (WHY, other)


@pytest.mark.parametrize(
    "second",
    [
        file("a/b", b"other", WHY, source="package two"),
        file("a/b", b"one", WHY, executable=True),
        symlink("a/b", "c", WHY),
        directory("a/b", WHY),
        character_device("a/b", 1, 3, WHY),
        file("a/b/below", b"", WHY),
    ],
)
def test_two_different_things_at_one_path_are_refused(second: Entry) -> None:
    with pytest.raises(TreeConflict, match="two different things want to be /a/b"):
        merge([file("a/b", b"one", WHY), second])


def test_nothing_goes_below_a_symbolic_link() -> None:
    """The kernel would follow it, and a reader of the list would not see where the file ends up."""
    with pytest.raises(TreeConflict, match="/lib"):
        merge([symlink("lib", "usr/lib", WHY), file("lib/x", b"", WHY)])


@pytest.mark.parametrize("path", ["", "/", "a/../b", "./a", "a//b", "a\0b", "x" * 1025])
def test_a_path_stays_inside_the_image(path: str) -> None:
    with pytest.raises(TreeConflict):
        file(path, b"", WHY)


def test_the_digest_is_of_what_is_written_and_of_nothing_else() -> None:
    def digest(**changed: object) -> str:
        values: dict[str, object] = {"path": "a", "kind": Kind.FILE, "mode": 0o644, "reasons": (WHY,), "data": b"x"}
        return merge([Entry(**(values | changed))]).digest  # type: ignore[arg-type]

    assert digest() == digest(reasons=(Reason("other"),), source="elsewhere")
    different = [digest(), digest(path="b"), digest(mode=0o600), digest(data=b"y"), digest(kind=Kind.DIRECTORY)]
    assert len(set(different)) == len(different)


def test_a_files_digest_is_what_sha256sum_prints() -> None:
    assert file("a", b"abc", WHY).digest == hashlib.sha256(b"abc").hexdigest()
