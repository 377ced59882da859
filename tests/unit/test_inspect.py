"""What is in an image, why, and what changed; and what an image must have to replace another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from initramfs import archive, report
from initramfs.compression import compress
from initramfs.elf import closure
from initramfs.errors import BuildError, SelfCheckError
from initramfs.image_contents import assemble, places, programs
from initramfs.inspect import differences, listing, listing_of_sidecar, read_image, sidecar_of, why
from initramfs.newc import read
from initramfs.self_check import check, check_startable, dependencies
from initramfs.tree import Entry, Kind, Reason, Tree, TreeConflict, canonical, directory, file, merge, symlink
from tests.unit.images import WHY, changed, module, startable, without, write_image


def chain(tree: Tree, path: str, tmp_path: Path) -> list[str]:
    written = write_image(tmp_path, tree)
    return why(sidecar_of(written.file, written.file.read_bytes()), path)


def test_every_path_of_an_image_has_a_chain_that_ends(tmp_path: Path) -> None:
    found = closure(Path("/"), ["/usr/bin/true"])
    tree = startable(*programs(found), module("one", "two"), module("two"))
    written = write_image(tmp_path, tree)
    document = sidecar_of(written.file, written.file.read_bytes())
    for entry in tree:
        lines = why(document, entry.path)
        assert lines[0].startswith(f"/{entry.path}: ")
        assert any("because: " in line for line in lines), entry.path


def test_a_library_is_explained_down_to_the_configuration(tmp_path: Path) -> None:
    tree = startable(*programs(closure(Path("/"), ["/usr/bin/true"])))
    library = next(entry.path for entry in tree if entry.path.endswith("/libc.so.6"))
    lines = chain(tree, library, tmp_path)
    assert "needed by" in lines[1] and "true: DT_NEEDED libc.so.6" in lines[1]
    assert lines[-1].strip() == "because: asked for by the configuration"


def test_an_unknown_path_names_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        chain(startable(), "/consle", tmp_path)
    assert "/consle is not in the image" in str(caught.value)
    with pytest.raises(BuildError) as caught:
        chain(startable(), "console", tmp_path)
    assert "/dev/console" in caught.value.hint


def test_reasons_that_point_at_each_other_still_end(tmp_path: Path) -> None:
    one = Entry("a", Kind.FILE, 0o644, (Reason("needs /b"),))
    two = Entry("b", Kind.FILE, 0o644, (Reason("needs /a"),))
    assert len(chain(assemble([one, two]), "a", tmp_path)) == 3


def test_a_frozen_module_is_explained_too(tmp_path: Path) -> None:
    document = report.sidecar(
        startable(), report.ImageFacts(1, 1, "", "none", 0, "", "", {}), {"json": "imported by recovery.cli"}
    )
    assert why(document, "json")[-1] == "  because: imported by recovery.cli"


def test_a_sidecar_of_another_build_is_not_believed(tmp_path: Path) -> None:
    written = write_image(tmp_path, startable())
    written.file.write_bytes(compress(archive.newc(startable(), 1), "gz"))
    with pytest.raises(BuildError, match="belongs to another build"):
        sidecar_of(written.file, written.file.read_bytes())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"format": "unbrick-image/1"}', b"[" * 100_000, b"\xff",
     b'{"format":"unbrick-image/1","image":{"sha256":""},"entries":[{"path":"a"}]}'],
)  # fmt: skip
def test_a_damaged_sidecar_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.json"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=r"image\.json"):
        report.load_sidecar(path)


def test_the_sidecar_lists_what_the_archive_holds(tmp_path: Path) -> None:
    written = write_image(tmp_path, startable(symlink("a", "tmp", WHY), module("one")), "zstd")
    document = report.load_sidecar(report.sidecar_path(written.file))
    assert listing_of_sidecar(document) == listing(read_image(written.file))


def test_differences_name_what_was_added_removed_and_changed(tmp_path: Path) -> None:
    before = startable(file("a", b"12", WHY), file("b", b"1", WHY), file("c", b"1", WHY))
    after = startable(file("a", b"1234567", WHY), file("c", b"1", WHY, executable=True), file("d", b"123", WHY))
    changes = differences(*(listing(read(archive.newc(tree))) for tree in (before, after)))
    assert [(change.what, change.path, change.delta_bytes) for change in changes] == [
        ("changed", "a", 5), ("added", "d", 3), ("removed", "b", -1), ("changed", "c", 0),
    ]  # fmt: skip


def test_a_finished_archive_passes_and_gives_its_contents() -> None:
    tree = startable(*programs(closure(Path("/"), ["/usr/bin/true"])), module("two"), module("one", "two"),
                     boot=("/lib/modules/6.1/two.ko", "/lib/modules/6.1/one.ko nowayout=1"))  # fmt: skip
    assert len(check(compress(archive.newc(tree, 5), "gz"), tree, 5).members) == len(tree)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data": b"#! no proGram\n"}, "/init differs in the archive: its content"),
        ({"mode": 0o644}, "/init differs in the archive: mode"),
    ],
)
def test_an_archive_that_is_not_the_tree_is_refused(values: dict[str, object], says: str) -> None:
    tree = startable()
    with pytest.raises(SelfCheckError, match=says):
        check(archive.newc(changed(tree, "init", **values)), tree, 0)


def test_another_time_a_missing_entry_and_damage_are_refused() -> None:
    tree = startable()
    with pytest.raises(SelfCheckError, match="time_seconds is 1, not 0"):
        check(archive.newc(tree, 1), tree, 0)
    with pytest.raises(SelfCheckError, match="entries, the tree"):
        check(archive.newc(without(tree, "dev/null")), tree, 0)
    with pytest.raises(SelfCheckError, match="is damaged"):
        check(compress(archive.newc(tree), "gz")[:-10], tree, 0)


def startable_or_why(tree: Tree) -> str:
    try:
        check_startable(read(archive.newc(tree)).members)
    except SelfCheckError as error:
        return error.message
    return ""


@pytest.mark.parametrize("path", ["init", "dev/console", "proc", "newroot", "etc/unbrick/modules.boot"])
def test_what_every_image_needs_is_missed(path: str) -> None:
    assert startable_or_why(startable()) == ""
    assert f"no /{path}" in startable_or_why(without(startable(), path))


def test_a_console_that_is_another_device_is_refused() -> None:
    assert "not the character device 5:1" in startable_or_why(changed(startable(), "dev/console", device=(1, 3)))


def test_an_init_that_cannot_be_executed_is_refused() -> None:
    assert "no executable" in startable_or_why(changed(startable(), "init", mode=0o644))


def test_a_missing_library_is_found_in_the_finished_archive() -> None:
    tree = startable(*programs(closure(Path("/"), ["/usr/bin/true"])))
    library = next(entry.path for entry in tree if entry.path.endswith("/libc.so.6"))
    assert "libc.so.6 is not in" in startable_or_why(without(tree, library))


@pytest.mark.parametrize(
    ("boot", "says"),
    [
        (("/lib/modules/6.1/one.ko", "/lib/modules/6.1/two.ko"), "needs two, which is not loaded before it"),
        (("/lib/modules/6.1/three.ko",), "names /lib/modules/6.1/three.ko, which is not in the image"),
    ],
)
def test_modules_in_the_wrong_order_are_found(boot: tuple[str, ...], says: str) -> None:
    assert says in startable_or_why(startable(module("one", "two"), module("two"), boot=boot))


def test_a_path_out_of_the_image_is_never_unpacked() -> None:
    """`verify` reads images that anybody may have made."""
    outside = Entry("../outside", Kind.FILE, 0o644, (WHY,), data=b"x")
    through = [symlink("link", "/tmp", WHY), Entry("link/x", Kind.FILE, 0o644, (WHY,), data=b"x")]
    for more in ([outside], through):
        members = read(archive.newc(Tree((*startable(), *more)))).members
        with pytest.raises(BuildError, match=r"no directory to be in|is not a path inside"):
            check_startable(members)


def test_dependencies_are_read_from_the_module_itself() -> None:
    assert dependencies(module("a", "b-c", "d").data) == {"b_c", "d"}
    assert dependencies(module("a").data) == set()
    assert dependencies(b"\x7fELF") == set()


def test_links_above_a_path_are_followed() -> None:
    links = {"lib": "usr/lib", "usr/lib/x": "../../y", "abs": "/z"}
    assert canonical("/lib/x/file", links) == "y/file"
    assert canonical("lib", links) == "lib"
    assert canonical("abs/file", links) == "z/file"
    assert canonical("plain/file", links) == "plain/file"
    with pytest.raises(TreeConflict, match="are a loop"):
        canonical("a/x", {"a": "b", "b": "a"})


def test_why_follows_the_links_of_a_merged_usr(tmp_path: Path) -> None:
    tree = startable(symlink("lib", "usr/lib", WHY), module("one"))
    assert chain(tree, "/lib/modules/6.1/one.ko", tmp_path)[0].startswith("/usr/lib/modules/6.1/one.ko: ")
    assert chain(tree, "lib", tmp_path)[0] == "/lib: symlink to usr/lib"


def test_modules_go_where_a_merged_usr_has_them() -> None:
    tree = assemble([*places(), symlink("lib", "usr/lib", WHY), directory("usr/lib", WHY), module("one"),
                     file("etc/unbrick/modules.boot", b"/lib/modules/6.1/one.ko a=b\n", WHY)])  # fmt: skip
    assert "usr/lib/modules/6.1/one.ko" in tree.by_path
    assert tree.by_path["etc/unbrick/modules.boot"].data == b"/usr/lib/modules/6.1/one.ko a=b\n"


def test_a_sidecar_is_the_same_whatever_the_order_of_the_inputs() -> None:
    entries = [file("a", b"1", WHY), file("b", b"2", WHY)]
    facts = report.ImageFacts(1, 1, "", "none", 0, "", "", {"z": "1", "a": "2"})
    other = report.ImageFacts(1, 1, "", "none", 0, "", "", {"a": "2", "z": "1"})
    one = report.encode(report.sidecar(merge(entries), facts, {"x": "1", "y": "2"}))
    two = report.encode(report.sidecar(merge(entries[::-1]), other, {"y": "2", "x": "1"}))
    assert one == two
    assert json.loads(one)["packages"] == {"a": "2", "z": "1"}
