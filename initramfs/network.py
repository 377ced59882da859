"""What ``[network]`` of a device's configuration must hold, and what it brings into the image.

The device parses URLs and addresses by the same rules; here a mistake has a file and a line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from payload.dns import is_address
from payload.errors import FetchError
from payload.fetch import URLS_MAX
from payload.url import parse
from recovery.link import PROGRAM

if TYPE_CHECKING:
    from initramfs.config import Config, Network

ADDRESSES_MAX = 4
NAME_SERVERS_MAX = 3
# What the kernel and udev call interfaces: no driver is called like that.
_INTERFACE_NAME = re.compile(r"lo|(eth|wlan|usb|wwan|end)\d+|(en|wl)[ospP]\d\w*|(en|wl)x[0-9a-f]{12}")
# In place of the modules that lead to everything else of the network, where an image has none.
STAND_IN = dict.fromkeys(("recovery.download", "recovery.network"), '"""This image was built without [network]."""\n')


def check_network(config: Config) -> None:
    """Raises ``ConfigError`` at the key that is wrong."""
    network = config.network
    if network is None:
        return
    _check_each(config, "urls", network.urls, URLS_MAX, _check_url if network.https else _check_plain_url)
    _check_each(config, "addresses", network.addresses, ADDRESSES_MAX, _check_interface_address)
    _check_each(config, "dns", network.dns, NAME_SERVERS_MAX, _check_host)
    if network.gateway:
        _check_each(config, "gateway", (network.gateway,), 1, _check_gateway)
        _check_own_addresses(config, network)
    if _INTERFACE_NAME.fullmatch(network.interface):
        problem = f"is {network.interface}, a name that follows the order of discovery; interfaces are not found by it"
        raise config.source.error("network.interface", problem, _HINTS["interface"])


def programs(config: Config) -> tuple[str, ...]:
    """What the image needs for it beside the configured programs."""
    return (PROGRAM,) if config.network else ()


def stand_ins(config: Config) -> Mapping[str, str]:
    """Modules that this image has in another form."""
    return {} if config.network else STAND_IN


def _check_each(
    config: Config, key: str, values: tuple[str, ...], count_max: int, check: Callable[[str], object]
) -> None:
    if len(values) > count_max:
        raise config.source.error(f"network.{key}", f"has {len(values)} entries; at most {count_max} are used")
    for index, value in enumerate(values):
        place = "network.gateway" if key == "gateway" else f"network.{key}.{index}"
        try:
            check(value)
        except (ValueError, FetchError) as error:
            raise config.source.error(place, str(error), _HINTS[key]) from error


def _check_own_addresses(config: Config, network: Network) -> None:
    own = [address.partition("/")[0] for address in network.addresses if "." in address]
    if not own:
        raise config.source.error("network.gateway", "is of no use without an IPv4 address in addresses")
    if network.gateway in own:
        raise config.source.error("network.gateway", "is an address of the device itself", _HINTS["gateway"])


def _check_plain_url(text: str) -> None:
    if parse(text).scheme == "https":
        raise ValueError(f"{text} is https, and network.https is not true")
    _check_url(text)


def _check_url(text: str) -> None:
    host = parse(text).host
    if is_address(host):
        _check_host(host)


def _check_interface_address(text: str) -> None:
    """dhcpcd takes a prefix length alone, and Linux no address that stands for a net."""
    host, _, prefix = text.partition("/")
    if not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"{text} has no prefix length")
    address, net = _check_host(host), ipaddress.ip_interface(text).network
    if net.prefixlen == 0:
        raise ValueError(f"{text} has the prefix length of all addresses there are")
    if address.version == 4 and net.num_addresses > 2 and address in (net.network_address, net.broadcast_address):
        raise ValueError(f"{text} is the address of a net or of all in it, not of a host")


def _check_gateway(text: str) -> None:
    _check_host(str(ipaddress.IPv4Address(text)))


def _check_host(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of one machine, which says without an interface's name where that is. Raises ``ValueError``."""
    address = ipaddress.ip_address(text)
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise ValueError(f"{text} is no address of a machine in a net")
    if address.version == 6 and (address.is_link_local or "%" in text):
        raise ValueError(f"{text} means something on one cable only, and the device cannot be told on which")
    return address


_HINTS = {
    "interface": 'Give its MAC address, its driver (`readlink /sys/class/net/NAME/device/driver`), or "any".',
    "urls": 'A URL is like "http://updates.example.org/os.ubk".',
    "addresses": 'An address is like "192.0.2.10/24" or "2001:db8::10/64".',
    "dns": 'A name server is an address like "192.0.2.1".',
    "gateway": 'A gateway is an IPv4 address like "192.0.2.1"; IPv6 gets its own from router advertisements.',
}
