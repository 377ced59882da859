"""Keys, roots and signatures as the people of a vendor handle them, and what devices then take."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from initramfs.cli import main
from initramfs.config import device_config, load
from initramfs.errors import BuildError, ConfigError
from initramfs.pkcs11 import TokenKey
from payload.cosign import bundle_header
from payload.errors import (
    PayloadBelowThresholdError,
    PayloadError,
    PayloadInputError,
    PayloadKeyRevokedError,
)
from payload.manifest import Manifest
from payload.root_files import load_roots, save_roots
from payload.roots import ROOTS_MAX, Link, decode_root
from payload.signing_key import load_public_key, load_signing_key
from payload.strict_json import TIME_MAX
from recovery.keyring import Keyring
from statemachine.record import Record
from tests.unit.filesystem_samples import squashfs

EXAMPLE = Path(__file__).parents[2] / "docs/examples/device.toml"
NAMES = ("alice", "bob", "carol", "build", "release", "next")
KERNEL = "6.1.0"

pytestmark = pytest.mark.requirement("D6")


class Desk:
    """A vendor's folder: keys by name, device.toml, an image, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        (folder / "device.toml").write_bytes(EXAMPLE.read_bytes())
        (folder / "image").write_bytes(squashfs(bytes(range(256)) * 40))
        for name in NAMES:
            self.run("key", "new", f"{name}.key")

    def run(self, *words: object, code: int = 0) -> tuple[str, str]:
        """``@name`` is a file of the folder; so is every word with a known ending."""
        known = (".key", ".pub", ".roots", ".ubk", ".toml")
        given = [str(self.folder / str(word)) if str(word).endswith(known) else str(word) for word in words]
        self.capsys.readouterr()
        assert main(given) == code, self.capsys.readouterr().err
        captured = self.capsys.readouterr()
        return captured.out, captured.err

    def bundle(self, version: int, *words: object, code: int = 0) -> tuple[str, str]:
        return self.run(
            "bundle", "create", "-c", "device.toml", "--image", self.folder / "image", "--version", version,
            "--kernel-release", KERNEL, "-o", "os.ubk", *words, code=code,
        )  # fmt: skip

    def pin(self, name: str) -> Keyring:
        """A device that is built with this file as its root."""
        path = self.folder / "device.toml"
        path.write_text(EXAMPLE.read_text().replace('"root.pub"', f'"{name}"'))
        return Keyring(device_config(load(path)), Record())

    def take(self, device: Keyring, bundle: str = "os.ubk") -> Manifest:
        return device.installable(bundle_header(self.folder / bundle), KERNEL)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture
def device(desk: Desk) -> Keyring:
    """A device with threshold roots: two of alice, bob, carol sign roots; build and release sign bundles, both."""
    desk.run(
        "key", "root", "device.roots", "-c", "device.toml",
        "--root-key", "alice.pub", "--root-key", "bob.pub", "--root-key", "carol.pub", "--root-threshold", 2,
        "--bundle-key", "build.pub", "--bundle-key", "release.pub", "--bundle-threshold", 2,
        "--key", "alice.key", "--key", "bob.key",
    )  # fmt: skip
    return desk.pin("device.roots")


def refused(error: type[PayloadError], desk: Desk, device: Keyring) -> None:
    with pytest.raises(error):
        desk.take(device)


def test_several_people_sign_one_bundle(desk: Desk, device: Keyring) -> None:
    out, _err = desk.bundle(5, "--key", "build.key")
    assert "1 more signatures are needed: `unbrick bundle sign`" in out
    refused(PayloadBelowThresholdError, desk, device)
    desk.run("bundle", "sign", "os.ubk", "--key", "release.key")
    assert desk.take(device).version == 5
    desk.bundle(6, "--key", "build.key", "--key", "release.key")
    assert desk.take(device).version == 6


def test_a_key_without_a_network_signs_a_message(desk: Desk, device: Keyring, tmp_path: Path) -> None:
    desk.bundle(5, "--key", "build.key")
    message, signature = tmp_path / "message", tmp_path / "signature"
    desk.run("bundle", "sign", "os.ubk", "--export-message", message)
    signature.write_bytes(load_signing_key(tmp_path / "release.key").sign(message.read_bytes()))
    _out, err = desk.run("bundle", "sign", "os.ubk", "--import-signature", signature, code=1)
    assert "--public-key" in err
    _out, err = desk.run(
        "bundle", "sign", "os.ubk", "--import-signature", signature, "--public-key", "alice.pub", code=1
    )
    assert "not of this message by this key" in err
    desk.run("bundle", "sign", "os.ubk", "--import-signature", signature, "--public-key", "release.pub")
    assert desk.take(device).version == 5


