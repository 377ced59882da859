"""A key in a token signs roots and bundles: SoftHSM and OpenSC, where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from initramfs.cli import main
from initramfs.errors import BuildError, ToolError
from initramfs.pkcs11 import TokenKey
from payload.codec import ed25519_verify
from payload.cosign import bundle_header
from payload.errors import PayloadWrongKeyError
from payload.signing_key import generate_key, public_bytes
from payload.trust import trusted_key, verify
from tests.unit.filesystem_samples import squashfs

EXAMPLE = Path(__file__).parents[2] / "docs/examples/device.toml"
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PROGRAMS = ("softhsm2-util", "pkcs11-tool")
PIN = "5678"

pytestmark = [
    pytest.mark.requirement("D6"),
    pytest.mark.skipif(
        not MODULE.exists() or not all(shutil.which(program) for program in PROGRAMS),
        reason="apt-get install softhsm2 opensc",
    ),
]


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new token with one key, ``build``."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PIN", PIN)
    run("softhsm2-util", "--init-token", "--free", "--label", "vendor", "--so-pin", "1234", "--pin", PIN)
    run(
        "pkcs11-tool", "--module", MODULE, "--token-label", "vendor", "--login", "--pin", PIN, "--keypairgen",
        "--key-type", "EC:edwards25519", "--label", "build", "--id", "01",
    )  # fmt: skip
    return f"pkcs11:token=vendor;object=build?module-path={MODULE}"


def test_of_several_keys_the_named_one_signs(uri: str) -> None:
    first = TokenKey(uri, PIN.encode())
    run(
        "pkcs11-tool", "--module", MODULE, "--token-label", "vendor", "--login", "--pin", PIN, "--keypairgen",
        "--key-type", "EC:edwards25519", "--label", "release", "--id", "02",
    )  # fmt: skip
    second = TokenKey(uri.replace("object=build", "object=release"), PIN.encode())
    assert public_bytes(second) != public_bytes(first) == public_bytes(TokenKey(uri, PIN.encode()))
    assert ed25519_verify(second.sign(b"message"), b"message", public_bytes(second))


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)


def test_a_token_signs_what_files_sign(uri: str) -> None:
    key = TokenKey(uri, PIN.encode())
    assert ed25519_verify(key.sign(b"message"), b"message", public_bytes(key))


def test_a_bundle_is_signed_by_a_token(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = public_bytes(TokenKey(uri, PIN.encode()))
    (tmp_path / "root.pub").write_text(public.hex())
    (tmp_path / "device.toml").write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "image").write_bytes(squashfs(bytes(range(256)) * 40))
    words = [
        "bundle", "create", "-c", tmp_path / "device.toml", "--image", tmp_path / "image", "--version", 1,
        "--kernel-release", "6.1.0", "--key", uri, "--passphrase-env", "PIN", "-o", tmp_path / "os.ubk",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    header = bundle_header(tmp_path / "os.ubk")
    assert verify(header, trusted_key(public, "unbrick-virtual"), "unbrick-virtual", None)[0].version == 1
    generate_key(tmp_path / "other.key", tmp_path / "other.pub")
    other = bytes.fromhex((tmp_path / "other.pub").read_text())
    with pytest.raises(PayloadWrongKeyError):
        verify(header, trusted_key(other, "unbrick-virtual"), "unbrick-virtual", None)


def test_the_pin_is_in_no_argument(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "pkcs11-tool"
    real = shutil.which("pkcs11-tool")
    spy.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/arguments\nexec {real} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    TokenKey(uri, PIN.encode()).sign(b"message")
    said = (tmp_path / "arguments").read_text()
    assert "--sign" in said and PIN not in said


def test_what_is_wrong_is_said(uri: str) -> None:
    with pytest.raises(ToolError, match="CKR_PIN_INCORRECT"):
        TokenKey(uri, b"0000").sign(b"message")
    with pytest.raises(ToolError, match="names 0 Ed25519 keys"):
        TokenKey(uri.replace("object=build", "object=none"), b"")
    with pytest.raises(ToolError):
        TokenKey(uri.replace("token=vendor", "token=none"), b"")
    with pytest.raises(BuildError, match="does not say object, module-path"):
        TokenKey("pkcs11:token=vendor", b"")
