"""Where deltas are measured: a private Debian with the peers' tools, a web server in it, and our frozen client."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from initramfs.freeze import closure, freeze
from initramfs.frozen_init import NATIVE_SOURCES
from scripts.benchmarks.errors import BenchmarkError
from scripts.benchmarks.measure import Cost, measuring_program, run_and_report
from scripts.benchmarks.private_root import private_debian
from scripts.virtual.commands import SetupError, run
from scripts.virtual.frozen import sysroot
from scripts.virtual.web_server import free_port

CHECKOUT = Path(__file__).parents[2]
ENTER = Path(__file__).with_name("peers") / "enter-delta.sh"
CLIENT = Path(__file__).with_name("delta_client")
PACKAGES = ("usr-is-merged", "casync", "zchunk", "zsync", "xdelta3", "zstd", "nginx-light", "curl", "gzip")
SECONDS_MAX = 1200
SERVER_SECONDS_MAX = 10
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/measured"}
NGINX = """
daemon off; master_process off; user root; pid /measured/nginx.pid; error_log /measured/error.log;
events {{ worker_connections 64; }}
http {{
  log_format bytes '$body_bytes_sent';
  access_log /measured/access.log bytes;
  keepalive_requests 1000000;
  tcp_nodelay on;
  server {{ listen 127.0.0.1:{port}; root /measured/server; }}
}}
"""


class DeltaPlace:
    """``work`` is /measured inside of the root: ``server`` is what the web server has, ``client`` where results go."""

    def __init__(self, cache: Path, work: Path) -> None:
        """Raises: SetupError."""
        if os.geteuid() != 0:
            raise SetupError("the peers run in a root of their own", "run it as root: sudo ./scripts/bench delta")
        self._root = private_debian(cache, "delta-peers", PACKAGES)
        self._measure = measuring_program(cache)
        self.work = work
        shutil.rmtree(work, ignore_errors=True)
        for name in ("server", "client"):
            (work / name).mkdir(parents=True)
        _freeze_client(cache, work / "unbrick-client")

    def prepare(self, script: str) -> None:
        """Run a shell script in the root, not measured. Raises: BenchmarkError."""
        try:
            run([*self._around(), "sh", "-euc", script], hint="see above", seconds_max=SECONDS_MAX)
        except SetupError as error:
            raise BenchmarkError(str(error)) from error

    def measured(self, script: str) -> Cost:
        """Run a shell script in the root and tell what it cost. Raises: BenchmarkError."""
        report = self.work / "cost"
        environment = {**ENVIRONMENT, "MEASURE": f"{self._measure} {report}"}
        command = [*self._around(), "sh", "-euc", script]
        return run_and_report(command, report, seconds_max=SECONDS_MAX, environment=environment)

    def _around(self) -> list[str | Path]:
        return ["unshare", "--mount", "--propagation", "private", ENTER, self._root, self.work]

    @contextmanager
    def web_server(self) -> Iterator[int]:
        """nginx with ``work/server``; its port. Its log begins anew. Raises: SetupError."""
        port = free_port()
        (self.work / "access.log").unlink(missing_ok=True)
        (self.work / "nginx.conf").write_text(NGINX.format(port=port))
        command = [str(word) for word in (*self._around(), "nginx", "-c", "/measured/nginx.conf")]
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SERVER_SECONDS_MAX)

    def answers(self) -> list[int]:
        """The bytes of each body that the last web server sent."""
        return [int(line) for line in (self.work / "access.log").read_text().split()]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SERVER_SECONDS_MAX
    while True:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SetupError("nginx does not start", "see error.log in build/bench/delta")
        time.sleep(0.05)


def _freeze_client(cache: Path, program: Path) -> None:
    """The device's modules and its C module around one installation."""
    root = sysroot(cache)
    modules = closure(("recovery.main", "recovery.cli"), root, (CLIENT, CHECKOUT), cache_dir=cache)
    freeze(modules, root, NATIVE_SOURCES, program, cache / "frozen")
