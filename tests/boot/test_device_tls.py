"""TLS in a machine that has just started: no clock, a moment's worth of randomness, a network by QEMU.

The other end is `openssl s_server` on the host. How long the first random bytes take is printed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from initramfs import kernel_modules
from qemu.machine import MachineOptions
from qemu.pytest_plugin import MachineFactory
from scripts.virtual import kernel
from tests.boot.frozen_stand_in import CACHE, StandIn, frozen_https
from tests.programs.certificates import authority, server
from tests.programs.tls_server import openssl_server

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(not shutil.which("openssl"), reason="the other end is `openssl s_server`"),
]

SECONDS = 300.0
CRASHED = "E901 python-exited"
HOST = "updates.example.org"
FILE_BYTES = 1 << 20
BUILT_AT = 1_700_000_000
ACT = """
import fcntl, os, socket, struct, time
from payload import tls

SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C  # <linux/sockios.h>
UP = 1

def say(text):
    os.write(1, f"tls: {text}\\n".encode())

def set_address(request, address):
    sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(connection, request, struct.pack("16s16s8x", b"eth0", sockaddr))

def is_random():
    try:
        return len(os.getrandom(1, os.GRND_NONBLOCK)) == 1
    except BlockingIOError:
        return False

connection = socket.socket()
set_address(SIOCSIFADDR, "10.0.2.15")
set_address(SIOCSIFNETMASK, "255.255.255.0")
fcntl.ioctl(connection, SIOCSIFFLAGS, struct.pack("16sH22x", b"eth0", UP))
connection.settimeout(30)
with open("/ca.der", "rb") as file:
    anchors = (file.read(),)
with open("/port") as file:
    port = int(file.read())
connection.connect(("10.0.2.2", port))
say(f"connected {time.clock_gettime(time.CLOCK_BOOTTIME):.2f} s after the start, random already: {is_random()}")
started = time.monotonic()
tls._unbrick_tls.Session("example.org", False, anchors, 0).handshake()
say(f"a greeting took {time.monotonic() - started:.3f} s")
started = time.monotonic()
stream = tls.wrap(connection, "updates.example.org", anchors, 60, 0)
say(f"the handshake took {time.monotonic() - started:.3f} s: {stream.protocol}")
started = time.monotonic()
stream.sendall(b"GET /payload HTTP/1.0\\r\\n\\r\\n")
size = 0
while piece := stream.recv(1 << 20):
    size += len(piece)
say(f"{size} bytes took {time.monotonic() - started:.3f} s")
say(f"built at {int(os.stat('/init').st_mtime)}")
stream.close()
time.sleep(1000)
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return frozen_https(tmp_path_factory.mktemp("https"))


@pytest.mark.requirement("D7")
@pytest.mark.requirement("M22")
@pytest.mark.parametrize(("cpu", "words"), [("max", ""), ("max,-rdrand,-rdseed", "random.trust_cpu=off")])
def test_a_machine_that_has_just_started_shakes_hands(
    cpu: str, words: str, stand_in: StandIn, machine: MachineFactory, tmp_path: Path
) -> None:
    """With a processor that makes random numbers, and without one."""
    ca = authority()
    (tmp_path / "payload").write_bytes(bytes(FILE_BYTES))
    with openssl_server(tmp_path, server(ca, HOST)) as port:
        files = {"act.py": ACT.encode(), "ca.der": ca.der, "port": str(port).encode()}
        guest = machine(options(stand_in, files, tmp_path / "initrd", cpu, words))
        found = guest.expect(re.compile(r"tls: the handshake took (\d+\.\d+) s: TLSv1\.3"), SECONDS, unless=CRASHED)
        size = int(guest.expect(re.compile(r"tls: (\d+) bytes took"), SECONDS, unless=CRASHED)[1])
        guest.expect(f"tls: built at {BUILT_AT}", SECONDS)
    assert FILE_BYTES < size < FILE_BYTES + 200
    assert float(found[1]) < 60


def options(stand_in: StandIn, files: dict[str, bytes], initrd: Path, cpu: str, words: str) -> MachineOptions:
    """A machine with QEMU's own network, where 10.0.2.2 is the host."""
    debian = kernel.fetch(CACHE)
    modules = kernel_modules.resolve(debian.root, debian.release, ["virtio_pci", "virtio_net"])
    listed = "".join(f"/{module.name}.ko\n" for module in modules)
    files |= {f"{module.name}.ko": module.source.read_bytes() for module in modules}
    stand_in.initrd(initrd, files, listed, BUILT_AT)
    network = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")
    append = f"console=ttyS0 panic=-1 {words}"
    return MachineOptions(debian.image, initrd, append, memory_mib=128, cpu=cpu, extra=network)
