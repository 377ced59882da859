"""``device.toml``: what one device is made of, as a frozen value.

The classes below *are* the schema: a field is a key (``boot_attempts`` is ``boot-attempts`` in the
file), its type is the type demanded, :func:`limited` gives its bounds. An unknown key is an error,
so that a misspelt one cannot silently become a default. What must hold between keys (alignment,
order, overlap) is in :mod:`initramfs.layout`.

Paths in the file are relative to the file's folder. Nothing here opens a disk, a sysroot or the
network; :func:`load` reads the one file, :func:`pinned_root` the one key or file of roots it names,
:mod:`initramfs.trust_anchors` the certificates.
"""

from __future__ import annotations

import dataclasses
import pprint
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from initramfs.button_keys import KEY_CODES
from initramfs.errors import ConfigError
from initramfs.layout import check_layout
from initramfs.network import check_network
from initramfs.schema import Source, limited, read_table
from initramfs.toml_lines import key_lines
from initramfs.trust_anchors import trust_anchors

CONFIG_BYTES_MAX = 256 * 1024
DISK_BYTES_MAX = 2**50
JOURNAL_COPIES = 3
HEADER_COPIES = 2
BOOT_ATTEMPTS_MAX = 9
WATCHDOG_SECONDS_MAX = 3600
BUTTON_SECONDS_MAX = 30
IMAGE_BYTES_DEFAULT_MAX = 64 * 1024 * 1024
VERSION_MAX = 2**63 - 1  # what TOML's integers can say
COMPRESSIONS = ("zstd", "xz", "gz", "none")
DEVICE_TABLES = (
    "compatible", "boot_attempts", "floor", "disk", "journal", "payload", "slot", "data", "watchdog", "button",
)  # fmt: skip

_MODULE_NAME = r"[A-Za-z0-9_-]+"
_ABSOLUTE_PATH = r"(/[^/\0\n]+)+"
_DEVICE_NODE = r"/dev(/[!-.0-~]+)+"  # PID 1 is told of it in words with a space between them
_FIRMWARE_NAME = r"[^/\0\n][^\0\n]*"
_PACKAGE_NAME = r"[a-z0-9][a-z0-9.+-]+"


@dataclass(frozen=True, kw_only=True)
class Region:
    """Bytes ``offset`` … ``offset + size`` of the disk."""

    offset: int = limited(at_least=0, at_most=DISK_BYTES_MAX)
    size: int = limited(at_least=1, at_most=DISK_BYTES_MAX)

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, kw_only=True)
class Disk:
    serial: str = limited(pattern=r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Journal:
    regions: tuple[Region, ...] = limited(items=JOURNAL_COPIES)


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Places for whole bundles. With a ``spare`` one an update never takes away what repairs the running version;

    ``in_place`` allows just that to a device with one place.
    """

    region: Region
    spare: Region | None = None
    in_place: bool = False


@dataclass(frozen=True, kw_only=True)
class Slot:
    region: Region
    headers: tuple[Region, ...] = limited(items=HEADER_COPIES)


@dataclass(frozen=True, kw_only=True)
class Data:
    region: Region


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    module: str = limited(default="", pattern=f"({_MODULE_NAME})?")
    parameters: str = limited(default="", pattern=r"[ -~]*")
    device: str = limited(default="/dev/watchdog0", pattern=_DEVICE_NODE)
    timeout_seconds: int = limited(default=60, at_least=2, at_most=WATCHDOG_SECONDS_MAX)


@dataclass(frozen=True, kw_only=True)
class Button:
    key: str = limited(choices=tuple(KEY_CODES))
    hold_seconds: int = limited(default=2, at_least=1, at_most=BUTTON_SECONDS_MAX)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where bundles are looked for when nothing local helps. ``urls`` are mirrors of one file, or of several.

    ``interface`` is a MAC address, a driver's name or ``any``. Without ``addresses`` (and prefix lengths) the
    address comes by DHCP or router advertisement; ``dns`` goes before what a lease says. ``https`` builds TLS into
    the image; ``ca`` is a PEM file with the certificates it believes.
    """

    urls: tuple[str, ...] = ()
    interface: str = limited(default="any", pattern=r"[A-Za-z0-9_-]{1,32}|([0-9a-f]{2}:){5}[0-9a-f]{2}")
    modules: tuple[str, ...] = limited(default=(), pattern=_MODULE_NAME)
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    dns: tuple[str, ...] = ()
    https: bool = limited(default=False)
    ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Keyring:
    root: Path


@dataclass(frozen=True, kw_only=True)
class Sysroot:
    packages: tuple[str, ...] = limited(default=(), pattern=_PACKAGE_NAME)
    path: Path | None = None
    arch: str = limited(default="amd64", pattern=r"[a-z0-9-]+")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    package: str = limited(default="", pattern=f"({_PACKAGE_NAME})?")
    path: Path | None = None
    release: str = limited(default="", pattern=r"[A-Za-z0-9.+_~-]*")


@dataclass(frozen=True, kw_only=True)
class Modules:
    boot: tuple[str, ...] = limited(default=(), pattern=_MODULE_NAME)
    recovery: tuple[str, ...] = limited(default=(), pattern=_MODULE_NAME)


@dataclass(frozen=True, kw_only=True)
class Programs:
    include: tuple[str, ...] = limited(default=(), pattern=_ABSOLUTE_PATH)


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """Names below /lib/firmware, wildcards (of slashes, too) allowed. ``optional`` ones may be absent."""

    include: tuple[str, ...] = limited(default=(), pattern=_FIRMWARE_NAME)
    optional: tuple[str, ...] = limited(default=(), pattern=_FIRMWARE_NAME)


@dataclass(frozen=True, kw_only=True)
class Image:
    size_max_bytes: int = limited(default=IMAGE_BYTES_DEFAULT_MAX, at_least=1, at_most=2**32)
    compression: str = limited(default="zstd", choices=COMPRESSIONS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One device. ``slot`` maps a slot class to its one or two slots by number: ``slot["rootfs"]["0"]``.

    ``floor`` is the lowest version that the device takes where it has no journal yet, or has lost it.
    """

    compatible: str = limited(pattern=r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")  # a name of a manifest
    disk: Disk
    journal: Journal
    payload: Payload
    slot: dict[str, dict[str, Slot]]
    data: Data
    keyring: Keyring
    sysroot: Sysroot
    boot_attempts: int = limited(default=3, at_least=1, at_most=BOOT_ATTEMPTS_MAX)
    floor: int = limited(default=0, at_least=0, at_most=VERSION_MAX)
    watchdog: Watchdog | None = None
    button: Button | None = None
    network: Network | None = None
    kernel: Kernel = field(default_factory=Kernel)
    modules: Modules = field(default_factory=Modules)
    programs: Programs = field(default_factory=Programs)
    firmware: Firmware = field(default_factory=Firmware)
    image: Image = field(default_factory=Image)
    source: Source = field(default=Source(Path(), {}), compare=False, repr=False)


def load(file: Path) -> Config:
    """Read, parse and check ``file``.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a value in it is wrong.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", "Name the device's file with -c device.toml.", file=file
        ) from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"is {len(raw)} bytes long; at most {CONFIG_BYTES_MAX} are read", file=file)
    try:
        return parse(raw.decode(), file)
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=file) from error