def test_signing_again_leaves_the_images_alone_and_one_signature_a_key(desk: Desk, device: Keyring) -> None:
    desk.bundle(5, "--key", "build.key", "--key", "release.key")
    before = (desk.folder / "os.ubk").read_bytes()
    desk.run("bundle", "sign", "os.ubk", "--key", "build.key", "-o", "again.ubk")
    assert (desk.folder / "again.ubk").read_bytes() == before
    header = bundle_header(desk.folder / "os.ubk")
    desk.run("bundle", "sign", "os.ubk", "--roots", "device.roots")
    longer = bundle_header(desk.folder / "os.ubk")
    assert (desk.folder / "os.ubk").read_bytes()[len(longer.raw) :] == before[len(header.raw) :]
    assert [link.version for link in longer.roots] == [1]
    assert desk.take(device).version == 5


def test_a_stolen_bundle_key_is_revoked_and_the_floor_comes_down(desk: Desk, device: Keyring) -> None:
    desk.bundle(2**64 - 1, "--key", "build.key", "--key", "release.key")
    assert desk.take(device).version == 2**64 - 1
    poisoned = device.fields() | {"floor": 2**64 - 1}
    device.recall(Record(**poisoned))
    _out, err = desk.run("key", "revoke", "device.roots", "build.pub", "--key", "alice.key", code=1)
    assert "--floor" in err
    desk.run(
        "key", "revoke", "device.roots", "build.pub", "--add-bundle-key", "next.pub", "--floor", 6,
        "--key", "alice.key", "--key", "carol.key",
    )  # fmt: skip
    desk.bundle(7, "--key", "next.key", "--key", "release.key", "--roots", "device.roots")
    assert desk.take(device).version == 7
    assert device.trusted.floor == 6 and device.trusted.root.version == 2
    _out, err = desk.bundle(8, "--key", "build.key", "--roots", "device.roots", code=1)
    assert "no --key is a bundle key of root 2" in err


def test_a_root_gathers_its_signatures(desk: Desk, device: Keyring, tmp_path: Path) -> None:
    out, _err = desk.run("key", "rotate", "device.roots", "--add-bundle-key", "next.pub", "--key", "alice.key")
    assert "1 signatures are missing" in out
    _out, err = desk.bundle(5, "--key", "build.key", "--roots", "device.roots", code=1)
    assert "root 2 has 1 of the 2 signatures" in err
    message, signature = tmp_path / "message", tmp_path / "signature"
    desk.run("key", "sign", "device.roots", "--export-message", message)
    signature.write_bytes(load_signing_key(tmp_path / "bob.key").sign(message.read_bytes()))
    desk.run("key", "sign", "device.roots", "--import-signature", signature, "--public-key", "bob.pub")
    shown = json.loads(desk.run("key", "show", "device.roots", "--json")[0])
    assert [(root["version"], root["signatures-missing"]) for root in shown["roots"]] == [(1, 0), (2, 0)]
    desk.bundle(5, "--key", "build.key", "--key", "next.key", "--roots", "device.roots")
    assert desk.take(device).version == 5


def test_a_device_with_one_raw_key_is_led_to_thresholds(desk: Desk) -> None:
    device = desk.pin("build.pub")
    desk.bundle(1, "--key", "build.key")
    assert desk.take(device).version == 1
    desk.run(
        "key", "rotate", "chain.roots", "-c", "device.toml", "--from", "build.pub", "--floor", 1,
        "--remove-root-key", "build.pub", "--add-root-key", "alice.pub", "--add-root-key", "bob.pub",
        "--root-threshold", 2, "--remove-bundle-key", "build.pub", "--add-bundle-key", "release.pub",
        "--key", "build.key", "--key", "alice.key", "--key", "bob.key",
    )  # fmt: skip
    desk.bundle(2, "--key", "release.key", "--roots", "chain.roots")
    assert desk.take(device).version == 2
    desk.run("key", "rotate", "chain.roots", "--expires", "never", "--key", "alice.key", "--key", "bob.key")
    assert decode_root(load_roots(desk.folder / "chain.roots")[-1].text).expires_at == TIME_MAX
    _out, err = desk.bundle(3, "--key", "build.key", "--roots", "chain.roots", code=1)
    assert "no --key is a bundle key of root 3" in err
    (desk.folder / "build.pub").replace(desk.folder / "old.pub")
    desk.bundle(3, "--key", "build.key")
    refused(PayloadKeyRevokedError, desk, device)


