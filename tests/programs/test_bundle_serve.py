"""`unbrick bundle serve` as a program: it says where, answers, and ends with Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.requirement("D7")
@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_a_bundle_is_served_until_ctrl_c(tmp_path: Path, address: str) -> None:
    (tmp_path / "os.ubk").write_bytes(b"content")
    words = [
        "bundle",
        "serve",
        str(tmp_path / "os.ubk"),
        "--port",
        "0",
        "--json",
        *(["--address", address] * bool(address)),
    ]
    command = [sys.executable, "-m", "unbrick", *words]
    # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=_hear_ctrl_c) as server:  # noqa: PLW1509
        try:
            assert server.stdout is not None
            told = json.loads(b"".join(iter(server.stdout.readline, b"}\n")) + b"}")
            asked = urllib.request.Request(told["urls"][0], headers={"Range": "bytes=3-"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                assert (answer.status, answer.read()) == (206, b"tent")
            server.send_signal(signal.SIGINT)
            assert server.wait(10) == 0
        finally:
            server.kill()