def parse(text: str, file: Path = Path("device.toml")) -> Config:
    """The configuration in ``text``; ``file`` serves error messages and relative paths.

    Raises:
        ConfigError: naming file, line and key.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"is not TOML: {error}", file=file, line=line) from error
    except (ValueError, RecursionError) as error:
        what = (
            "too many tables or lists in each other"
            if isinstance(error, RecursionError)
            else "a number that is too long"
        )
        raise ConfigError(f"has {what} to be read", "Look at what was changed last.", file=file) from error
    source = Source(file, key_lines(text))
    config = dataclasses.replace(read_table(Config, table, source), source=source)
    check_layout(config)
    check_network(config)
    return config


def root_public_key(config: Config) -> bytes:
    """The pinned Ed25519 root key: 32 bytes, from a file of 32 raw bytes or 64 hexadecimal digits.

    Raises:
        ConfigError: the file is absent or is neither.
    """
    from payload.errors import PayloadInputError
    from payload.signing_key import load_public_key

    try:
        return load_public_key(config.keyring.root)
    except PayloadInputError as error:
        hint = "`unbrick key new root.key` makes a pair and writes root.pub beside it."
        raise config.source.error("keyring.root", str(error), hint) from error


def pinned_root(config: Config) -> dict[str, str]:
    """What the device pins: ``root``, a raw key in hexadecimal digits, or ``metadata``, the text of a root.

    Raises:
        ConfigError: the file is neither a key nor a file of roots that its own keys have signed.
    """
    from payload.errors import PayloadInputError
    from payload.root_files import is_root_file, pinned_by

    try:
        if config.keyring.root.exists() and is_root_file(config.keyring.root):
            return {"metadata": pinned_by(config.keyring.root, config.compatible).text.decode("ascii")}
    except PayloadInputError as error:
        raise config.source.error("keyring.root", str(error), "`unbrick key show` says what it lacks.") from error
    return {"root": root_public_key(config).hex()}


def device_config(config: Config) -> dict[str, Any]:
    """What the device needs to know: plain dicts, lists, texts and numbers; absent tables are None.

    Files are there as what they hold, the root key and the trust anchors in hexadecimal digits; a button's key as its
    code.
    """
    plain = {name: _plain(getattr(config, name)) for name in DEVICE_TABLES}
    plain["keyring"] = pinned_root(config)
    if config.button:
        plain["button"] = {"code": KEY_CODES[config.button.key], "hold_seconds": config.button.hold_seconds}
    plain["network"] = config.network and _plain(config.network) | {"ca": trust_anchors(config)}
    return plain


def frozen_module(config: Config) -> str:
    """Source text of the module ``device_config``: one literal, the same for the same configuration.

    Raises:
        ConfigError: the root key or the trust anchors cannot be read.
    """
    literal = pprint.pformat(device_config(config), width=100, sort_dicts=False)
    return f'"""The device this image was built for."""\n\nCONFIG = {literal}\n'


def _plain(value: Any) -> Any:
    """Dataclasses to dicts and tuples to lists, recursively."""
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