def test_an_image_pins_the_newest_root_of_a_file(desk: Desk, device: Keyring) -> None:
    assert device.trusted.root.version == 1
    desk.run("key", "rotate", "device.roots", "--floor", 4, "--key", "alice.key", "--key", "bob.key")
    newer = desk.pin("device.roots")
    assert (newer.trusted.root.version, newer.trusted.floor) == (2, 4)


def test_an_image_does_not_pin_what_its_keys_did_not_sign(desk: Desk, device: Keyring) -> None:
    desk.run("key", "rotate", "device.roots", "--key", "alice.key")
    with pytest.raises(ConfigError, match=r"keyring\.root.*root 2 has 1 of the 2 signatures"):
        desk.pin("device.roots")
    chain = load_roots(desk.folder / "device.roots")
    save_roots(desk.folder / "cut.roots", [chain[1]])
    with pytest.raises(ConfigError, match="begins with root 2"):
        desk.pin("cut.roots")
    save_roots(desk.folder / "bare.roots", [Link(1, chain[0].text, chain[0].signatures[:1])])
    with pytest.raises(ConfigError, match="its own keys"):
        desk.pin("bare.roots")


def test_roots_that_no_device_could_follow_are_not_made(desk: Desk, device: Keyring) -> None:
    signers = ("--key", "alice.key", "--key", "bob.key")
    for words, says in (
        (("--root-threshold", 4), "wants more root keys"),
        (("--remove-bundle-key", "build.pub", "--floor", 1), "wants more bundle keys"),
        (("--remove-root-key", "next.pub"), "not among the keys"),
        (("--floor", -1), "bad value of 'floor'"),
        (("--expires", "2001-01-01"), "is over already"),
        (("--expires", "soon"), "is not a day"),
        (("--key", "build.key"), "no root key"),
    ):
        before = (desk.folder / "device.roots").read_bytes()
        _out, err = desk.run("key", "rotate", "device.roots", *words, *signers, code=1)
        assert says in err
        assert (desk.folder / "device.roots").read_bytes() == before
    _out, err = desk.run("key", "root", "device.roots", "--root-key", "alice.pub", "--bundle-key", "alice.pub", code=1)
    assert "exists" in err


def test_a_file_of_more_roots_than_a_header_carries_is_not_made(desk: Desk, device: Keyring) -> None:
    link = load_roots(desk.folder / "device.roots")[0]
    many = [Link(version, link.text, link.signatures) for version in range(1, ROOTS_MAX + 2)]
    with pytest.raises(PayloadInputError, match="pin a later root"):
        save_roots(desk.folder / "many.roots", many)


@pytest.mark.parametrize("content", [b"", b"\x89UBKROOT", b"\x89UBKROOTx", b"\x89UBKROOT" + bytes(12), bytes(32)])
def test_what_is_no_file_of_roots_is_named(desk: Desk, content: bytes) -> None:
    (desk.folder / "bad.roots").write_bytes(content)
    with pytest.raises(PayloadInputError, match=r"bad\.roots"):
        load_roots(desk.folder / "bad.roots")
        decode_root(load_roots(desk.folder / "bad.roots")[0].text)
        raise AssertionError


def test_a_passphrase_encrypts_a_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "correct horse")
    desk.run("key", "new", "safe.key", "--passphrase-env", "SECRET")
    path = desk.folder / "safe.key"
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_pem_private_key(path.read_bytes(), b"correct horse")
    desk.pin("safe.pub")
    desk.bundle(1, "--key", "safe.key", "--passphrase-env", "SECRET")
    monkeypatch.setenv("SECRET", "battery staple")
    _out, err = desk.bundle(1, "--key", "safe.key", "--passphrase-env", "SECRET", code=1)
    assert "the passphrase is wrong" in err and "battery" not in err
    _out, err = desk.bundle(1, "--key", "safe.key", "--passphrase-env", "NOT_SET", code=1)
    assert "NOT_SET is empty" in err
    with pytest.raises(PayloadInputError, match="no passphrase was given"):
        load_signing_key(path)


