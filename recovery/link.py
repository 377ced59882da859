"""The network link: an interface gets an address, by DHCP, by router advertisements, or as configured.

All of it is dhcpcd's work, a client that is kept well: DHCP, DHCPv6, IPv6 autoconfiguration, static addresses,
leases that are renewed. It runs without a script (there is no shell here) and sets addresses and routes itself.
Here is which interface, for how long, and which name servers it found. What strangers on the net
say is only ever where to look for a bundle; whom to believe is said by its signature.
"""

from __future__ import annotations

import os
import time

from payload.dns import is_address
from payload.errors import FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

PROGRAM = "/usr/sbin/dhcpcd"
# The folders in which dhcpcd keeps identity, leases and its control socket.
STATE_FOLDERS = ("/var/lib/dhcpcd", "/run/dhcpcd")
LEASE_FILE = "/run/unbrick-lease"
APPEAR_SECONDS_MAX = 10.0
ADDRESS_SECONDS_MAX = 20.0
# How much longer than to its first address of IPv6 an interface may take to one of IPv4.
SECOND_FAMILY_SECONDS_MAX = 6.0
ENDING_SECONDS_MAX = 10.0
INTERFACES_MAX = 8
NAME_SERVERS_MAX = 3
LEASE_BYTES_MAX = 16 << 10
_POLL_SECONDS = 0.1
_SYS_NET = "/sys/class/net"
_SIOCGIFADDR = 0x8915  # <linux/sockios.h>
_IFREQ_BYTES = 40
_BEYOND_THE_CABLE = ("00", "40")  # scopes: global, site
_TENTATIVE, _FAILED = 0x40, 0x08  # <linux/if_addr.h>


class LinkMissingError(FetchError):
    """There is no such interface."""

    reason = "link-missing"


class AddressMissingError(FetchError):
    """No interface got an address: no cable, or nobody who gives one."""

    reason = "address-missing"


