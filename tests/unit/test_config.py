"""device.toml: every mistake is named with file, line and key; the frozen module is a literal."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from initramfs.button_keys import KEY_CODES
from initramfs.config import Config, frozen_module, load, parse, root_public_key
from initramfs.errors import ConfigError
from initramfs.toml_lines import key_lines

EXAMPLE = Path(__file__).parents[2] / "docs/examples/device.toml"
TEXT = EXAMPLE.read_text()


def config_with(before: str, after: str) -> Config:
    assert before in TEXT, before
    return parse(TEXT.replace(before, after, 1), Path("device.toml"))


def error_with(before: str, after: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config_with(before, after)
    return caught.value


def line_with(fragment: str) -> int:
    return next(number for number, line in enumerate(TEXT.splitlines(), 1) if fragment in line)


def test_the_example_is_read() -> None:
    config = load(EXAMPLE)
    assert config.compatible == "unbrick-virtual"
    assert [region.offset for region in config.journal.regions] == [1048576, 1074790400, 2144337920]
    assert config.slot["rootfs"]["0"].headers[1].end == 2142240768 + 1048576
    assert config.keyring.root == EXAMPLE.parent / "root.pub"
    assert config.watchdog is not None and config.watchdog.timeout_seconds == 20


def test_an_unknown_key_names_file_line_key_and_the_close_match() -> None:
    error = error_with("boot-attempts = 3", "boot-atempts = 3")
    assert error.line == line_with("boot-attempts")
    assert str(error).startswith(f"device.toml:{error.line}: boot-atempts: unknown key")
    assert "Did you mean boot-attempts?" in error.hint


@pytest.mark.parametrize(
    ("before", "after", "key", "says"),
    [
        ('serial = "unbrick-system"', "", "disk.serial", "missing"),
        ('compatible = "unbrick-virtual"', 'compatible = "vendor,board"', "compatible", "must match"),
        ('[keyring]\nroot = "root.pub"', "", "keyring", "missing"),
        ("boot-attempts = 3", 'boot-attempts = "3"', "boot-attempts", "must be an integer, not a text"),
        ("boot-attempts = 3", "boot-attempts = true", "boot-attempts", "not true or false"),
        ("boot-attempts = 3", "boot-attempts = 0", "boot-attempts", "must be at least 1"),
        ("boot-attempts = 3", "boot-attempts = 10", "boot-attempts", "must be at most 9"),
        ("hold-seconds = 2", "hold-seconds = 2.5", "button.hold-seconds", "not a fraction"),
        ('key = "KEY_R"', 'key = "R"', "button.key", "must be one of KEY_ESC"),
        ('key = "KEY_R"', 'key = "KEY_VOLUMUP"', "button.key", "must be one of"),
        ('compression = "zstd"', 'compression = "zst"', "image.compression", "one of zstd, xz, gz, none"),
        ('package = "linux-image-amd64"', 'package = ["a"]', "kernel.package", "must be a text, not a list"),
        ('"/usr/sbin/e2fsck"', '"usr/sbin/e2fsck"', "programs.include.0", "must match"),
        ('"virtio_blk"', '"virtio/blk"', "modules.boot.1", "must match"),
        ("{offset = 1048576, size", "{ofset = 1048576, size", "journal.regions.0.ofset", "unknown key"),
        ("  {offset = 1074790400, size = 1048576},\n", "", "journal.regions", "must have 3 entries, has 2"),
        ("[slot.rootfs.0]", "[slot.ROOTFS.0]", "slot.ROOTFS", "a name has"),
        ("[disk]", "[[disk]]", "disk", "must be a table, not a list"),
        ("[slot.rootfs.0]", "[slot.rootfs.1]", "slot.rootfs.1", "numbered from 0 to 1"),
        ("[slot.rootfs.0]", "[slot.boot.0]", "slot", "has no rootfs"),
        ("[slot.rootfs.0]", "in-place = 1\n[slot.rootfs.0]", "payload.in-place", "must be true or false"),
        (
            "[slot.rootfs.0]",
            "spare = {offset = 2097152, size = 4096}\n[slot.rootfs.0]",
            "payload.spare",
            "inside payload.region",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(before: str, after: str, key: str, says: str) -> None:
    error = error_with(before, after)
    assert error.key == key
    assert says in error.message
    assert f"device.toml:{error.line}: {key}: " in str(error)


def test_the_line_of_an_entry_of_a_list_is_its_own() -> None:
    error = error_with("offset = 2144337920, size = 1048576", "offset = 2144337920, size = 1048577")
    assert error.key == "journal.regions.2.size"
    assert error.line == line_with("2144337920")
    assert "The nearest are 1048576 and 1052672." in error.hint


def test_overlapping_regions_are_refused_naming_both() -> None:
    error = error_with("offset = 2142240768, size", "offset = 274726912, size")
    assert error.key in ("slot.rootfs.0.region", "slot.rootfs.0.headers.1")
    assert "inside slot.rootfs.0." in str(error)
    assert "Move it to" in error.hint


def test_a_region_over_the_partition_table_is_refused() -> None:
    assert "partition table" in str(error_with("{offset = 1048576,", "{offset = 4096,"))


def test_journal_copies_out_of_order_are_refused() -> None:
    text = TEXT.replace("{offset = 1048576, size", "{offset = 2144337920, size", 1)
    text = text.replace("  {offset = 2144337920, size = 1048576},\n]", "  {offset = 1048576, size = 1048576},\n]")
    with pytest.raises(ConfigError, match="before copy"):
        parse(text)


def test_a_journal_region_has_bounds() -> None:
    assert "must be 65536 to 67108864" in str(error_with("1048576, size = 1048576", "1048576, size = 4096"))


def test_the_header_of_an_image_that_fills_the_slot_fits_its_regions() -> None:
    error = error_with("{offset = 270532608, size = 1048576}", "{offset = 270532608, size = 49152}")
    assert error.key == "slot.rootfs.0.headers.0.size"
    assert "is 49152" in error.message and "268435456" in error.message and "53248" in error.hint
    config_with("{offset = 270532608, size = 1048576}", "{offset = 270532608, size = 53248}")


def test_regions_for_headers_have_room_for_more_than_the_digests() -> None:
    text = TEXT.replace("{offset = 274726912, size = 268435456}", f"{{offset = 274726912, size = {80 * 262144}}}")
    parse(text.replace("{offset = 270532608, size = 1048576}", "{offset = 270532608, size = 8192}"))
    with pytest.raises(ConfigError):
        parse(text.replace("{offset = 270532608, size = 1048576}", "{offset = 270532608, size = 4096}"))


def test_a_slot_for_more_than_any_header_describes_needs_no_larger_regions() -> None:
    end, regions = 2**41, "{offset = 270532608, size = 1048576},\n  {offset = 2142240768, size = 1048576}"
    roomy = f"{{offset = {end}, size = 16781312}},\n  {{offset = {end + 2**25}, size = 16781312}}"
    text = TEXT.replace(regions, roomy).replace(
        "region = {offset = 274726912, size = 268435456}", f"region = {{offset = {2**32}, size = {2**40}}}"
    )
    assert parse(text).slot["rootfs"]["0"].region.size == 2**40
    with pytest.raises(ConfigError):
        parse(text.replace("size = 16781312", "size = 16777216"))


def test_a_sysroot_is_packages_or_a_path_and_not_both() -> None:
    assert "not both" in str(error_with("[sysroot]", '[sysroot]\npath = "root"'))


def test_modules_need_a_kernel() -> None:
    assert "modules.boot asks for virtio_pci" in str(error_with('package = "linux-image-amd64"', ""))


def without_modules_but(table: str) -> str:
    """The example with no kernel and no modules but those that the one table asks for."""
    text = TEXT.replace('package = "linux-image-amd64"', "")
    lists = {"modules": ("boot = [", "recovery = ["), "network": ("modules = [",)}
    for name in {*lists} - {table}:
        lines = text.splitlines()
        text = "\n".join(line for line in lines if not line.startswith(lists[name]))
    return text if table == "watchdog" else text.replace('module = "i6300esb"\nparameters = "heartbeat=20"\n', "")


@pytest.mark.parametrize(
    ("table", "says"),
    [("watchdog", "watchdog.module asks for i6300esb"), ("network", "network.modules asks for virtio_net")],
)
def test_every_module_needs_a_kernel(table: str, says: str) -> None:
    parse(without_modules_but("nothing"))
    with pytest.raises(ConfigError) as caught:
        parse(without_modules_but(table))
    assert caught.value.key == "kernel" and says in caught.value.message


def test_parameters_are_of_a_module() -> None:
    assert error_with('module = "i6300esb"\n', "").key == "watchdog.parameters"


@pytest.mark.parametrize(
    "device", ["/dev/watch dog0", "/dev/watchdog0\\t", "/dev/w\u00e4chter", "/run/watchdog0", "/dev/"]
)
def test_the_watchdogs_device_is_one_word_below_dev(device: str) -> None:
    assert error_with('device = "/dev/watchdog0"', f'device = "{device}"').key == "watchdog.device"
    config_with('device = "/dev/watchdog0"', 'device = "/dev/misc/watchdog"')


def test_text_that_is_not_toml_names_its_line() -> None:
    error = error_with("[disk]", "[disk")
    assert error.line == line_with("[disk]")
    assert "is not TOML" in str(error)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("9" * 5000, "a number that is too long"),
        ("[" * 20000, "too many tables or lists"),
        ("0x" + "f" * 5000, "20000 bits"),
    ],
    ids=["digits", "lists", "hexadecimal"],
)
@pytest.mark.parametrize("key", ["boot-attempts", "size-max-bytes"])
def test_what_is_beyond_python_is_an_error_like_any_other(value: str, says: str, key: str) -> None:
    text = re.sub(f"(?m)^{key} = .*$", f"{key} = {value}", TEXT)
    with pytest.raises(ConfigError, match=says) as caught:
        parse(text)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml.*cannot be read"):
        load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigError, match="at most 262144"):
        load(tmp_path / "long.toml")


def device(tmp_path: Path, key: bytes) -> Config:
    (tmp_path / "root.pub").write_bytes(key)
    (tmp_path / "device.toml").write_text(TEXT)
    return load(tmp_path / "device.toml")


@pytest.mark.parametrize("key", [bytes(range(32)), bytes(range(32)).hex().encode() + b"\n"])
def test_the_root_key_is_raw_or_hexadecimal(tmp_path: Path, key: bytes) -> None:
    assert root_public_key(device(tmp_path, key)) == bytes(range(32))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), b"zz" * 32, b"00" * 31])
def test_a_root_key_of_another_form_is_refused(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(ConfigError, match=r"keyring\.root.*neither"):
        root_public_key(device(tmp_path, key))


def test_a_root_key_that_is_absent_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(TEXT)
    with pytest.raises(ConfigError) as caught:
        root_public_key(load(tmp_path / "device.toml"))
    assert "unbrick key new" in caught.value.hint


def test_the_frozen_module_is_one_literal_with_underscored_keys(tmp_path: Path) -> None:
    text = frozen_module(device(tmp_path, bytes(32)))
    assignment = ast.parse(text).body[-1]
    assert isinstance(assignment, ast.Assign)
    frozen = ast.literal_eval(assignment.value)
    assert frozen["boot_attempts"] == 3
    assert frozen["watchdog"]["timeout_seconds"] == 20
    assert frozen["button"] == {"code": 19, "hold_seconds": 2}
    assert frozen["slot"]["rootfs"]["0"]["region"] == {"offset": 274726912, "size": 268435456}
    assert frozen["keyring"] == {"root": "00" * 32}
    assert "sysroot" not in frozen and "source" not in frozen


def test_the_codes_of_keys_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/linux/input-event-codes.h").read_text()
    defined = {name: int(code, 0) for name, code in re.findall(r"#define ((?:KEY|BTN)_\w+)\s+(0x\w+|\d+)", header)}
    assert {name: defined.get(name) for name in KEY_CODES} == KEY_CODES


def test_the_frozen_module_says_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        texts.append(frozen_module(device(tmp_path / name, bytes(32))))
    assert texts[0] == texts[1]


def test_lines_are_found_in_inline_tables_and_despite_strings() -> None:
    lines = key_lines('a = "x = { # ]"\n[b.c]\nd = [{e = 1},\n {e = 2}]\n"f" = {g = 3}\n')
    assert lines["a"] == 1 and lines["b.c"] == 2
    assert lines["b.c.d.0.e"] == 3 and lines["b.c.d.1.e"] == 4
    assert lines["b.c.f.g"] == 5


def test_a_network_is_read() -> None:
    network = config_with('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/24"]\ngateway = "192.0.2.1"').network
    assert network is not None
    assert (network.urls, network.interface) == (("http://10.0.2.2:8080/os.ubk",), "any")
    assert (network.addresses, network.gateway, network.dns) == (("192.0.2.10/24",), "192.0.2.1", ())


def test_urls_may_be_https_where_that_is_built_in() -> None:
    urls = 'urls = ["https://a/os.ubk", "http://b/os.ubk"]\nhttps = true\nca = "ca.pem"'
    network = config_with('urls = ["http://10.0.2.2:8080/os.ubk"]', urls).network
    assert network is not None and network.urls == ("https://a/os.ubk", "http://b/os.ubk")


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["os.ubk"]', "network.urls.0"),
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["ftp://a/", "http://a/"]', "network.urls.0"),
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["http://user@a/"]', "network.urls.0"),
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["https://a/"]', "network.urls.0"),
        (
            'urls = ["http://10.0.2.2:8080/os.ubk"]',
            'urls = ["ftp://a/"]\nhttps = true\nca = "ca.pem"',
            "network.urls.0",
        ),
        ('interface = "any"', 'interface = "52:54:00"', "network.interface"),
        ('interface = "any"', 'interfase = "any"', "network.interfase"),
        ('# gateway = "192.0.2.1"', 'gateway = "192.0.2.1"', "network.gateway"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.300/24"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/255.255.255.0"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/0.0.0.255"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/0"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.0/24"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.255/24"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["fe80::10/64"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["2001:db8::10%eth0/64"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["127.0.0.2/8"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["::1/128"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["224.0.0.1/24"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["ff02::1/64"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["0.0.0.0/8"]', "network.addresses.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["fe80::1"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["fe80::1%eth0"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["2001:db8::1%eth0"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["0.0.0.0"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["::1"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["224.0.0.1"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/24"]\ngateway = "127.0.0.1"', "network.gateway"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/24"]\ngateway = "0.0.0.0"', "network.gateway"),
        ('# gateway = "192.0.2.1"', 'addresses = ["192.0.2.10/24"]\ngateway = "192.0.2.10"', "network.gateway"),
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["http://[fe80::1]/os.ubk"]', "network.urls.0"),
        ('urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["http://0.0.0.0/os.ubk"]', "network.urls.0"),
        (
            'urls = ["http://10.0.2.2:8080/os.ubk"]',
            'urls = ["https://[fe80::1]/"]\nhttps = true\nca = "ca.pem"',
            "network.urls.0",
        ),
        ('interface = "any"', 'interface = "eth0"', "network.interface"),
        ('interface = "any"', 'interface = "wlan1"', "network.interface"),
        ('interface = "any"', 'interface = "usb0"', "network.interface"),
        ('interface = "any"', 'interface = "lo"', "network.interface"),
        ('interface = "any"', 'interface = "enp0s3"', "network.interface"),
        ('interface = "any"', 'interface = "enP2p1s0f1"', "network.interface"),
        ('interface = "any"', 'interface = "eno1"', "network.interface"),
        ('interface = "any"', 'interface = "ens3"', "network.interface"),
        ('interface = "any"', 'interface = "end0"', "network.interface"),
        ('interface = "any"', 'interface = "enx001122334455"', "network.interface"),
        ('interface = "any"', 'interface = "wlp2s0"', "network.interface"),
        ('# gateway = "192.0.2.1"', 'dns = ["ns.example.org"]', "network.dns.0"),
        ('# gateway = "192.0.2.1"', 'dns = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]', "network.dns"),
    ],
)
def test_mistakes_in_the_network_are_named(before: str, after: str, key: str) -> None:
    error = error_with(before, after)
    assert key in str(error)


@pytest.mark.parametrize("address", ["192.0.2.0/31", "192.0.2.255/32", "169.254.1.1/16", "2001:db8::/64", "fd00::1/64"])
def test_addresses_that_a_host_can_have_are_taken(address: str) -> None:
    network = config_with('# gateway = "192.0.2.1"', f'addresses = ["{address}"]').network
    assert network is not None and network.addresses == (address,)


@pytest.mark.parametrize(
    "name", ["any", "e1000", "r8169", "ena", "enic", "enc28j60", "usb8xxx", "lan78xx", "52:54:00:12:34:56"]
)
def test_an_interface_is_a_driver_or_an_address(name: str) -> None:
    network = config_with('interface = "any"', f'interface = "{name}"').network
    assert network is not None and network.interface == name


def test_numeric_servers_are_taken() -> None:
    network = config_with(
        'urls = ["http://10.0.2.2:8080/os.ubk"]', 'urls = ["http://[2001:db8::1]:8080/a", "http://1.a/"]'
    ).network
    assert network is not None and len(network.urls) == 2


def test_an_image_without_a_network_has_nothing_of_it() -> None:
    start, end = TEXT.index("[network]"), TEXT.index("[keyring]")
    assert parse(TEXT[:start] + TEXT[end:]).network is None
