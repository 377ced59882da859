"""Bytes of TCP in a log of packets, cut short as the emulator's killing leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu.errors import LabError
from qemu.network_log import FILE_HEADER, HEADERS_BYTES_MAX, MAGIC, PACKET_HEADER, tcp_bytes_from

PORT = 8443
ETHERNET = bytes(12)


def tcp(port: int, content: bytes, options: int = 0) -> bytes:
    header = port.to_bytes(2) + (40000).to_bytes(2) + bytes(8) + bytes([(5 + options) << 4]) + bytes(7)
    return header + bytes(4 * options) + content


def ipv4(segment: bytes, protocol: int = 6, padding: bytes = b"") -> bytes:
    header = bytes([0x46, 0]) + (24 + len(segment)).to_bytes(2) + bytes(5) + bytes([protocol]) + bytes(14)
    return ETHERNET + b"\x08\x00" + header + segment + padding


def ipv6(segment: bytes) -> bytes:
    return ETHERNET + b"\x86\xdd" + bytes(4) + len(segment).to_bytes(2) + bytes([6, 64]) + bytes(32) + segment


def log(path: Path, *packets: bytes) -> Path:
    content = FILE_HEADER.pack(MAGIC, 2, 4, 0, 0, HEADERS_BYTES_MAX, 1)
    for packet in packets:
        here = packet[:HEADERS_BYTES_MAX]
        content += PACKET_HEADER.pack(0, 0, len(here), len(packet)) + here
    path.write_bytes(content)
    return path


def test_content_from_one_port_counts(tmp_path: Path) -> None:
    packets = (
        ipv4(tcp(PORT, b"x" * 1000)),  # longer than what is kept of it
        ipv4(tcp(PORT, b"yy", options=3), padding=bytes(20)),  # a short one is filled up on the wire
        ipv6(tcp(PORT, b"z" * 300)),
        ipv4(tcp(PORT, b"")),
        ipv4(tcp(PORT + 1, b"of somebody else")),
        ipv4(tcp(PORT, b"not TCP"), protocol=17),
        ETHERNET + b"\x08\x06" + bytes(28),
    )
    path = log(tmp_path / "packets", *packets)
    assert tcp_bytes_from(path, PORT) == 1302
    path.write_bytes(path.read_bytes()[:-3])
    assert tcp_bytes_from(path, PORT) == 1302


@pytest.mark.parametrize("content", [b"", bytes(64)])
def test_something_else_is_no_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "packets").write_bytes(content)
    with pytest.raises(LabError, match="no log of a network"):
        tcp_bytes_from(tmp_path / "packets", PORT)