class Link:
    """``config`` is device.toml's ``[network]``; ``alive`` is called between all waits."""

    def __init__(self, config: dict[str, Any], alive: Callable[[], None], sys_net: str = _SYS_NET) -> None:
        self._config = config
        self._alive = alive
        self._sys_net = sys_net
        self._interface = ""

    def up(self, alive: Callable[[], None]) -> list[str]:
        """Have an address; the name servers to ask. Does nothing while there is one already.

        ``alive`` is called in the long waits; a ``FetchError`` of it ends them, and leaves nothing behind.

        Raises:
            LinkMissingError, AddressMissingError: and why, in words.
        """
        if not (self._interface and has_carrier(self._sys_net, self._interface)):
            self.down()
            self._interface = self._first_with_address(self._appeared(alive), alive)
        return list(self._config["dns"]) or self._name_servers()

    def down(self) -> None:
        """Give the address back and forget it: the next time, another server may answer."""
        if self._interface:
            self._run(ENDING_SECONDS_MAX, "-x", self._interface)
            for suffix in ("", "6"):
                _forget(f"{STATE_FOLDERS[0]}/{self._interface}.lease{suffix}")
        self._interface = ""

    def carriers(self) -> set[str]:
        """The interfaces with a cable in, as far as they were ever switched on."""
        return {name for name in self._wanted() if has_carrier(self._sys_net, name)}

    def _appeared(self, alive: Callable[[], None]) -> list[str]:
        """The interfaces that are meant; drivers and USB take their time."""
        deadline = time.monotonic() + APPEAR_SECONDS_MAX
        while not (names := self._wanted()):
            if time.monotonic() > deadline:
                raise LinkMissingError(f"no network interface is {self._config['interface']!r}")
            alive()
            time.sleep(_POLL_SECONDS)
        return names

    def _wanted(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._sys_net))
        except OSError:
            return []
        return [name for name in names if self._is_meant(name)][:INTERFACES_MAX]

    def _is_meant(self, name: str) -> bool:
        wanted: str = self._config["interface"]
        folder = f"{self._sys_net}/{name}"
        if wanted == "any":
            return os.path.exists(f"{folder}/device")  # not lo, no bridge
        if ":" in wanted:
            return first_line(f"{folder}/address").lower() == wanted.lower()
        return os.path.basename(os.path.realpath(f"{folder}/device/driver")) == wanted

    def _first_with_address(self, names: Sequence[str], alive: Callable[[], None]) -> str:
        """All of them try at once; what is slower than the first is stopped again."""
        for folder in STATE_FOLDERS:
            os.makedirs(folder, exist_ok=True)
        for name in names:
            self._run(ENDING_SECONDS_MAX, *self._arguments(), name)
        chosen = ""
        try:
            chosen = self._wait_for_address(names, alive)
        finally:
            for name in names:
                if name != chosen:
                    self._run(ENDING_SECONDS_MAX, "-x", name)
        if not chosen:
            raise AddressMissingError(f"no address for {', '.join(names)} in {ADDRESS_SECONDS_MAX:.0f} s")
        return chosen

    def _wait_for_address(self, names: Sequence[str], alive: Callable[[], None]) -> str:
        """The first interface that has one; "" if none gets one in time."""
        deadline = time.monotonic() + ADDRESS_SECONDS_MAX
        wanted = {6 if ":" in address else 4 for address in self._config["addresses"]} or {4}
        has_other = False
        while time.monotonic() < deadline:
            alive()
            found = {name: families_of(name) for name in names}
            for name in names:
                if wanted <= found[name]:
                    return name
            if any(found.values()) and not self._config["addresses"] and not has_other:
                # There is IPv6: a net without IPv4 must not cost all of the time.
                has_other = True
                deadline = min(deadline, time.monotonic() + SECOND_FAMILY_SECONDS_MAX)
            time.sleep(_POLL_SECONDS)
        return next((name for name in names if families_of(name)), "")

    def _arguments(self) -> list[str]:
        """In the background from the start; no configuration file, no script, no probing, no made-up address."""
        arguments = ["-b", "-q", "-f", "/dev/null", "-c", "/dev/null", "-A", "-L", "-t", "0"]
        for address in self._config["addresses"]:
            arguments += ["-S", f"{'ip6_address' if ':' in address else 'ip_address'}={address}"]
        if self._config["gateway"]:
            arguments += ["-S", f"routers={self._config['gateway']}"]
        return arguments

    def _name_servers(self) -> list[str]:
        """Those of the lease. A router's advertisement of name servers is not looked at."""
        found: list[str] = []
        for family in ("-4", "-6"):
            self._run(ENDING_SECONDS_MAX, "-U", family, self._interface, output=LEASE_FILE)
            found += name_servers_of(first_bytes(LEASE_FILE))
            _forget(LEASE_FILE)
        return found[:NAME_SERVERS_MAX]

    def _run(self, seconds_max: float, *arguments: str, output: str = "/dev/null") -> int:
        """dhcpcd's exit code; it may leave a process of its own behind. Ended when it takes too long."""
        access = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [(os.POSIX_SPAWN_OPEN, descriptor, path, access, 0o600) for descriptor, path in
                   ((1, output), (2, "/dev/null"))]  # fmt: skip
        try:
            process = os.posix_spawn(PROGRAM, [PROGRAM, *arguments], {}, file_actions=actions)
        except OSError:
            return -1
        deadline = time.monotonic() + seconds_max
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(process, 9)
                deadline += seconds_max
            self._alive()
            time.sleep(_POLL_SECONDS)


def has_carrier(sys_net: str, name: str) -> bool:
    """Whether a cable is in. An interface that is switched off does not know."""
    return first_line(f"{sys_net}/{name}/carrier") == "1"


def families_of(name: str) -> set[int]:
    """4 and 6: those of which the interface has an address that is good beyond its own cable."""
    families = {4} if _has_ipv4(name) else set()
    return families | ({6} if has_ipv6(first_bytes("/proc/net/if_inet6"), name) else set())


def _has_ipv4(name: str) -> bool:
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:
        try:
            fcntl.ioctl(place.fileno(), _SIOCGIFADDR, name.encode()[:15].ljust(_IFREQ_BYTES, b"\0"))
        except OSError:
            return False
    return True


def has_ipv6(table: bytes, name: str) -> bool:
    """From /proc/net/if_inet6: address, index, prefix length, scope, flags (hexadecimal), name."""
    lines = [line.split() for line in table.decode("ascii", "replace").splitlines()]
    mine = [words for words in lines if len(words) == 6 and words[5] == name and words[3] in _BEYOND_THE_CABLE]
    return any(not int(words[4], 16) & (_TENTATIVE | _FAILED) for words in mine)


def name_servers_of(lease: bytes) -> list[str]:
    """From what `dhcpcd --dumplease` prints: ``domain_name_servers=…``, ``dhcp6_name_servers=…``."""
    found: list[str] = []
    for line in lease.decode("ascii", "replace").splitlines():
        name, _, value = line.partition("=")
        if name.endswith("name_servers"):
            found += [word for word in value.strip("'\"").split() if is_address(word)]
    return found


def first_line(path: str) -> str:
    return first_bytes(path).decode("ascii", "replace").partition("\n")[0].strip()


def first_bytes(path: str) -> bytes:
    """The beginning of a file; nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, LEASE_BYTES_MAX)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _forget(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
