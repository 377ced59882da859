"""What ``[network]`` of a device's configuration must hold, and what it brings into the image.

The device parses URLs and addresses by the same rules; here a mistake has a file and a line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from payload.errors import FetchError
from payload.fetch import URLS_MAX
from payload.url import parse
from recovery.link import PROGRAM

if TYPE_CHECKING:
    from initramfs.config import Config

ADDRESSES_MAX = 4
NAME_SERVERS_MAX = 3
# In place of the modules that lead to everything else of the network, where an image has none.
STAND_IN = dict.fromkeys(("recovery.download", "recovery.network"), '"""This image was built without [network]."""\n')


def check_network(config: Config) -> None:
    """Raises ``ConfigError`` at the key that is wrong."""
    network = config.network
    if network is None:
        return
    _check_each(config, "urls", network.urls, URLS_MAX, _check_url if not network.https else parse)
    _check_each(config, "addresses", network.addresses, ADDRESSES_MAX, _check_interface_address)
    _check_each(config, "dns", network.dns, NAME_SERVERS_MAX, ipaddress.ip_address)
    if network.gateway:
        _check_each(config, "gateway", (network.gateway,), 1, ipaddress.IPv4Address)
    if network.gateway and not any("." in address for address in network.addresses):
        raise config.source.error("network.gateway", "is of no use without an IPv4 address in addresses")


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


def _check_url(text: str) -> None:
    if parse(text).scheme == "https":
        raise ValueError(f"{text} is https, and network.https is not true")


def _check_interface_address(text: str) -> None:
    if "/" not in text:
        raise ValueError(f"{text} has no prefix length")
    ipaddress.ip_interface(text)


_HINTS = {
    "urls": 'A URL is like "http://updates.example.org/os.ubk".',
    "addresses": 'An address is like "192.0.2.10/24" or "2001:db8::10/64".',
    "dns": 'A name server is an address like "192.0.2.1".',
    "gateway": 'A gateway is an IPv4 address like "192.0.2.1"; IPv6 gets its own from router advertisements.',
}
