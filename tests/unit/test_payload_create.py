"""Making bundles: the same bytes from the same input, all or nothing, and keys that do not leak."""

from __future__ import annotations

import os
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from payload import create as create_module
from payload.create import FRAMES_AHEAD_PER_THREAD, THREADS_MAX, BundleInput, ImageInput, create
from payload.errors import PayloadInputError
from payload.signing_key import generate_key, load_public_key, load_signing_key, public_bytes
from tests.unit.payload_samples import COMPATIBLE, FRAME, KERNEL, KEY, Sample, make, mixed_image


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _created = make(tmp_path, mixed_image(40), name="first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    previous = os.umask(0o077)
    try:
        second, _created = make(tmp_path / "elsewhere", mixed_image(40), name="second")
    finally:
        os.umask(previous)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode == second.stat().st_mode


def test_what_was_made_is_told(tmp_path: Path) -> None:
    path, created = make(tmp_path, mixed_image(6))
    assert created.frames == {"zero": 2, "raw": 2, "zstd": 2}
    assert created.file_bytes == path.stat().st_size
    assert created.image_bytes == 6 * FRAME
    assert created.header_bytes == 4096


def test_frames_of_kinds_that_do_not_shrink_are_stored_raw(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(8 * FRAME)
    path, created = make(tmp_path, noise)
    assert created.frames["raw"] == 8
    assert noise in path.read_bytes()


def test_several_images_share_one_bundle(tmp_path: Path) -> None:
    sample = Sample(tmp_path, mixed_image(3))
    images = tuple(
        ImageInput(tmp_path / "sample.img", "erofs", slot_class=name, frame_size=FRAME) for name in ("rootfs", "other")
    )
    output = tmp_path / "two.ubk"
    created = create(BundleInput(COMPATIBLE, 1, "1", KERNEL, images), KEY, output)
    assert created.image_bytes == 2 * len(sample.plain)
    assert created.frames == {"zero": 2, "raw": 2, "zstd": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"compatible": "two words"},
        {"compatible": ""},
        {"version": -1},
        {"version": 1 << 64},
        {"version_name": "a\nb"},
        {"kernel_release": "6.1/../x"},
    ],
)
def test_fields_that_no_device_would_take_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    fields = replace(BundleInput(COMPATIBLE, 1, "1", KERNEL, ()), **wrong)  # type: ignore[arg-type]
    with pytest.raises(PayloadInputError):
        make(tmp_path, mixed_image(1), fields=fields)
    assert not (tmp_path / "sample.ubk").exists()


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_or_empty_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "image"
    if content is not None:
        path.write_bytes(content)
    fields = BundleInput(COMPATIBLE, 1, "1", KERNEL, (ImageInput(path, "squashfs"),))
    with pytest.raises(PayloadInputError, match=str(path)):
        create(fields, KEY, tmp_path / "out.ubk")


def test_a_failure_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _created = make(tmp_path, mixed_image(2))
    before = path.read_bytes()

    def fail(plain: bytes) -> tuple[int, bytes, bytes, int]:
        raise MemoryError

    monkeypatch.setattr(create_module, "_pack", fail)
    with pytest.raises(MemoryError):
        make(tmp_path, mixed_image(3))
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sample.img", "sample.ubk"]


def test_an_image_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(mixed_image(4))

    def shrink(activity: str, done: int, total: int) -> None:
        os.truncate(path, FRAME)

    frames = (ImageInput(path, "squashfs", frame_size=FRAME),)
    path.write_bytes(mixed_image(400))
    with pytest.raises(PayloadInputError, match="shorter"):
        create(BundleInput(COMPATIBLE, 1, "1", KERNEL, frames), KEY, tmp_path / "out.ubk", shrink)


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "image"
    path.write_bytes(mixed_image(5))
    images = (ImageInput(path, "squashfs", frame_size=FRAME),)
    fields = BundleInput(COMPATIBLE, 1, "1", KERNEL, images)
    create(fields, KEY, tmp_path / "out.ubk", lambda activity, done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_keys_survive_the_round_trip(tmp_path: Path) -> None:
    private, public = tmp_path / "root.pem", tmp_path / "root.pub"
    generate_key(private, public)
    assert private.stat().st_mode & 0o777 == 0o600
    assert len(public.read_text()) == 65
    key = load_public_key(public)
    assert public_bytes(load_signing_key(private)) == key
    public.write_bytes(key)
    assert load_public_key(public) == key
    for other in (private, tmp_path / "root.v2.pem"):
        with pytest.raises(PayloadInputError, match="exists"):
            generate_key(other, public)
    with pytest.raises(PayloadInputError, match="another one"):
        generate_key(tmp_path / "new.pub", tmp_path / "new.pub")
    assert load_public_key(public) == key, "devices may pin it"


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"zz" * 32, b"\xff" * 64, b"-----BEGIN PRIVATE KEY-----\n"])
def test_files_that_are_no_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(PayloadInputError, match=str(path)):
        load_public_key(path)
    with pytest.raises(PayloadInputError, match=str(path)):
        load_signing_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    path = tmp_path / "key"
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(PayloadInputError, match="Ed25519"):
        load_signing_key(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(PayloadInputError, match="none"):
        load_signing_key(tmp_path / "none")


@pytest.mark.long
def test_images_above_four_gigabytes_in_bounded_memory(tmp_path: Path) -> None:
    frame, size = 4 << 20, (4 << 30) + (8 << 20)
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.seek(size - FRAME)
        file.write(b"the end " * (FRAME // 8))
    images = (ImageInput(path, "ext4", frame_size=frame), ImageInput(path, "ext4", slot_class="b", frame_size=frame))
    tracemalloc.start()
    try:
        created = create(BundleInput(COMPATIBLE, 1, "1", KERNEL, images), KEY, tmp_path / "out.ubk")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert created.image_bytes == 2 * size
    assert created.frames == {"zero": 2 * (size // frame - 1), "raw": 0, "zstd": 2}
    assert peak < 2 * THREADS_MAX * FRAMES_AHEAD_PER_THREAD * frame
