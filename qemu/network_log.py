"""What a guest's network card was sent: counted from the log that a machine with ``network_log`` writes.

Counts what travelled, whoever asked for it and whatever became of it: retransmitted bytes count again, and bytes that
were still in a buffer when the power went, too. Needs only the beginning of each packet.

Format: pcap (draft-ietf-opsawg-pcap, "Packet Capture File Format"), as the emulator's ``filter-dump`` writes it: in
the host's byte order, link type Ethernet. An emulator that is killed may leave half a packet at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from qemu.errors import LabError

MAGIC = 0xA1B2C3D4
FILE_HEADER = struct.Struct("=IHHiIII")
PACKET_HEADER = struct.Struct("=IIII")  # seconds, microseconds, bytes here, bytes of the packet
HEADERS_BYTES_MAX = 128  # Ethernet, IPv6 and TCP with all its options
ETHERNET_BYTES = 14
TCP = 6
_IPV4, _IPV6 = 0x0800, 0x86DD


def tcp_bytes_from(path: Path, port: int) -> int:
    """Bytes that came over TCP from ``port``, without the headers of TCP and below. Raises: LabError."""
    return sum(_tcp_bytes(packet, port) for packet in _packets(path))


def _packets(path: Path) -> Iterator[bytes]:
    """The beginning of each packet."""
    content = path.read_bytes()
    if len(content) < FILE_HEADER.size or FILE_HEADER.unpack_from(content)[0] != MAGIC:
        raise LabError(f"{path} is no log of a network", "was the machine started with network_log?")
    position = FILE_HEADER.size
    while position + PACKET_HEADER.size <= len(content):
        length = PACKET_HEADER.unpack_from(content, position)[2]
        position += PACKET_HEADER.size
        if position + length > len(content):
            return
        yield content[position : position + length]
        position += length


def _tcp_bytes(packet: bytes, port: int) -> int:
    kind = int.from_bytes(packet[12:14])
    found = _READERS[kind](packet[ETHERNET_BYTES:]) if kind in _READERS else None
    if found is None:
        return 0
    segment, length = found
    if int.from_bytes(segment[:2]) != port:
        return 0
    return length - (segment[12] >> 4) * 4


def _ipv4(datagram: bytes) -> tuple[bytes, int] | None:
    """The TCP segment in an IPv4 datagram, and its whole length: RFC 791, section 3.1."""
    header = (datagram[0] & 15) * 4
    return (datagram[header:], int.from_bytes(datagram[2:4]) - header) if datagram[9] == TCP else None


def _ipv6(datagram: bytes) -> tuple[bytes, int] | None:
    """The same for IPv6 without extension headers: RFC 8200, section 3."""
    return (datagram[40:], int.from_bytes(datagram[4:6])) if datagram[6] == TCP else None


_READERS = {_IPV4: _ipv4, _IPV6: _ipv6}