def test_a_passphrase_comes_from_a_descriptor_a_line_a_key(desk: Desk) -> None:
    for name, secret in (("one", b"first"), ("two", b"second")):
        with descriptor(secret + b"\n") as number:
            desk.run("key", "new", f"{name}.key", "--passphrase-fd", number)
    desk.pin("one.pub")
    with descriptor(b"first\nsecond\n") as number:
        desk.bundle(1, "--key", "one.key", "--key", "two.key", "--passphrase-fd", number)
    with descriptor(b"first\n") as number:
        _out, err = desk.bundle(1, "--key", "one.key", "--key", "two.key", "--passphrase-fd", number, code=1)
    assert "has no passphrase for" in err


class descriptor:  # noqa: N801 - reads as a function
    """A pipe with something in it, by its number."""

    def __init__(self, content: bytes) -> None:
        self.reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)

    def __enter__(self) -> int:
        return self.reading

    def __exit__(self, *_error: object) -> None:
        os.close(self.reading)


def test_a_file_of_roots_is_shown_and_verified_as_any_file(desk: Desk, device: Keyring) -> None:
    assert device.trusted.root.version == 1
    desk.run("key", "rotate", "device.roots", "--key", "alice.key")
    shown = json.loads(desk.run("info", "device.roots", "--json")[0])
    assert [root["version"] for root in shown["roots"]] == [1, 2]
    out, _err = desk.run("verify", "device.roots", code=1)
    assert "root 2 has 1 of the 2 signatures" in out
    desk.run("key", "sign", "device.roots", "--key", "carol.key")
    out, _err = desk.run("verify", "device.roots")
    assert "2 roots, the newest is 2" in out
    desk.run("key", "rotate", "chain.roots", "-c", "device.toml", "--from", "build.pub", "--key", "build.key")
    assert "followed from" in desk.run("verify", "chain.roots", "--root", "build.pub")[0]
    out, _err = desk.run("verify", "chain.roots", "--root", "alice.pub", code=1)
    assert "signatures that the one before must give" in out


def test_a_public_key_is_shown(desk: Desk) -> None:
    shown = json.loads(desk.run("key", "show", "alice.pub", "--json")[0])
    assert bytes.fromhex(shown["public"]) == load_public_key(desk.folder / "alice.pub")


def test_the_same_time_makes_the_same_bundle(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    bundles = []
    for _ in range(2):
        desk.pin("build.pub")
        desk.bundle(1, "--key", "build.key")
        bundles.append((desk.folder / "os.ubk").read_bytes())
    assert bundles[0] == bundles[1]
    shown = json.loads(desk.run("info", "os.ubk", "--json")[0])
    assert shown["manifest"]["signed-at"] == 1_800_000_000
    assert shown["manifest"]["expires-at"] == 1_800_000_000 + 365 * 86_400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    _out, err = desk.bundle(1, "--key", "build.key", code=1)
    assert "SOURCE_DATE_EPOCH" in err


@pytest.mark.parametrize("uri", [
    "pkcs11:token=vendor;object=build?module-path=/none.so&pin-value=135790",
    "pkcs11:token=vendor;pin-value=135790",
    "PKCS11:token=vendor?PIN-value=135790",
])  # fmt: skip
@pytest.mark.parametrize("passphrase", ["", "--passphrase-env=ABSENT", "--passphrase-fd=99", "--debug"])
def test_a_pin_on_the_command_line_is_refused_and_never_shown(desk: Desk, uri: str, passphrase: str) -> None:
    words = ("--key", uri, *passphrase.split())
    root = ["key", "root", "device.roots", "-c", "device.toml", "--root-key", "alice.pub", "--bundle-key", "build.pub"]
    for said in (desk.bundle(1, *words, code=1), desk.run(*root, *words, code=1)):
        assert "135790" not in "".join(said) and "--passphrase-env" in said[1]
    with pytest.raises(BuildError) as caught:
        TokenKey(uri, b"")
    assert "135790" not in str(caught.value)
