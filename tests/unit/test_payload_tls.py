"""What payload.tls does where there is no TLS. The rest runs other programs: tests/programs/test_tls.py."""

from __future__ import annotations

import socket

import pytest

from payload import tls


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_a_program_without_https_says_so_and_closes(pair: tuple[socket.socket, socket.socket]) -> None:
    assert vars(tls)["_unbrick_tls"] is None, "the build host has no such module"
    with pytest.raises(tls.TlsError, match="this program was built without HTTPS"):
        tls.wrap(pair[0], "updates.example.org", (b"",), 1, 0)
    assert pair[0].fileno() == -1
    assert pair[1].recv(1) == b"", "and nothing was sent"


def test_what_goes_wrong_is_an_error_of_the_network() -> None:
    """One who retries an ``OSError`` retries this too."""
    assert issubclass(tls.TlsError, OSError)


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "2001:db8::7", "::ffff:10.0.0.1"])
def test_addresses(name: str) -> None:
    assert tls._is_address(name)


@pytest.mark.parametrize("name", ["", "127.1", "2130706433", "1.2.3.4.5", "fe80::1%eth0", "[::1]", "localhost"])
def test_names(name: str) -> None:
    assert not tls._is_address(name)
