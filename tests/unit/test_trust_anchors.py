"""[network] https and ca in device.toml: what goes into the image, and what is refused by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from initramfs.config import Config, device_config, frozen_module, load
from initramfs.errors import ConfigError
from initramfs.trust_anchors import trust_anchors
from tests.programs.certificates import authority

EXAMPLE = (Path(__file__).parents[2] / "docs/examples/device.toml").read_text()
WITHOUT_NETWORK = re.sub(r"\[network\].*?\n\n", "", EXAMPLE, flags=re.DOTALL)
HTTPS = '[network]\nhttps = true\nca = "ca.pem"\n'


def device(folder: Path, network: str = HTTPS, ca: bytes | None = None) -> Config:
    (folder / "root.pub").write_text(bytes(range(32)).hex())
    (folder / "device.toml").write_text(f"{WITHOUT_NETWORK}\n{network}")
    if ca is not None:
        (folder / "ca.pem").write_bytes(ca)
    return load(folder / "device.toml")


def error_of(config: Config) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        trust_anchors(config)
    assert caught.value.key == "network.ca" and caught.value.line
    return caught.value


@pytest.mark.requirement("D7")
def test_every_certificate_of_the_file_is_frozen_in(tmp_path: Path) -> None:
    first, second = authority("first"), authority("second")
    config = device(tmp_path, ca=b"a comment\n" + first.pem + b"\n\n" + second.pem)
    expected = [first.der.hex(), second.der.hex()]
    assert trust_anchors(config) == expected
    literal = ast.parse(frozen_module(config)).body[1]
    assert isinstance(literal, ast.Assign)
    assert ast.literal_eval(literal.value)["network"] == device_config(config)["network"]
    assert device_config(config)["network"]["https"] is True
    assert device_config(config)["network"]["ca"] == expected


def test_a_device_without_https_has_none(tmp_path: Path) -> None:
    assert device_config(device(tmp_path, ""))["network"] is None
    without = device_config(device(tmp_path, "[network]\n"))["network"]
    assert (without["https"], without["ca"]) == (False, [])


@pytest.mark.parametrize(
    ("network", "key", "says"),
    [
        ("[network]\nhttps = true\n", "network.ca", "missing: network.https is true"),
        ('[network]\nca = "ca.pem"\n', "network.ca", "has no use: network.https is not true"),
        ('[network]\nhttps = "yes"\n', "network.https", "must be true or false, not a text"),
        ("[network]\nhttps = 1\n", "network.https", "must be true or false, not an integer"),
        ("[network]\nhttps = true\nca = true\n", "network.ca", "must be a text"),
        ("[network]\nhtps = true\n", "network.htps", "unknown key"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, network: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        device(tmp_path, network)
    assert caught.value.key == key and says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "ca.pem cannot be read: No such file" in str(error_of(device(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"no PEM", bytes(100), authority().der, authority().pem[:200]])
def test_a_file_without_a_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    error = error_of(device(tmp_path, ca=content))
    assert "holds no PEM certificate" in str(error) and "BEGIN CERTIFICATE" in error.hint


def test_a_private_key_does_not_go_into_an_image(tmp_path: Path) -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    assert "holds a private key" in str(error_of(device(tmp_path, ca=authority().pem + key)))


def test_the_file_and_its_certificates_are_bounded(tmp_path: Path) -> None:
    assert "longer than 524288 bytes" in str(error_of(device(tmp_path, ca=b"\n" * (512 * 1024 + 1))))
    assert "holds 257 certificates; at most 256" in str(error_of(device(tmp_path, ca=authority().pem * 257)))
