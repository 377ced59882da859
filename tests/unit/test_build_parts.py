"""The build's own decisions: time, budget, cache, and what is kept when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from initramfs import build, compression, report
from initramfs.build import check_budget, compressed, source_date_epoch, write
from initramfs.config import Config, load
from initramfs.elf import ClosureEntry
from initramfs.errors import BudgetError, BuildError
from initramfs.image_contents import assemble, modules, places, programs
from initramfs.kernel_modules import ModuleEntry
from tests.unit.images import startable

EXAMPLE = Path(__file__).parents[2] / "docs/examples/device.toml"


@pytest.mark.parametrize(("given", "expected"), [({}, 0), ({"SOURCE_DATE_EPOCH": "1700000000"}, 1700000000)])
def test_the_time_in_the_image_is_given_or_zero(given: dict[str, str], expected: int) -> None:
    assert source_date_epoch(given) == expected


@pytest.mark.parametrize("text", ["", "-1", "1e9", "yesterday", "4294967296", "٣", " 1"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH"):
        source_date_epoch({"SOURCE_DATE_EPOCH": text})


def facts(size_bytes: int) -> report.ImageFacts:
    return report.ImageFacts(size_bytes, 10, "", "zstd", 0, "test", "6.1", {})


def device(size_max_bytes: int) -> Config:
    config = load(EXAMPLE)
    return replace(config, image=replace(config.image, size_max_bytes=size_max_bytes))


def test_an_image_as_large_as_the_budget_is_allowed_and_a_byte_more_is_not() -> None:
    check_budget(device(1000), facts(1000), startable())
    with pytest.raises(BudgetError) as caught:
        check_budget(device(1000), facts(1001), startable())
    assert "device.toml:" in caught.value.message and "1,001 bytes, 1 more" in caught.value.message
    assert "/init (" in caught.value.hint
    assert (caught.value.size_bytes, caught.value.size_max_bytes) == (1001, 1000)


def test_an_archive_is_compressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compressed(b"content" * 100, "gz", tmp_path)
    monkeypatch.setattr(build, "compress", lambda *_: pytest.fail("compressed again"))
    assert compressed(b"content" * 100, "gz", tmp_path) == first
    with pytest.raises(BaseException, match="compressed again"):
        compressed(b"CONTENT" * 100, "gz", tmp_path)


def test_other_settings_are_another_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed(b"content" * 100, "zstd", tmp_path)
    monkeypatch.setattr(compression, "ZSTD_LEVEL", 1)
    compressed(b"content" * 100, "zstd", tmp_path)
    assert len(list((tmp_path / "archives").iterdir())) == 2


def test_a_rotten_cache_is_not_believed(tmp_path: Path) -> None:
    first = compressed(b"content" * 100, "gz", tmp_path)
    (kept,) = (tmp_path / "archives").iterdir()
    for damaged in (b"", kept.read_bytes()[:40], kept.read_bytes()[:-1] + b"x"):
        kept.write_bytes(damaged)
        assert compressed(b"content" * 100, "gz", tmp_path) == first


def test_no_compression_is_no_cache(tmp_path: Path) -> None:
    assert compressed(b"content", "none", tmp_path) == b"content"
    assert not list(tmp_path.iterdir())


def test_the_image_and_its_sidecar_are_written_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path / "image", b"image", b"sidecar")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "image": b"image",
        "image.json": b"sidecar",
    }
    with pytest.raises(BuildError, match="cannot be written"):
        write(tmp_path / "absent/image", b"image", b"sidecar")


def kernel_module(folder: Path, name: str, reason: str) -> ModuleEntry:
    (folder / f"{name}.ko").write_bytes(b"\x7fELF" + name.encode())
    return ModuleEntry(name, f"/lib/modules/6.1/{name}.ko", folder / f"{name}.ko", reason, optional=False)


def test_module_lists_are_in_load_order_and_carry_parameters(tmp_path: Path) -> None:
    boot = [kernel_module(tmp_path, "watchdog", "i6300esb needs watchdog"),
            kernel_module(tmp_path, "i6300esb", "asked for by the configuration")]  # fmt: skip
    recovery = [kernel_module(tmp_path, "vfat", "asked for by the configuration")]
    tree = assemble([*places(), *modules(boot, recovery, {"i6300esb": "heartbeat=20"}, "6.1")])
    assert tree.by_path["etc/unbrick/modules.boot"].data.decode().splitlines() == [
        "/lib/modules/6.1/watchdog.ko", "/lib/modules/6.1/i6300esb.ko heartbeat=20",
    ]  # fmt: skip
    assert tree.by_path["etc/unbrick/modules.recovery"].data == b"/lib/modules/6.1/vfat.ko\n"
    assert tree.by_path["lib/modules/6.1/watchdog.ko"].reasons[0].parent == "lib/modules/6.1/i6300esb.ko"


def test_programs_keep_whether_they_are_executable_and_nothing_else_of_their_mode(tmp_path: Path) -> None:
    for name, mode in (("program", 0o4750), ("library", 0o640)):
        (tmp_path / name).write_bytes(name.encode())
        (tmp_path / name).chmod(mode)
    found = [ClosureEntry(f"/usr/{name}", tmp_path / name, "", "asked for") for name in ("program", "library")]
    tree = assemble(programs([*found, ClosureEntry("/bin/x", None, "../usr/program", "leads to /usr/program")]))
    assert (tree.by_path["usr/program"].mode, tree.by_path["usr/library"].mode) == (0o755, 0o644)
    assert tree.by_path["bin/x"].reasons[0].parent == "usr/program"
    assert tree.by_path["usr/program"].source == "sysroot: /usr/program"
